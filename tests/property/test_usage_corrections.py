"""Corrections: what a closed window gained later, whatever comes when, and however it is cut into batches and written again."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processors.batch import Batch, Prepared, adopt, read, settle, split
from processors.blocks import columns_of, usage_block
from processors.decode import Record
from processors.dedupe import SeenFilter
from processors.ledger import PartitionLedger
from processors.room import Room
from processors.runs import Run
from processors.usage import NEEDED
from processors.writing import Limits
from tests.support.corrections_oracle import HOUR_MS, corrected_calls, late_calls, partition_times, wrong_corrections
from tests.support.fake_ledger import INCARNATION, Caller, FakeBroker, FakeStore, Servers

START_MS = 1_776_420_000_000  # 2026-04-17T10:00:00Z
CLOSE_MS = 300_000
untimed = settings(max_examples=35, deadline=None, suppress_health_check=list(HealthCheck))

# Around the borders of three hours, and around the moments they close.
borders = st.builds(
    lambda hour, close, by: START_MS + hour * HOUR_MS + close * CLOSE_MS + by,
    st.integers(-2, 2),
    st.integers(0, 1),
    st.sampled_from([-60_000, -1, 0, 1, 60_000]),
)
events = st.fixed_dictionaries(
    {
        "id": st.sampled_from([f"e{number}" for number in range(25)]),
        "tool_slug": st.sampled_from(["GMAIL_SEND_EMAIL", "X"]),
        "status": st.sampled_from(["success", "failed"]),
        "duration_ms": st.integers(0, 1000),
        "timestamp": borders,
    },
    optional={"user_id": st.sampled_from(["u1", "u2"]), "session_id": st.sampled_from(["s1", "s2"])},
)
# Packs and the broker's time of each, which may step back.
logs = st.lists(st.tuples(st.lists(events, min_size=1, max_size=3), borders), min_size=1, max_size=14).map(
    lambda packs: [
        Record(offset=place, timestamp_ms=at_ms, key=None, value=json.dumps(pack).encode(), headers=[("project_id", b"p")])
        for place, (pack, at_ms) in enumerate(packs)
    ]
)
cuts = st.lists(st.integers(0, 14), max_size=5)


def write(log: Sequence[Record], cuts: Sequence[int], *, close_ms: int = CLOSE_MS) -> list[Prepared]:
    """Take a log through in runs cut at given places, each parted further, as the ledger does."""
    seen, known, done = SeenFilter(budget_bytes=1 << 20), set[str](), list[Prepared]()
    newest_ms = 0
    for start, end in pairwise(sorted({0, len(log), *(cut % (len(log) + 1) for cut in cuts)})):
        run = Batch(
            incarnation="i",
            partition=0,
            partitions=1,
            first_offset=start,
            next_offset=end,
            records=log[start:end],
            newest_before_ms=newest_ms,
        )
        for batch in split(run, events_max=1 + len(cuts), bytes_max=10_000):
            candidates = read(batch, seen=seen)
            answers = {place: 0 for place in range(len(candidates.decoded.ids)) if candidates.decoded.ids[place] in known}
            prepared = settle(candidates, known=answers, stores_payload=lambda _: True, window_close_ms=close_ms)
            known |= set(prepared.executions["id"])
            newest_ms = max(newest_ms, prepared.newest_record_ms)
            done.append(prepared)
    return done


def rows(done: Sequence[Prepared]) -> list[dict[str, Any]]:
    """All rows, the timestamp in epoch ms."""
    return [row for prepared in done for row in prepared.executions.with_columns(pl.col("timestamp").cast(pl.Int64)).to_dicts()]


def usage(done: Sequence[Prepared]) -> list[dict[str, Any]]:
    return [row for prepared in done for row in prepared.usage.to_dicts()]


def uncorrected(done: Sequence[Prepared]) -> Counter[int]:
    """Calls of each window without its corrections, by the window's start in s."""
    found: Counter[int] = Counter()
    for row in usage(done):
        if row["kind"] == "user_hour":
            found[row["window_start"]] += row["calls"]
        elif row["kind"] == "correction":
            found[row["window_start"]] -= row["calls"]
    return found


@untimed
@given(log=logs, one=cuts, other=cuts)
def test_corrections_are_the_late_events_by_key_and_moment_however_the_log_is_cut(
    log: list[Record], one: list[int], other: list[int]
) -> None:
    """As counted by hand from the records; a log that is written again in other batches has the same ones, moments included."""
    first, second = write(log, one), write(log, other)
    assert corrected_calls(usage(first)) == late_calls(rows(first), logs={0: log}, close_ms=CLOSE_MS)
    assert corrected_calls(usage(first)) == corrected_calls(usage(second))
    for prepared in first:
        # What ClickHouse would merge are rows of one key: within a batch each key is there once, and no batch shares offsets.
        keys = [tuple(row[name] for name in KEY) for row in prepared.usage.to_dicts() if row["kind"] == "correction"]
        assert len(keys) == len(set(keys))
        assert all(prepared.batch.first_offset <= key[0] < prepared.batch.next_offset for key in keys)
        assert columns_of(usage_block(prepared))


KEY = ("first_offset", "window_start", "tool_slug", "status", "failure_class", "user_id", "session_id")


