"""Kafka and ClickHouse as the ledger sees them, in memory, with every call held until the history says how it ends.

A call ends in one of four ways: it is done; it is refused; it is done but its answer is lost; or it is given up by the caller
and lands later. What takes effect does so in one step, as a block of ClickHouse or a commit of Kafka does.
"""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl

from ingest.contract.errors import BrokerUnavailable, StoreUnavailable
from ingest.contract.partitioning import event_key, home_partition
from ingest.contract.topics import HEADER_FIRST_ACCEPTED_MS, HEADER_FORWARDED_AMONG, HEADER_PROJECT
from processors.batch import Batch, Candidates, Forward, Prepared
from processors.consumer_thread import Committed
from processors.decode import DeadLetter, Record
from processors.dedupe import SeenFilter, id_hashes
from processors.heartbeat import Said
from processors.opening import Proof
from processors.usage import NEEDED, NEEDED_TYPES
from tests.support.corrections_oracle import wrong_corrections

PROJECT: Final = "p"
INCARNATION: Final = "topic"
START_MS: Final = 1_776_421_500_000
# The hour before START_MS closes between the first records of a history.
WINDOW_CLOSE_MS: Final = 25 * 60_000 + 6


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """One call under way."""

    worker: "Caller"
    name: str
    effect: Callable[[], Any]
    # What the caller is told when it fails; None: the adapter itself tries until it has an answer.
    failure: type[Exception] | None
    answer: "asyncio.Future[Any]"

    @property
    def writes(self) -> bool:
        """Whether it may land after its caller has given up."""
        return self.name.startswith("write") or self.name in ("forward", "remove")


@dataclass(slots=True, kw_only=True, eq=False)
class Caller:
    """Whose calls they are: one worker process."""

    name: str
    # Whether the group hears from it.
    heard: bool = True
    alive: bool = True


@dataclass(slots=True, kw_only=True)
class Tables:
    """What ClickHouse holds, and which tokens it remembers."""

    executions: list[dict[str, Any]] = field(default_factory=list)
    usage: list[dict[str, Any]] = field(default_factory=list)
    receipts: list[dict[str, Any]] = field(default_factory=list)
    # (partition, first offset of the batch, offset, index, project, rewind)
    dead_letters: list[tuple[int, int, int, int, str, int]] = field(default_factory=list)
    said: dict[int, Said] = field(default_factory=dict)
    tokens: set[tuple[str, str]] = field(default_factory=set)

    def copy(self) -> "Tables":
        """Return a backup."""
        return Tables(
            executions=list(self.executions),
            usage=list(self.usage),
            receipts=list(self.receipts),
            dead_letters=list(self.dead_letters),
            said=dict(self.said),
            tokens=set(self.tokens),
        )


