"""Read records whose header names are no text. Reaches into aiokafka 0.14, as `driver` and `consumer_thread` do.

Kafka's protocol says that a header's name is UTF-8, and no broker looks. aiokafka raises at the first name that is not, each
time it comes to that record again: one record of one careless producer would end a worker, and each one after it. So a batch
in which that happens is read once more by aiokafka's own slower reader, made to forgive; all others are read as ever.
"""

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy
from aiokafka.record.util import decode_varint


def forgive() -> None:
    """Have every consumer of this process read whatever header names there are."""
    fetcher.MemoryRecords = _Kept
    fetcher.PartitionRecords = _Forgiving


class _Kept(MemoryRecords):  # type: ignore[misc]
    """Batches as fetched, and their bytes, should they have to be read once more."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


class _Forgiving(fetcher.PartitionRecords):  # type: ignore[misc]
    _records: Any

    def _unpack_records(self) -> Iterator[Any]:
        try:
            yield from super()._unpack_records()
        # The reader without extensions says the second; where it is right, it says so again.
        except (UnicodeDecodeError, CorruptRecordException):
            # What was given out already lies below `next_fetch_offset`, and what is known of transactions is as of this batch.
            self._records = _Rest(self._records.data, self.next_fetch_offset)
            yield from super()._unpack_records()


class _Rest:
    """The batches of fetched bytes from an offset on, read by a reader that forgives.

    Args:
        data: as fetched.
        offset: batches that end below it are passed over.
    """

    def __init__(self, data: bytes, offset: int) -> None:
        self._batches = _batches(data, offset)
        self._next = next(self._batches, None)

    def has_next(self) -> bool:
        return self._next is not None

    def next_batch(self) -> Any:
        batch, self._next = self._next, next(self._batches, None)
        return batch


def _batches(data: bytes, offset: int) -> Iterator["_Batch"]:
    slices = _MemoryRecordsPy(data)
    while slices.has_next():
        batch = _Batch(slices._next_slice)
        slices._cache_next()
        if batch.next_offset > offset:
            yield batch


class _Batch(_DefaultRecordBatchPy):  # type: ignore[misc]
    _pos: int

    def _read_msg(self) -> Any:
        buffer = self._buffer
        _, at = decode_varint(buffer, self._pos)  # how long the record is
        _, at = decode_varint(buffer, at)  # attributes: none are in use
        time_delta, at = decode_varint(buffer, at)
        offset_delta, at = decode_varint(buffer, at)
        key, at = _nullable(buffer, at)
        value, at = _nullable(buffer, at)
        count, at = decode_varint(buffer, at)
        headers = []
        for _ in range(count):
            name, at = _nullable(buffer, at)
            content, at = _nullable(buffer, at)
            headers.append(((name or b"").decode(errors="replace"), content))
        self._pos = at
        appended = self.timestamp_type == self.LOG_APPEND_TIME
        time_ms = self.max_timestamp if appended else self.first_timestamp + time_delta
        return _DefaultRecordPy(self.base_offset + offset_delta, time_ms, self.timestamp_type, key, value, headers)


def _nullable(buffer: bytearray, at: int) -> tuple[bytes | None, int]:
    size, at = decode_varint(buffer, at)
    return (bytes(buffer[at : at + size]), at + size) if size >= 0 else (None, at)