@untimed
@given(log=logs, places=cuts)
def test_a_window_without_its_corrections_never_changes_once_it_has_closed(log: list[Record], places: list[int]) -> None:
    """Usage when the window closed + its corrections = usage, after every batch, once the log is complete up to its closing."""
    closed: dict[int, int] = {}
    done: list[Prepared] = []
    complete_until_ms = 0
    batches = write(log, places)
    starts = {row["window_start"] for row in usage(batches)}
    for prepared in batches:
        done.append(prepared)
        complete_until_ms = max(complete_until_ms, prepared.newest_record_ms)
        found = uncorrected(done)
        for start in starts:
            if (start * 1000) + HOUR_MS + CLOSE_MS <= complete_until_ms:
                assert closed.setdefault(start, found[start]) == found[start]
    times = partition_times(log)
    for start, calls in closed.items():
        closes_ms = start * 1000 + HOUR_MS + CLOSE_MS
        assert calls == sum(
            row["timestamp"] // HOUR_MS * 3600 == start and times[row["kafka_offset"]] < closes_ms for row in rows(done)
        )


@untimed
@given(log=logs, places=cuts, close_ms=st.sampled_from([0, CLOSE_MS, 2 * HOUR_MS]))
def test_recovery_makes_the_corrections_of_what_landed(log: list[Record], places: list[int], close_ms: int) -> None:
    """Rows read back give the sums they were written with, also where the setting was changed before the recovery."""
    for prepared, again in zip(write(log, places), write(log, places, close_ms=close_ms), strict=True):
        landed = prepared.executions.select(NEEDED)
        adopt(again, landed.sample(fraction=1, shuffle=True, seed=random.Random(close_ms).randrange(2**31)), {})
        told = [sorted(map(repr, map(canonical, one.usage.to_dicts()))) for one in (prepared, again)]
        assert told[0] == told[1]


def canonical(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "durations": sorted((bucket["key"], bucket["value"]) for bucket in row["durations"])}


@untimed
@given(log=logs, places=cuts)
def test_what_comes_in_time_leaves_no_correction(log: list[Record], places: list[int]) -> None:
    """With a window that closes after everything came, in any order, there is none."""
    assert not corrected_calls(usage(write(log, places, close_ms=10 * HOUR_MS)))


class Prompt(Servers):
    """Kafka and ClickHouse that answer at once."""

    async def call(self, worker: Caller, name: str, effect: Callable[[], Any], failure: Any = None) -> Any:  # noqa: ARG002
        return effect()


def owner(servers: Servers, name: str) -> PartitionLedger:
    """A worker of the only partition, under a generation of its own."""

    async def reached(step: str) -> None: ...

    async def admits(_: Prepared) -> bool:
        return True

    async def in_thread(work: Callable[[], Any], /) -> Any:
        return work()

    caller = Caller(name=name)
    servers.generation += 1
    servers.members = {name}
    return PartitionLedger(
        0,
        broker=FakeBroker(servers, caller),
        store=FakeStore(servers, caller),
        limits=Limits(batch_events=4, batch_bytes=10_000, retry_ms_max=100, dedupe_bytes=1 << 16, window_close_ms=CLOSE_MS),
        admits=admits,
        stores_payload=lambda _: True,
        in_thread=in_thread,
        reached=reached,
        room=Room(1_000_000),
        now_ms=servers.tick,
    )


def once(record: Record) -> bytes:
    """Its events under ids that no other record has."""
    assert record.value is not None
    return record.value.replace(b'"id": "', b'"id": "%d-' % record.offset)


async def take_over(servers: Servers, name: str, cuts: Sequence[int]) -> None:
    """Open the partition as whoever comes next, and write what is left of the log in runs cut at given places."""
    ledger, log = owner(servers, name), servers.logs[0].records
    start = await ledger.open(servers.generation, incarnation=INCARNATION, partitions=1)
    for first, end in pairwise(sorted({start, len(log), *(start + cut % (len(log) - start + 1) for cut in cuts)})):
        await ledger.process(
            Run(
                partition=0,
                generation=servers.generation,
                first_offset=first,
                next_offset=end,
                end_offset=len(log),
                records=log[first:end],
            )
        )


@settings(untimed, max_examples=40)
@given(log=logs, one=cuts, other=cuts, upto=st.integers(0, 14), lose=st.sets(st.integers(0, 14)), end=st.booleans())
def test_whoever_takes_over_or_writes_again_judges_alike(
    log: list[Record], one: list[int], other: list[int], upto: int, lose: set[int], end: bool
) -> None:
    """One worker after another, and then again what ClickHouse lost of it: everything from some batch on, or any batches."""
    servers = Prompt(partitions=1)
    if not end:
        # Where a row is lost in the middle, a later copy of it may come to count. It is another record, and another moment.
        log = [msgspec.structs.replace(record, value=once(record)) for record in log]

    async def history() -> None:
        servers.logs[0].records = log[: upto % (len(log) + 1)]
        await take_over(servers, "first", one)
        servers.logs[0].records = log
        await take_over(servers, "second", other)
        tables = servers.tables
        assert not wrong_corrections(tables.executions, tables.usage, logs={0: log}, close_ms=CLOSE_MS)
        before = corrected_calls(tables.usage)
        batches = sorted({row["first_offset"] for row in tables.receipts})
        ranges = list(pairwise([*batches, len(log)]))
        gone = [ranges[place] for place in range(len(ranges)) if place in lose or (end and lose and place > min(lose))]
        there = [offset for offset in range(len(log)) if not any(first <= offset < following for first, following in gone)]
        tables.executions = [row for row in tables.executions if row["kafka_offset"] in there]
        tables.receipts = [row for row in tables.receipts if row["first_offset"] in there]
        tables.usage = [row for row in tables.usage if row["written"][1] in there]
        await take_over(servers, "third", one)
        assert not wrong_corrections(tables.executions, tables.usage, logs={0: log}, close_ms=CLOSE_MS)
        assert corrected_calls(tables.usage) == before

    asyncio.run(history())
