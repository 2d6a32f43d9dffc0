"""The data folder: made, judged and owned before anything opens it."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import Final

from deploy.embedded.clickhouse.options import MEBIBYTE

# Below this the engine could not even write its parts and would fail in the middle of something.
MIN_FREE_BYTES: Final = 64 * MEBIBYTE


class CannotStart(Exception):
    """The server cannot start; the text is one line that says what to do."""


class DataFolder:
    """An owned data folder; the lock lasts until `release` or the end of the process, however it ends.

    Args:
        path: the folder; made if it is missing.

    Raises:
        CannotStart: not writable, no space left, or owned by another process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.store = self.path / "store"
        self.spools = self.path / "tmp"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._own()
            free = shutil.disk_usage(self.path).free
            if free < MIN_FREE_BYTES:
                raise CannotStart(
                    f"the disk of {self.path} is full ({free // MEBIBYTE} MB free, {MIN_FREE_BYTES // MEBIBYTE} MB needed): "
                    "free some space or choose another folder with --data"
                )
            # What a killed process left behind is of no use to anyone.
            shutil.rmtree(self.spools, ignore_errors=True)
            self.spools.mkdir()
            self.store.mkdir(exist_ok=True)
        except OSError as error:
            reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else (error.strerror or str(error))
            raise CannotStart(
                f"cannot use the data folder {self.path}: {reason}: make it writable or choose another one with --data"
            ) from None

    def _own(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._lock, 32, 0).decode(errors="replace").strip()
            raise CannotStart(
                f"the data folder {self.path} is in use by process {owner or 'unknown'}: "
                "stop it, or choose another one with --data"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Give the folder up."""
        os.close(self._lock)
