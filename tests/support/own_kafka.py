"""An embedded Kafka of a test's own, to be stopped, killed, frozen and started again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.ingest_service import HOST, free_port

_ROOT = Path(__file__).parents[2]


class OwnKafka:
    """A broker on a port and in a folder that stay the same over restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        """Start and wait until clients can connect."""
        command = [sys.executable, "-m", "deploy.cli.main", "kafka", "--data", str(self.folder), "--port", str(self.port)]
        # A session of its own, so that a signal reaches the broker's JVM too.
        self.process = subprocess.Popen(
            command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        assert self.process.stdout is not None
        said = b""
        for line in self.process.stdout:
            said += line
            if b" ready at " in line:
                return
        raise AssertionError(f"Kafka did not become ready: {said.decode()}")

    def signal(self, number: signal.Signals) -> None:
        """Signal the whole broker, as with SIGSTOP and SIGCONT."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def stop(self, *, kill: bool = False) -> None:
        """End it, cleanly or as a crash does, and wait until it is gone."""
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGKILL if kill else signal.SIGTERM)
            self.process.wait(60)
