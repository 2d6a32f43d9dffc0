"""Keep entries on disk until they are settled; a process that dies leaves them to the next.

A folder of segments, each written by one process, which holds a lock on it for as long as it lives:
```
 segment:  [entry][entry][entry] ... appended;  emptied or removed once all of its entries are settled
 entry:    lengths of project, id and event, CRC-32 of them all, then the three
```
Entries are in the page cache before `append` returns, so that they outlive the process, however it ends. They are not forced to
disk: a machine that loses its power may lose the last moments, as a broker with the usual settings does.
An entry that is deferred is only on disk and is read back by `take`; any other is in its writer's memory too.
"""

import fcntl
import os
import struct
import zlib
from collections import deque
from pathlib import Path
from typing import Final, NamedTuple

from ingest.contract.errors import ConfigurationError
from ingest.contract.logs import logger
from ingest.contract.metrics import GATEWAY_SPOOLED

log = logger(__name__)

_SUFFIX: Final = ".entries"
_HEAD: Final = struct.Struct("<HHII")
_SEGMENT_BYTES_MAX: Final = 32 * 1024 * 1024


class Entry(NamedTuple):
    """One event on its way to Kafka."""

    project_id: str
    id: str
    raw: bytes


class Segment:
    """One file. `unsettled` counts its entries that are in memory; those between `read_to` and `size` are only on disk."""

    def __init__(self, path: Path, descriptor: int, *, size: int = 0, former: bool = False) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size = size
        self.read_to = 0
        self.unsettled = 0
        # Left by a process before this one.
        self.former = former


class Spool:
    """The folder of one process; not to be used by two threads.

    Raises:
        ConfigurationError: the folder cannot be used.
    """

    def __init__(self, folder: Path, *, bytes_max: int) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._bytes = 0
        self._number = 0
        self._open: Segment | None = None
        self._deferring = False
        self._deferred: deque[Segment] = deque()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._adopt()
            self._open = self._create()
        except OSError as error:
            raise ConfigurationError(f"the spool {folder} cannot be used: {error}; name another folder") from None
        GATEWAY_SPOOLED.set_function(lambda: self._bytes)

    @property
    def has_deferred(self) -> bool:
        """Whether there is something for `take`."""
        return bool(self._deferred)

    def append(self, entry: Entry, *, deferred: bool) -> Segment | None:
        """Write an entry.

        Args:
            entry: what to keep.
            deferred: it is kept here alone.

        Returns:
            Where it is, to be settled by; None where it was not written, because the limit is reached or the disk refuses.
        """
        written = _frame(entry)
        if self._bytes + len(written) > self._bytes_max:
            return None
        try:
            segment = self._place(deferred=deferred)
            _write(segment.descriptor, written)
        except OSError as error:
            log.error("spool_failed", folder=str(self._folder), error=str(error))
            self._repair()
            return None
        segment.size += len(written)
        self._bytes += len(written)
        if not deferred:
            segment.read_to = segment.size
            segment.unsettled += 1
        return segment

    def settle(self, segment: Segment) -> None:
        """Forget one entry that was in memory."""
        segment.unsettled -= 1
        self._clear(segment)

    def take(self, bytes_max: int) -> tuple[Segment | None, list[Entry], bool]:
        """Read some entries that are only on disk, oldest first; each is to be settled.

        Returns:
            Their segment, the entries, and whether a former process left them.
        """
        while self._deferred:
            segment = self._deferred[0]
            if segment is self._open:
                self._open, self._deferring = None, False
            entries, segment.read_to = self._read(segment, bytes_max)
            segment.unsettled += len(entries)
            if segment.read_to >= segment.size:
                self._deferred.popleft()
            if entries:
                return segment, entries, segment.former
            self._clear(segment)
        return None, [], False

    def close(self) -> None:
        """Leave what is not settled to the next process; an empty folder is left behind empty."""
        if self._open is not None and self._open.size == 0:
            self._remove(self._open)
        self._open = None

    def _adopt(self) -> None:
        """Take over segments whose writers are gone."""
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                continue
            segment = Segment(path, descriptor, size=os.fstat(descriptor).st_size, former=True)
            self._bytes += segment.size
            self._deferred.append(segment)

    def _create(self) -> Segment:
        self._number += 1
        path = self._folder / f"{os.getpid()}-{os.urandom(4).hex()}-{self._number:06d}{_SUFFIX}"
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return Segment(path, descriptor)

    def _place(self, *, deferred: bool) -> Segment:
        """Return the segment to write to; deferred entries have segments of their own."""
        if self._open is None or self._deferring != deferred or self._open.size > _SEGMENT_BYTES_MAX:
            former, self._open, self._deferring = self._open, self._create(), deferred
            if deferred:
                self._deferred.append(self._open)
            if former is not None:
                self._clear(former)
        return self._open

    def _clear(self, segment: Segment) -> None:
        """Empty or remove a segment that holds nothing unsettled."""
        if segment.unsettled or segment.read_to < segment.size or segment in self._deferred:
            return
        if segment is self._open:
            os.ftruncate(segment.descriptor, 0)
            self._bytes -= segment.size
            segment.size = segment.read_to = 0
        else:
            self._remove(segment)

    def _remove(self, segment: Segment) -> None:
        self._bytes -= segment.size
        segment.path.unlink(missing_ok=True)
        os.close(segment.descriptor)

    def _repair(self) -> None:
        """Cut off what was written of an entry that did not fit."""
        if self._open is not None:
            os.ftruncate(self._open.descriptor, self._open.size)

    def _read(self, segment: Segment, bytes_max: int) -> tuple[list[Entry], int]:
        """Return whole entries from where reading stands, at least one where there is one, and where it stands then."""
        at = segment.read_to
        found: list[Entry] = []
        while at < segment.size and at - segment.read_to < bytes_max:
            entry, end = _entry_at(segment.descriptor, at)
            if entry is None:
                # The writer was cut off in the midst of it, before its caller had an answer.
                log.warning("spool_entry_torn", segment=segment.path.name, offset=at, bytes=segment.size - at)
                return found, segment.size
            found.append(entry)
            at = end
        return found, at


def _frame(entry: Entry) -> bytes:
    project, name = entry.project_id.encode(), entry.id.encode()
    checksum = zlib.crc32(entry.raw, zlib.crc32(name, zlib.crc32(project)))
    return _HEAD.pack(len(project), len(name), len(entry.raw), checksum) + project + name + entry.raw


def _entry_at(descriptor: int, at: int) -> tuple[Entry | None, int]:
    head = os.pread(descriptor, _HEAD.size, at)
    if len(head) < _HEAD.size:
        return None, at
    project_bytes, name_bytes, raw_bytes, checksum = _HEAD.unpack(head)
    size = project_bytes + name_bytes + raw_bytes
    body = os.pread(descriptor, size, at + _HEAD.size)
    if len(body) < size or zlib.crc32(body) != checksum:
        return None, at
    names = project_bytes + name_bytes
    entry = Entry(body[:project_bytes].decode(), body[project_bytes:names].decode(), body[names:])
    return entry, at + _HEAD.size + size


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
