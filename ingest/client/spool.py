"""Batches on disk while the server is away: they survive the process, and the next one sends them.

A folder is shared by any number of processes. Each writes to a file of its own and holds a lock on it; whoever comes finds the
files that nobody holds, takes one under its lock, sends what is in it, and removes it. The system takes a lock back when its
process ends, so what a killed process left is found at once. A file that is sent twice because somebody was killed in between
counts once, by its ids.

Nothing here raises for what a disk does: an append says whether it succeeded.
"""

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from ingest.client.diagnostics import Seldom
from ingest.client.frames import Damaged, Frame, frames

try:
    import fcntl
except ImportError:
    # Windows has no lock that ends with its process and allows removal: calls are kept in memory alone there.
    fcntl = None  # type: ignore[assignment]

_SUFFIX: Final = ".ndjson.gz"
# A file gets its name once it is locked, so that nobody takes it, still empty, for a finished one.
_UNLOCKED: Final = ".new"
# Small enough to be read at once, large enough that an hour's outage is a few files.
_FILE_BYTES_MAX: Final = 4 * 1024 * 1024
# A full or broken disk is tried again after that long; until then memory has to do.
_PAUSE_S: Final = 5.0
_ABANDONED_S: Final = 3600.0


class Segment:
    """A file of batches that this process holds; `frames` are those not sent yet."""

    def __init__(self, path: Path, descriptor: int, data: bytes, modified_s: float) -> None:
        self.path = path
        self.modified_s = modified_s
        self.frames: list[Frame] = []
        self.damaged_bytes = self.damaged_events = 0
        for found in frames(data):
            if isinstance(found, Damaged):
                self.damaged_bytes += found.size
                self.damaged_events += found.events
            else:
                self.frames.append(found)
        self.frames.reverse()
        self._descriptor = descriptor

    @property
    def following(self) -> Frame:
        """The next batch to send."""
        return self.frames[-1]

    def done(self) -> None:
        """The next batch was answered for."""
        self.frames.pop()

    def remove(self) -> None:
        """Remove the file; all of it was answered for."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.leave()

    def leave(self) -> None:
        """Let go of the file, for whoever comes next."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1


class Spool:
    """One process's view of the folder."""

    def __init__(
        self, folder: Path | None, *, bytes_max: int, seldom: Seldom, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder if fcntl is not None else None
        self._bytes_max = bytes_max
        self._seldom = seldom
        self._now_s = now_s
        # Reentrant: a signal handler that flushes may interrupt one that writes.
        self._lock = threading.RLock()
        self._descriptor = -1
        self._path: Path | None = None
        self._size = self._room = 0
        self._paused_until_s = float("-inf")

    @property
    def usable(self) -> bool:
        """Whether an append may succeed now."""
        return self._folder is not None and self._now_s() >= self._paused_until_s

    def append(self, frame: Frame) -> bool:
        """Write a batch to this process's file; false where there is no room, no right, or no disk."""
        with self._lock:
            if not self.usable:
                return False
            try:
                if self._descriptor < 0 or self._size + len(frame.body) > self._room:
                    self._open(len(frame.body))
                self._write(frame.body)
            except OSError as error:
                self._pause("calls cannot be kept on disk in %s: %s", self._folder, error.strerror or error)
                return False
            return True

    def claim(self) -> Segment | None:
        """Take the oldest file that nobody holds, this process's own included; None where there is none."""
        with self._lock:
            self._close()
            for path in self._files():
                try:
                    found = self._take(path)
                except OSError:
                    # Another user's, or it went away meanwhile.
                    continue
                if found is not None:
                    return found
            return None

    def close(self) -> None:
        """Let go of this process's file."""
        with self._lock:
            self._close()

    def forget(self) -> None:
        """Close what a fork copied: the file is the parent's, and so is the lock, which this does not end."""
        # Nor is it removed while it is empty, as a file of one's own is: the parent may be writing its first batch.
        self._path = None
        self._close()

    def _files(self) -> list[Path]:
        if self._folder is None:
            return []
        try:
            names = sorted(os.listdir(self._folder))
        except OSError:
            return []
        self._clear_abandoned(name for name in names if name.endswith(_UNLOCKED))
        return [self._folder / name for name in names if name.endswith(_SUFFIX)]

    def _clear_abandoned(self, names: Iterable[str]) -> None:
        assert self._folder is not None
        for name in names:
            path = self._folder / name
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()

    def _take(self, path: Path) -> Segment | None:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            about = os.fstat(descriptor)
            # Between opening and locking somebody else may have sent and removed it.
            if about.st_nlink:
                data = _read(descriptor, about.st_size)
                return Segment(path, descriptor, data, about.st_mtime)
        except OSError:
            os.close(descriptor)
            return None
        os.close(descriptor)
        return None

    def _held_bytes(self) -> int:
        """Return what the folder holds, of all processes."""
        assert self._folder is not None
        held = 0
        with os.scandir(self._folder) as entries:
            for entry in entries:
                # Another process removes what it has sent at any moment.
                with contextlib.suppress(FileNotFoundError):
                    held += entry.stat().st_size if entry.name.endswith(_SUFFIX) else 0
        return held

    def _open(self, size: int) -> None:
        """Begin a file of this process; raises where the folder is full."""
        self._close()
        assert self._folder is not None
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = self._held_bytes()
        room = self._bytes_max - held
        if size > room:
            raise OSError(f"it holds {held} bytes; at most {self._bytes_max} are kept (TOOLLEDGER_SPOOL_BYTES_MAX)")
        name = f"{time.time_ns() // 1_000_000:013d}-{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
        path = self._folder / name
        unlocked = path.with_name(name + _UNLOCKED)
        descriptor = os.open(unlocked, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(unlocked, path)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor, self._path, self._size = descriptor, path, 0
        self._room = max(min(_FILE_BYTES_MAX, room), size)

    def _write(self, data: bytes) -> None:
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError:
            # What stands there of this batch must not stand before the next one.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            self._close()
            raise
        self._size += len(data)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)
            if not self._size and self._path is not None:
                with contextlib.suppress(OSError):
                    self._path.unlink()

    def _pause(self, what: str, *arguments: object) -> None:
        self._paused_until_s = self._now_s() + _PAUSE_S
        self._seldom.warn(what, *arguments)


def _read(descriptor: int, size: int) -> bytes:
    parts = []
    while size > 0 and (part := os.read(descriptor, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