@dataclass(slots=True, kw_only=True)
class Log:
    """One partition of the topic."""

    records: list[Record] = field(default_factory=list)
    start: int = 0

    @property
    def end(self) -> int:
        return len(self.records)

    def append(self, value: bytes, at_ms: int, *, key: bytes | None = None, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        """Append a record at the broker's time."""
        self.records.append(Record(offset=len(self.records), timestamp_ms=at_ms, key=key, value=value, headers=headers))


class Servers:
    """The one Kafka and the one ClickHouse."""

    def __init__(self, *, partitions: int) -> None:
        self.logs = [Log() for _ in range(partitions)]
        self.copies: list[tuple[int, int, int]] = []
        self.generation = 0
        self.members: set[str] = set()
        self.commits: dict[int, Committed] = {}
        self.former: dict[int, Committed] = {}
        # What a coordinator that has just taken over shows, until the next commit.
        self.shown: dict[int, Committed] | None = None
        self.tables = Tables()
        self.pending: list[Call] = []
        self.grown = asyncio.Event()
        self._ticks = 0

    def tick(self) -> int:
        """The clock of brokers and workers, epoch ms; never the same twice."""
        self._ticks += 1
        return START_MS + self._ticks

    async def call(
        self, worker: Caller, name: str, effect: Callable[[], Any], failure: type[Exception] | None = StoreUnavailable
    ) -> Any:
        """Hold a call until the history ends it."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.pending.append(Call(worker=worker, name=name, effect=effect, failure=failure, answer=answer))
        return await answer

    def append(self, partition: int, value: bytes, **more: Any) -> None:
        """Append a record, and wake who waits for it."""
        self.logs[partition].append(value, self.tick(), **more)
        self.grown.set()
        self.grown = asyncio.Event()

    # ClickHouse's side.

    def insert(self, table: str, batch: Batch, land: Callable[[], None]) -> None:
        """Land a block unless its token is known."""
        if (table, batch.token) not in self.tables.tokens:
            self.tables.tokens.add((table, batch.token))
            land()

    def remove(self, partition: int, from_offset: int, to_offset: int | None, before_rewind: int) -> int:
        """Delete rows within [from, to) of before a rewind; return how many."""
        tables = self.tables
        before = len(tables.executions) + len(tables.dead_letters)
        gone = range(from_offset, 2**62 if to_offset is None else to_offset)
        tables.executions = [
            row
            for row in tables.executions
            if row["kafka_partition"] != partition or row["kafka_offset"] not in gone or row["rewind"] >= before_rewind
        ]
        tables.dead_letters = [
            row for row in tables.dead_letters if row[0] != partition or row[2] not in gone or row[5] >= before_rewind
        ]
        return before - len(tables.executions) - len(tables.dead_letters)


class FakeBroker:
    """Kafka, as one worker reaches it."""

    def __init__(self, servers: Servers, worker: Caller) -> None:
        self._servers, self._worker = servers, worker

    async def barrier(self, generation: int) -> bool:
        servers, worker = self._servers, self._worker

        def commit() -> bool:
            if worker.name not in servers.members or generation != servers.generation:
                return False
            servers.shown = None
            return True

        return bool(await servers.call(worker, "barrier", commit, None))

    async def topic(self) -> tuple[str, int]:
        found: tuple[str, int] = await self._servers.call(
            self._worker, "topic", lambda: (INCARNATION, len(self._servers.logs)), None
        )
        return found

    async def log_ends(self, partitions: Sequence[int]) -> dict[int, int]:
        def look() -> dict[int, int]:
            return {partition: self._servers.logs[partition].end for partition in partitions}

        found: dict[int, int] = await self._servers.call(self._worker, "log_ends", look, BrokerUnavailable)
        return found

    async def committed(self, partitions: Sequence[int]) -> dict[int, Committed]:
        def look() -> dict[int, Committed]:
            commits = self._servers.commits if self._servers.shown is None else self._servers.shown
            return {partition: commits[partition] for partition in partitions if partition in commits}

        found: dict[int, Committed] = await self._servers.call(self._worker, "committed", look, None)
        return found

    async def plan(self, partition: int, offset: int, metadata: str, generation: int) -> bool:
        servers, worker = self._servers, self._worker

        def commit() -> bool:
            # As Kafka: a member of this very generation may commit any partition.
            if worker.name not in servers.members or generation != servers.generation:
                return False
            servers.shown = None
            if partition in servers.commits:
                servers.former[partition] = servers.commits[partition]
            servers.commits[partition] = Committed(offset=offset, metadata=metadata)
            return True

        return bool(await servers.call(worker, "plan", commit, None))

    async def log_start(self, partition: int) -> int:
        return int(await self._servers.call(self._worker, "log_start", lambda: self._servers.logs[partition].start, None))

    async def read(self, partition: int, first_offset: int, next_offset: int) -> Sequence[Record]:
        log = self._servers.logs[partition]
        found: Sequence[Record] = await self._servers.call(
            self._worker,
            "read",
            lambda: log.records[max(first_offset, log.start) : max(next_offset, log.start)],
            BrokerUnavailable,
        )
        return found

    async def forward(self, forwards: Sequence[Forward], letters: Sequence[DeadLetter], origin: Batch) -> dict[int, int]:
        def send() -> dict[int, int]:
            for item in forwards:
                self._servers.append(
                    item.partition,
                    item.value,
                    key=item.key,
                    headers=[
                        (HEADER_PROJECT, item.project_id.encode()),
                        (HEADER_FIRST_ACCEPTED_MS, b"%d" % item.first_accepted_ms),
                        (HEADER_FORWARDED_AMONG, b"%d" % origin.partitions),
                    ],
                )
            self._servers.copies += [(origin.partition, letter.offset, letter.index) for letter in letters]
            return {item.partition: self._servers.logs[item.partition].end for item in forwards}

        sent: dict[int, int] = await self._servers.call(self._worker, "forward", send, BrokerUnavailable)
        return sent

    def in_touch(self) -> bool:
        return self._worker.heard


class FakeStore:
    """ClickHouse, as one worker reaches it."""

    def __init__(self, servers: Servers, worker: Caller) -> None:
        self._servers, self._worker = servers, worker

    async def proof(self, incarnation: str, partition: int, *, began: int | None) -> Proof | None:  # noqa: ARG002 - one topic
        def look() -> Proof | None:
            tables = self._servers.tables
            found = sorted(
                (row for row in tables.receipts if row["partition"] == partition and not row["project_id"]),
                key=lambda row: int(row["first_offset"]),
            )
            if not found:
                return None
            holes, reached = [], found[0]["first_offset"] if began is None else began
            for row in found:
                if row["first_offset"] > reached:
                    holes.append((reached, row["first_offset"]))
                reached = max(reached, row["next_offset"])
            calls = sum(row["calls"] for row in tables.usage if row["kind"] == "tool_minute")
            return Proof(
                began=found[0]["first_offset"] if began is None else began,
                next_offset=reached,
                newest_record_ms=max(row["newest_record_ms"] for row in found),
                holes=tuple(holes),
                agrees=calls == sum(row["accepted"] for row in tables.receipts if row["kind"] == "receipt"),
            )

        proof: Proof | None = await self._servers.call(self._worker, "proof", look)
        return proof

    async def proved(self, incarnation: str) -> dict[int, int]:  # noqa: ARG002 - one topic
        def look() -> dict[int, int]:
            found: dict[int, int] = {}
            for row in self._servers.tables.receipts:
                if not row["project_id"]:
                    found[row["partition"]] = max(found.get(row["partition"], 0), row["next_offset"])
            return found

        proved: dict[int, int] = await self._servers.call(self._worker, "proved", look)
        return proved

    async def newest_below(self, incarnation: str, partition: int, offset: int) -> int:  # noqa: ARG002 - one topic
        def look() -> int:
            receipts = [row for row in self._servers.tables.receipts if row["partition"] == partition]
            return max((row["newest_record_ms"] for row in receipts if row["first_offset"] < offset), default=0)

        return int(await self._servers.call(self._worker, "newest_below", look))

    async def receipted(self, batch: Batch) -> bool:
        def look() -> bool:
            wanted = (batch.partition, batch.first_offset, batch.next_offset)
            receipts = self._servers.tables.receipts
            return any((row["partition"], row["first_offset"], row["next_offset"]) == wanted for row in receipts)

        return bool(await self._servers.call(self._worker, "receipted", look))

    async def said(self, incarnation: str) -> dict[int, Said]:  # noqa: ARG002 - one topic
        found: dict[int, Said] = await self._servers.call(self._worker, "said", lambda: dict(self._servers.tables.said))
        return found

    async def report(self, rows: Sequence[tuple[Any, ...]]) -> None:
        def land() -> None:
            said = self._servers.tables.said
            for _, partition, _, next_offset, _, complete_until, _, _, _, reported_at in rows:
                one = Said(
                    next_offset=next_offset,
                    complete_until_ms=round(complete_until.timestamp() * 1000),
                    reported_ms=round(reported_at.timestamp() * 1000),
                )
                if partition not in said or said[partition].reported_ms <= one.reported_ms:
                    said[partition] = one

        await self._servers.call(self._worker, "report", land)

    async def known(self, candidates: Candidates) -> dict[int, int]:
        decoded, batch = candidates.decoded, candidates.batch

        def look() -> dict[int, int]:
            outside = [
                row
                for row in self._servers.tables.executions
                if row["kafka_partition"] != batch.partition
                or row["kafka_offset"] not in range(batch.first_offset, batch.next_offset)
            ]
            by_id = {(row["project_id"], row["id"]): row["content_hash"] for row in outside}
            by_time = {(row["project_id"], row["timestamp"], row["id"]): row["content_hash"] for row in outside}
            found = {}
            for place in candidates.suspects.by_id:
                if (key := (decoded.project_ids[place], decoded.ids[place])) in by_id:
                    found[place] = by_id[key]
            for place in candidates.suspects.by_time:
                moment = (decoded.project_ids[place], decoded.timestamps_ms[place], decoded.ids[place])
                if moment in by_time:
                    found[place] = by_time[moment]
            return found

        known: dict[int, int] = await self._servers.call(self._worker, "known", look)
        return known

    async def landed(self, batch: Batch) -> pl.DataFrame:
        def look() -> pl.DataFrame:
            rows = [
                {name: row[name] for name in NEEDED}
                for row in self._servers.tables.executions
                if row["kafka_partition"] == batch.partition
                and row["first_offset"] == batch.first_offset
                and row["kafka_offset"] < batch.next_offset
                and row["batch_month"] == batch.month
            ]
            frame = pl.DataFrame(rows, schema=NEEDED_TYPES)
            return frame.with_columns(pl.col("timestamp").cast(pl.Datetime("ms", "UTC")))

        frame: pl.DataFrame = await self._servers.call(self._worker, "landed", look)
        return frame

    async def landed_dead_letters(self, batch: Batch) -> dict[str, int]:
        def look() -> dict[str, int]:
            rows = self._servers.tables.dead_letters
            return dict(Counter(row[4] for row in rows if row[:2] == (batch.partition, batch.first_offset)))

        counts: dict[str, int] = await self._servers.call(self._worker, "landed", look)
        return counts

    async def write_dead_letters(self, prepared: Prepared) -> None:
        batch = prepared.batch
        rows = [
            (batch.partition, batch.first_offset, letter.offset, letter.index, letter.project_id, batch.rewind)
            for letter in prepared.dead_letters
        ]
        await self._insert("dead_letters", batch, lambda: self._servers.tables.dead_letters.extend(rows))

    async def write_executions(self, prepared: Prepared) -> None:
        rows = prepared.executions.with_columns(pl.col("timestamp").cast(pl.Int64)).to_dicts()
        await self._insert("executions", prepared.batch, lambda: self._servers.tables.executions.extend(rows))

    async def write_usage(self, prepared: Prepared) -> None:
        batch = prepared.batch
        usage = [{**row, "written": (batch.partition, batch.first_offset)} for row in prepared.usage.to_dicts()]
        receipts = [
            {**row, "partition": batch.partition, "first_offset": batch.first_offset} for row in prepared.receipt.to_dicts()
        ]
        # The table's counts are unsigned: a block with a negative one cannot be written.
        assert all(value >= 0 for row in receipts for value in row.values() if isinstance(value, int)), receipts

        def land() -> None:
            self._servers.tables.usage.extend(usage)
            self._servers.tables.receipts.extend(receipts)

        await self._insert("usage", batch, land)

    async def remove(
        self,
        incarnation: str,  # noqa: ARG002 - one topic
        partition: int,
        from_offset: int,
        to_offset: int | None,
        *,
        before_rewind: int,
    ) -> int:
        removed = await self._servers.call(
            self._worker, "remove", lambda: self._servers.remove(partition, from_offset, to_offset, before_rewind)
        )
        return int(removed)

    async def load_ids(self, seen: SeenFilter, *, partition: int, partitions: int) -> None:
        def load() -> None:
            keys = [
                key
                for row in self._servers.tables.executions
                if home_partition(key := event_key(row["project_id"], row["id"]), partitions) == partition
            ]
            seen.begin(expected=len(keys), reach_ms=0)
            seen.add(id_hashes(keys) if keys else np.empty(0, dtype=np.uint64), accepted_ms=START_MS)

        await self._servers.call(self._worker, "load_ids", load)

    async def _insert(self, table: str, batch: Batch, land: Callable[[], None]) -> None:
        await self._servers.call(self._worker, f"write_{table}", lambda: self._servers.insert(table, batch, land))


def missing_before(servers: Servers, at_ms: int) -> list[str]:
    """Return what was accepted before a time and is not in the answers."""
    there = {row["id"] for row in servers.tables.executions}
    letters = {(row[0], row[2], row[3]) for row in servers.tables.dead_letters}
    missing = []
    for partition, log in enumerate(servers.logs):
        for record in log.records:
            if record.timestamp_ms >= at_ms:
                continue
            for index, event in _items(record.value or b""):
                event_id = event.get("id") or f"{INCARNATION}-{partition}-{record.offset}-{index}"
                if event_id not in there if "tool_slug" in event else (partition, record.offset, index) not in letters:
                    missing.append(f"{event_id} at {record.timestamp_ms}")
    return missing


def faults(servers: Servers, *, lost: Sequence[tuple[int, int]] = ()) -> list[str]:
    """Compare what ClickHouse holds with what the logs hold, by plain counting; nothing means all is as it must be.

    Args:
        lost: offset ranges (partition, below) that Kafka lost before they were proved; nothing is expected of them.
    """
    below = dict(lost)
    logs = {partition: log.records for partition, log in enumerate(servers.logs) if partition not in below}
    late = wrong_corrections(servers.tables.executions, servers.tables.usage, logs=logs, close_ms=WINDOW_CLOSE_MS)
    return [*_rows(servers, below), *_sums(servers), *late, *_receipts(servers, below)]


def _rows(servers: Servers, below: dict[int, int]) -> list[str]:
    expected, allowed = set(), set()
    for partition, log in enumerate(servers.logs):
        for record in log.records:
            forwarded = any(name == HEADER_FORWARDED_AMONG for name, _ in record.headers)
            for index, event in _items(record.value or b""):
                if "tool_slug" not in event:
                    continue
                event_id = event.get("id") or f"{INCARNATION}-{partition}-{record.offset}-{index}"
                assert event.get("id") or not forwarded
                allowed.add(event_id)
                if record.offset >= below.get(partition, 0):
                    expected.add(event_id)
    there = Counter(row["id"] for row in servers.tables.executions)
    found = [f"{event_id} is in executions {times} times" for event_id, times in sorted(there.items()) if times != 1]
    found += [f"{event_id} is missing from executions" for event_id in sorted(expected - there.keys())]
    found += [f"{event_id} was never sent" for event_id in sorted(there.keys() - allowed)]
    return found


def _items(value: bytes) -> list[tuple[int, dict[str, Any]]]:
    found = json.loads(value)
    return list(enumerate(found if isinstance(found, list) else [found]))


def _sums(servers: Servers) -> list[str]:
    keys = ("project_id", "tool_slug", "status", "user_id", "session_id")
    found = []
    for kind, known_by in (("tool_minute", 3), ("tool_hour", 3), ("tool_day", 3), ("user_hour", 4), ("session_hour", 5)):
        names = keys[:known_by]
        calls: dict[tuple[Any, ...], int] = defaultdict(int)
        for row in servers.tables.usage:
            if row["kind"] == kind:
                calls[tuple(row[name] for name in names)] += row["calls"]
                assert row["calls"] == sum(bucket["value"] for bucket in row["durations"])
        rows = Counter(
            tuple(row[name] for name in names)
            for row in servers.tables.executions
            if kind != "session_hour" or row["session_id"]
        )
        if dict(calls) != dict(rows):
            found.append(f"{kind}: {dict(calls)} calls, {dict(rows)} rows")
    return found


def _receipts(servers: Servers, below: dict[int, int]) -> list[str]:
    found = []
    tables = servers.tables
    for partition, log in enumerate(servers.logs):
        mine = [row for row in tables.receipts if row["partition"] == partition]
        whole = sorted((row["first_offset"], row["next_offset"]) for row in mine if row["kind"] == "receipt")
        at = 0
        for first_offset, next_offset in whole:
            if first_offset != at and not (first_offset > at and first_offset <= below.get(partition, 0)):
                found.append(f"partition {partition}: a receipt begins at {first_offset}, expected {at}")
            at = next_offset
        if at < log.end:
            found.append(f"partition {partition}: proved up to {at} of {log.end}")
        if sum(row["records"] for row in mine) != log.end - below.get(partition, 0) and not below:
            found.append(f"partition {partition}: {sum(row['records'] for row in mine)} of {log.end} records")
        for row in mine:
            if row["events"] != row["accepted"] + row["duplicates"] + row["dead_letters"] + row["forwarded"]:
                found.append(f"partition {partition}: a receipt that does not add up: {row}")
        for kind in ("receipt", "project_receipt"):
            some = [row for row in mine if row["kind"] == kind]
            for column, there in (
                ("accepted", Counter(row["first_offset"] for row in tables.executions if row["kafka_partition"] == partition)),
                ("dead_letters", Counter(row[1] for row in tables.dead_letters if row[0] == partition)),
            ):
                promised: Counter[int] = Counter()
                for row in some:
                    promised[row["first_offset"]] += row[column]
                if +promised != +there:
                    found.append(f"partition {partition}: {kind} {column} {dict(+promised)}, there {dict(+there)}")
    letters = Counter((row[0], row[2], row[3]) for row in tables.dead_letters)
    sent = {
        (partition, record.offset, index)
        for partition, log in enumerate(servers.logs)
        for record in log.records
        if record.offset >= below.get(partition, 0)
        for index, item in _items(record.value or b"")
        if "tool_slug" not in item
    }
    found += [f"dead letter {letter} is there {times} times" for letter, times in letters.items() if times != 1]
    found += [f"dead letter {letter} is missing" for letter in sorted(sent - letters.keys())]
    if missing := letters.keys() - set(servers.copies):
        found.append(f"no copy of dead letters {sorted(missing)}")
    return found
