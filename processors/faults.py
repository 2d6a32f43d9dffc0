"""Fault points: end the process, as a crash would, right behind a numbered step. Off unless the environment names one.

`TOOLLEDGER_FAULT=planned` kills with SIGKILL once a plan is committed; the names are those of the ledger's steps:
before_plan, planned, dead_letters, forward, executions, receipt. `TOOLLEDGER_FAULT_AFTER=3` lets it pass three times first.
"""

import os
import signal
from collections.abc import Awaitable, Callable


def from_environment() -> Callable[[str], Awaitable[None]]:
    """Return what the ledger calls at each step."""
    fault = os.environ.get("TOOLLEDGER_FAULT", "")
    left = int(os.environ.get("TOOLLEDGER_FAULT_AFTER", "0"))

    async def reached(step: str) -> None:
        nonlocal left
        if step == fault:
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    return reached
