"""`stack.json` in the data folder: where a running stack can be reached, for every command that looks for one."""

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

_NAME: Final = "stack.json"
LOCK: Final = "stack.lock"
DEMO_KEY: Final = "demo_key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A running stack. `clickhouse` may carry a password, so the file is for its owner only."""

    url: str
    kafka: str
    clickhouse: str
    query: str
    workers: tuple[str, ...]
    pid: int


def write(data: Path, stack: Stack) -> None:
    """Write the file, whole or not at all."""
    write_private(data / _NAME, json.dumps(asdict(stack), indent=1) + "\n")


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    beside = path.with_name(path.name + ".part")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    beside.replace(path)


def remove(data: Path) -> None:
    """Remove the file, if there is one."""
    (data / _NAME).unlink(missing_ok=True)


def find(data: Path) -> Stack | None:
    """Return the running stack of a data folder; None when none runs, also when a killed one left its file behind."""
    try:
        members = json.loads((data / _NAME).read_text(encoding="utf-8"))
        stack = Stack(**{**members, "workers": tuple(members["workers"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return stack if _alive(stack.pid) and _locked(data / LOCK) else None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _locked(path: Path) -> bool:
    """Tell whether the owner's lock is held: a process number may have gone to another program since."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def demo_key(data: Path) -> str | None:
    """Return the demo project's key, if this data folder has one."""
    try:
        return (data / DEMO_KEY).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
