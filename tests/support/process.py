"""One part of the product as a process of its own, started as users start it, to be killed and frozen at will."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from deploy.embedded.process import die_with_parent

_ROOT: Final = Path(__file__).parents[2]
WAIT_S: Final = 90.0
_ASK_S: Final = 0.1
_ASK_S_MAX: Final = 1.0


def eventually(what: str, holds: Callable[[], Any], *, timeout_s: float = WAIT_S) -> Any:
    """Ask until the answer is true, and return it; fail with its name when the time is over."""
    asked = time.monotonic()
    deadline = asked + timeout_s
    while not (found := holds()):
        answered = time.monotonic()
        if answered > deadline:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what}")
        # The condition looks at other processes; there is nothing of theirs to await here. A costly one is asked less often, so
        # that asking does not take the time from those it waits for.
        time.sleep(min(max(_ASK_S, 2 * (answered - asked)), _ASK_S_MAX))
        asked = time.monotonic()
    return found


class Process:
    """`toolledger ARGUMENTS`; its output goes to a file.

    To be started from a thread that lives as long as the test: with that thread the process ends, so that a test run that is
    killed leaves nothing behind.
    """

    def __init__(self, name: str, arguments: Sequence[str], *, folder: Path, env: Mapping[str, str]) -> None:
        self.log = folder / f"{name}.log"
        # What it says from here on is its own; before lies what a former process of that name said.
        self.log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.cli.main", *arguments],
                cwd=_ROOT,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A group of its own, so that a signal reaches its children too; in one session, as `up` starts them, because
                # Linux shares the cores among sessions first, and a nice value counts only within one.
                process_group=0,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - the child only makes one system call
            )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        """Return what this process has said so far."""
        with self.log.open("rb") as log:
            log.seek(self.log_start)
            return log.read().decode(errors="replace")

    def send_signal(self, number: signal.Signals) -> None:
        """Signal it and its children."""
        os.killpg(self.process.pid, number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait for its end; return its status."""
        if self.alive:
            self.send_signal(number)
        status = self.process.wait(60)
        # A killed JVM outlives its parent for a moment, and with it the port.
        eventually("its children are gone too", self._alone)
        return status

    def _alone(self) -> bool:
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False
