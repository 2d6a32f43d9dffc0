"""Records whose header names are no text are read as all others are, whatever stands before and behind them."""

from collections.abc import Sequence

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from processors import header_names
from processors.decode import Record, decode

Name = bytes
_GOOD, _BAD = b"project_id", b"project\xff\xfe"


def _batch(offset: int, names: Sequence[Name], *, codec: int, producer_id: int = -1, transactional: bool = False) -> bytes:
    """Build a batch; names are put in by their bytes, in place of text of the same length."""
    builder = DefaultRecordBatchBuilder(2, 0, transactional, producer_id, 0, 0, 10 * 1024 * 1024)
    for index, name in enumerate(names):
        stand_in = "n" * len(name) if name == _BAD else name.decode()
        builder.append(index, index, b"k", b"v%d" % (offset + index), [(stand_in, b"demo"), ("bare", None)])
    data = bytearray(builder.build())
    data[data.find(b"n" * len(_BAD)) :] = data[data.find(b"n" * len(_BAD)) :].replace(b"n" * len(_BAD), _BAD)
    data[0:8] = offset.to_bytes(8, "big")
    return bytes(data)


def _read(data: bytes, *, aborted: Sequence[tuple[int, int]] = (), start: int = 0) -> list[tuple[int, bytes]]:
    tp = TopicPartition("t", 0)
    records = header_names._Forgiving(tp, header_names._Kept(data), list(aborted), start, None, None, False, 1)
    return [(record.offset, record.value) for record in records]


@given(st.lists(st.lists(st.sampled_from([_GOOD, _BAD]), min_size=1, max_size=5), min_size=1, max_size=5), st.integers(0, 24))
def test_every_record_is_read_once_and_in_order(batches: list[list[Name]], start: int) -> None:
    """From wherever reading begins, and wherever such names stand."""
    data, offset = b"", 0
    for names in batches:
        # A broker's answer begins with the batch that was asked for.
        if offset + len(names) > start:
            data += _batch(offset, names, codec=0)
        offset += len(names)
    assert _read(data, start=start) == [(each, b"v%d" % each) for each in range(start, offset)]


@pytest.mark.parametrize("name", [_GOOD, _BAD])
def test_aborted_records_stay_out(name: Name) -> None:
    """What is known of transactions is not lost where reading begins again."""
    data = (
        _batch(0, [name] * 3, codec=0, producer_id=7, transactional=True)
        + _batch(3, [_BAD] * 2, codec=0)
        + _batch(5, [name] * 2, codec=0, producer_id=7, transactional=True)
        + _batch(7, [name], codec=0)
    )
    assert [offset for offset, _ in _read(data, aborted=[(7, 0)])] == [3, 4, 7]


def test_consumers_use_it_once_told() -> None:
    """The names in aiokafka that are replaced are there, and are what its fetcher uses."""
    before = fetcher.MemoryRecords, fetcher.PartitionRecords
    try:
        header_names.forgive()
        assert fetcher.Fetcher._proc_fetch_request.__globals__["PartitionRecords"] is header_names._Forgiving
        assert fetcher.Fetcher._proc_fetch_request.__globals__["MemoryRecords"] is header_names._Kept
    finally:
        fetcher.MemoryRecords, fetcher.PartitionRecords = before


@pytest.mark.parametrize("count", [1, 5])
def test_a_header_without_a_value_says_nothing(count: int) -> None:
    """It is as if it were not there, be it alone, before or behind one that has a value."""
    value = b'{"tool_slug":"A","status":"success","duration_ms":1,"timestamp":1776421500000,"id":"x"}'
    bare: list[tuple[str, bytes | None]] = [
        (name, None) for name in ("project_id", "first_accepted_ms", "forwarded_among", "replay_of", "other")
    ]
    for headers in ([*bare, ("project_id", b"demo")], [("project_id", b"demo"), *bare]):
        records = [
            Record(offset=offset, timestamp_ms=1776421500000, key=None, value=value, headers=headers) for offset in range(count)
        ]
        out = decode(records, incarnation="i", partition=0, partitions=1)
        assert out.project_ids == ["demo"] * count
    out = decode(
        [Record(offset=0, timestamp_ms=1, key=None, value=value, headers=bare)], incarnation="i", partition=0, partitions=1
    )
    assert [letter.reason for letter in out.dead_letters] == ["project_missing"]
