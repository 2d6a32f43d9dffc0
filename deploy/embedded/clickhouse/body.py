"""Bodies on their way in and results that must be complete before they go out: in memory first, then on disk.

A spool is a memfd, so the engine can read it as a file without a copy through Python. Past its memory limit it becomes an
unlinked file in the data folder: however large the body, the server's memory stays bounded.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

# sendfile moves at most 0x7ffff000 bytes a call; this is a round number below it.
_COPY_BYTES: Final = 1 << 30


class Spool:
    """An append-only byte store with a file descriptor.

    Args:
        memory_bytes: from this size on the bytes live on disk.
        folder: where the file goes then.
    """

    def __init__(self, *, memory_bytes: int, folder: Path) -> None:
        self._memory_bytes = memory_bytes
        self._folder = folder
        self._on_disk = False
        self._fd = os.memfd_create("toolledger", os.MFD_CLOEXEC)
        self.size = 0

    @property
    def path(self) -> str:
        """A name under which this process, and so the engine, can open the bytes from their start."""
        return f"/proc/self/fd/{self._fd}"

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`."""
        if not self._on_disk and self.size + len(data) > self._memory_bytes:
            self._move_to_disk()
        view = memoryview(data)
        self.size += len(view)
        while view:
            view = view[os.write(self._fd, view) :]

    def copy_from(self, other: Spool, offset: int) -> None:
        """Append the bytes of `other` from `offset` on; the kernel copies them."""
        remaining = other.size - offset
        if not self._on_disk and self.size + remaining > self._memory_bytes:
            self._move_to_disk()
        while remaining > 0:
            copied = os.sendfile(self._fd, other._fd, offset, min(remaining, _COPY_BYTES))
            offset += copied
            remaining -= copied
            self.size += copied

    def head(self, size: int) -> bytes:
        """The first `size` bytes, or as many as there are."""
        return os.pread(self._fd, size, 0)

    def read(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset` on."""
        return os.pread(self._fd, size, offset)

    def close(self) -> None:
        """Free the bytes; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _move_to_disk(self) -> None:
        handle, name = tempfile.mkstemp(dir=self._folder)
        os.unlink(name)
        done = 0
        while done < self.size:
            done += os.sendfile(handle, self._fd, done, min(self.size - done, _COPY_BYTES))
        os.close(self._fd)
        self._fd = handle
        self._on_disk = True
