"""An embedded ClickHouse server in a process of its own, for tests to start, stop and kill."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.contract.clickhouse_http import ClickHouse

START_SECONDS = 60
STOP_SECONDS = 60
CAP_SYS_NICE = 23  # its bit, from linux/capability.h


def start_command(data: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "deploy.embedded.clickhouse", "--data", str(data), "--port", "0", *arguments]


def may_set_priorities() -> bool:
    """Whether processes started here may give their threads any priority."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return bool(int(status["CapEff"], 16) >> CAP_SYS_NICE & 1)


class EmbeddedServer:
    """A running server; its log goes to `<data>.log`."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.log = data.with_suffix(".log")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(start_command(data, *arguments), stdout=subprocess.PIPE, stderr=log)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()  # ends at once if the process dies
        if not line:
            raise AssertionError(f"the server did not start: {self.log.read_text()[-2000:]}")
        self.ready = json.loads(line)

    @property
    def clickhouse(self) -> ClickHouse:
        return ClickHouse(host=self.ready["host"], port=self.ready["port"])

    def kill(self) -> None:
        """kill -9: nothing can be written after it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_SECONDS)
        self._close()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(STOP_SECONDS)
        self._close()
        return status

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def priorities(self) -> list[tuple[str, int]]:
        """Its threads by name, with their nice values."""
        found = []
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it may end meanwhile
                found.append(((thread / "comm").read_text().strip(), os.getpriority(os.PRIO_PROCESS, int(thread.name))))
        return found

    def _close(self) -> None:
        if self.process.stdout is not None:
            self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.kill()
