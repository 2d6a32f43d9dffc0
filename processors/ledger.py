"""The ledger of one partition: plan, write, receipt, so that every event is written exactly once. DESIGN section 5.

1. Plan: commit the batch's end to Kafka, fenced by the group generation, with its start in the metadata.
   A crash right after leaves [F, C) to be written again, as exactly that batch.
2. Dead letters to their table and topic, strays to their home partition.
   A crash right after: as above; the table refuses the token it has, and at home an id counts once.
3. Executions. A crash right after: as above; what landed is read back and is the truth.
4. Usage and receipt, one block. The commit point: a crash right after redoes nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

import msgspec
import polars as pl

from ingest.contract import metrics
from ingest.contract.errors import LedgerInvariantBroken, TransportError
from ingest.contract.logs import logger
from processors.batch import Batch, Candidates, Forward, Prepared, adopt, read, settle, split
from processors.decode import DeadLetter, Record
from processors.dedupe import SeenFilter
from processors.driver import Committed, Run
from processors.room import Room

log = logger(__name__)
T = TypeVar("T")

_RETRY_FIRST_MS: Final = 100
# How often a worker that lost touch with its group looks whether it is back.
_HEARTBEAT_POLL_S: Final = 0.2


class Plan(msgspec.Struct, frozen=True):
    """The metadata of a planned commit. `rewind` counts how often this partition went back to an older receipt."""

    first_offset: int
    incarnation: str
    rewind: int = 0

    def encode(self) -> str:
        """Return the text Kafka keeps beside the offset."""
        return msgspec.json.encode(self).decode()

    @staticmethod
    def parse(metadata: str) -> "Plan | None":
        """Return the plan of a commit, None if somebody else committed."""
        try:
            return msgspec.json.decode(metadata, type=Plan)
        except msgspec.MsgspecError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The last proof of a partition."""

    next_offset: int
    newest_record_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is known of a partition when it is assigned; offsets, None where there is nothing."""

    proved: int | None  # D: next offset of the last receipt
    planned: int | None  # C: the group's committed offset
    plan: Plan | None  # F and more, from the metadata of C; None unless it is of this incarnation
    log_start: int  # what Kafka still has begins here
    fresh: int = 0  # larger than any rewind before: tokens that carry it were never used


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How to go on with a partition: recover first, if asked; then fetch from `start`."""

    start: int
    rewind: int
    recover: tuple[int, int] | None = None  # write exactly this range again, as one batch
    remove_from: int | None = None  # take away what lies at or above this offset, it will be written again
    gap: tuple[int, int] | None = None  # no receipt proves it and Kafka no longer has it


def decide(found: Found) -> Opening:
    """Decide how to go on with a partition. Pure; the rows are those of DESIGN section 5."""
    plan, planned = found.plan, found.planned if found.plan is not None else None
    rewind = plan.rewind if plan is not None else 0
    # ClickHouse may remember tokens of what it no longer holds, so whoever starts anew takes tokens of his own.
    anew = max(rewind + 1, found.fresh)
    proved = found.proved
    if proved is None:
        if plan is None or planned is None:
            # A first start, or a plan that was lost together with the group's offsets: what it may have left goes.
            return Opening(start=found.log_start, rewind=found.fresh, remove_from=0)
        # Nothing is proved: either this was the first batch ever, or ClickHouse was wiped.
        proved = plan.first_offset if plan.first_offset <= found.log_start < planned else found.log_start
    gap = (proved, found.log_start) if found.log_start > proved else None
    start = max(proved, found.log_start)
    if plan is None or planned is None:
        # Offsets expired or reset. A plan that is lost with them may have left rows: they go, under another token.
        return Opening(start=start, rewind=anew, remove_from=proved, gap=gap)
    if planned == proved:
        return Opening(start=start, rewind=rewind, gap=gap)
    if planned < proved:
        return Opening(start=start, rewind=rewind, gap=gap)
    if plan.first_offset == proved:
        return Opening(start=max(planned, found.log_start), rewind=rewind, recover=(proved, planned), gap=gap)
    # ClickHouse lost receipts (wiped, or restored from a backup).
    return Opening(start=start, rewind=anew, remove_from=proved, gap=gap)


class Broker(Protocol):
    """Kafka, as far as the ledger needs it."""

    async def committed(self, partition: int) -> Committed | None:
        """Return the group's offset and its metadata."""

    async def plan(self, partition: int, offset: int, metadata: str, generation: int) -> bool:
        """Commit under exactly this generation; False if the group has moved on."""

    async def log_start(self, partition: int) -> int:
        """Return the first offset Kafka still has."""

    async def read(self, partition: int, first_offset: int, next_offset: int) -> Sequence[Record]:
        """Return the records of [first_offset, next_offset) that Kafka still has."""

    async def forward(self, forwards: Sequence[Forward], letters: Sequence[DeadLetter], origin: Batch) -> None:
        """Send strays home and copies of dead letters to their topic; returns once Kafka has all of it."""

    def in_touch(self) -> bool:
        """Whether the group heard from this worker within the session timeout."""


class Store(Protocol):
    """ClickHouse, as far as the ledger needs it. Every call may raise StoreUnavailable."""

    async def last_receipt(self, incarnation: str, partition: int) -> Receipt | None:
        """Return the last proof of a partition."""

    async def known(self, candidates: Candidates) -> dict[int, int]:
        """Return place -> content hash of those suspects whose id is in ClickHouse from outside this batch."""

    async def landed(self, batch: Batch) -> pl.DataFrame:
        """Return the rows of a batch that are in `tool_executions`."""

    async def landed_dead_letters(self, batch: Batch) -> int:
        """Return how many dead letters of a batch are in their table."""

    async def write_dead_letters(self, prepared: Prepared) -> None: ...

    async def write_executions(self, prepared: Prepared) -> None: ...

    async def write_usage(self, prepared: Prepared) -> None: ...

    async def remove(self, incarnation: str, partition: int, from_offset: int) -> int:
        """Take away everything of a partition at or above an offset; return how many rows that were."""

    async def load_ids(self, seen: SeenFilter, *, partition: int, partitions: int, below: tuple[str, int]) -> None:
        """Fill a filter with the ids whose home is this partition, up to the last receipt."""


class InThread(Protocol):
    """Runs a pure function beside the loop, so that other partitions go on meanwhile."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]: ...


class AbandonedError(Exception):
    """The partition is not ours any more under this generation; whoever has it goes on from what is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of a batch and of the pauses between tries."""

    batch_events: int
    batch_bytes: int
    retry_ms_max: int
    dedupe_bytes: int


class PartitionLedger:
    """One partition of one incarnation of the topic, in one worker."""

    def __init__(
        self,
        partition: int,
        *,
        broker: Broker,
        store: Store,
        limits: Limits,
        stores_payload: Callable[[str], bool],
        in_thread: "InThread",
        reached: Callable[[str], Awaitable[None]],
        room: Room,
        now_ms: Callable[[], int],
    ) -> None:
        self.partition = partition
        self.next_offset = -1
        self.proved_offset = 0
        self.newest_record_ms = 0
        # What keeps the step in work from being done; empty while nothing does.
        self.trouble = ""
        self.seen: SeenFilter | None = None
        # What the filter is true for: number of partitions, and the offset it reaches up to.
        self._seen_until = (0, -1)
        self._broker, self._store, self._limits = broker, store, limits
        self._stores_payload = stores_payload
        self._in_thread = in_thread
        self._reached = reached
        self._room = room
        self._now_ms = now_ms
        self._generation: int | None = None
        self._incarnation = ""
        self._partitions = 0
        self._rewind = 0
        self._lock = asyncio.Lock()
        self._suspended = asyncio.Event()

    @property
    def busy(self) -> bool:
        """Whether a batch is in work."""
        return self._lock.locked()

    async def idle(self, timeout_s: float) -> bool:
        """Wait until no batch is in work; False if one still is when the time is over."""
        try:
            async with asyncio.timeout(timeout_s), self._lock:
                return True
        except TimeoutError:
            return False

    def suspend(self) -> None:
        """Plan nothing more under the present generation; a batch already planned is finished."""
        self._generation = None
        self._suspended.set()

    async def open(self, generation: int, *, incarnation: str, partitions: int) -> int:
        """Find out where the partition stands, recover what was planned and not proved, and return where to fetch from.

        Raises:
            AbandonedError: the next rebalance came before it was done.
        """
        async with self._lock:
            self._suspended.clear()
            self._generation = generation
            self._incarnation, self._partitions = incarnation, partitions
            receipt = await self._until_done("open", lambda: self._store.last_receipt(incarnation, self.partition))
            committed = await self._broker.committed(self.partition)
            plan = Plan.parse(committed.metadata) if committed is not None else None
            found = Found(
                proved=receipt.next_offset if receipt is not None else None,
                planned=committed.offset if committed is not None else None,
                plan=plan if plan is not None and plan.incarnation == incarnation else None,
                log_start=await self._broker.log_start(self.partition),
                fresh=self._now_ms(),
            )
            opening = decide(found)
            self._rewind = opening.rewind
            self.newest_record_ms = receipt.newest_record_ms if receipt is not None else 0
            proved = found.proved if found.proved is not None else 0
            if opening.gap is not None:
                self._report_gap(*opening.gap)
            if opening.remove_from is not None:
                start = opening.remove_from
                removed = await self._until_done("remove", lambda: self._store.remove(incarnation, self.partition, start))
                if removed or receipt is not None:
                    log.warning("partition_rewound", partition=self.partition, from_offset=start, removed_rows=removed)
                self.seen = None
            await self._load_filter(proved)
            if opening.recover is not None:
                await self._recover(*opening.recover)
            self.next_offset = self.proved_offset = opening.start
            log.info(
                "partition_opened",
                partition=self.partition,
                generation=generation,
                start=opening.start,
                recovered=opening.recover,
                proved=found.proved,
                planned=found.planned,
                known_ids=self.seen.count if self.seen is not None else 0,
            )
            return opening.start

    async def process(self, run: Run) -> None:
        """Write a run, in one or more batches.

        Raises:
            AbandonedError: the run belongs to an older generation, or a rebalance began; the rest of it is dropped unplanned.
        """
        async with self._lock:
            if run.generation != self._generation:
                raise AbandonedError
            if run.first_offset != self.next_offset:
                raise LedgerInvariantBroken(
                    f"partition {self.partition}: a run begins at {run.first_offset}, expected {self.next_offset}"
                )
            if run.records[0].offset > run.first_offset:
                # A hole: control records, or retention was faster than we are.
                log_start = await self._broker.log_start(self.partition)
                if log_start > run.first_offset:
                    self._report_gap(run.first_offset, min(log_start, run.records[0].offset))
            whole = self._batch(run.first_offset, run.next_offset, run.records)
            for batch in split(whole, events_max=self._limits.batch_events, bytes_max=self._limits.batch_bytes):
                async with self._room.take(batch.nbytes):
                    await self._write(batch, generation=run.generation)

    def _batch(self, first_offset: int, next_offset: int, records: Sequence[Record]) -> Batch:
        return Batch(
            incarnation=self._incarnation,
            partition=self.partition,
            partitions=self._partitions,
            first_offset=first_offset,
            next_offset=next_offset,
            records=records,
            rewind=self._rewind,
        )

    async def _write(self, batch: Batch, *, generation: int) -> None:
        prepared = await self._prepare(batch)
        if self._generation != generation:
            raise AbandonedError
        await self._reached("before_plan")
        plan = Plan(first_offset=batch.first_offset, incarnation=batch.incarnation, rewind=batch.rewind)
        with metrics.WORKER_STEP_SECONDS.labels("plan").time():
            planned = await self._broker.plan(self.partition, batch.next_offset, plan.encode(), generation)
        if not planned:
            self.suspend()
            raise AbandonedError
        self.next_offset = batch.next_offset
        await self._reached("planned")
        await self._carry_out(prepared)
        metrics.WORKER_BATCHES.labels("ordinary").inc()

    async def _prepare(self, batch: Batch) -> Prepared:
        seen = self.seen
        assert seen is not None, "a partition is opened before it is written"
        with metrics.WORKER_STEP_SECONDS.labels("prepare").time():
            candidates = await self._in_thread(lambda: read(batch, seen=seen))
            known: Mapping[int, int] = {}
            asked = len(candidates.suspects.by_id) + len(candidates.suspects.by_time)
            if asked:
                metrics.DEDUPE_ASKED.inc(asked)
                known = await self._until_done("known", lambda: self._store.known(candidates))
            return await self._in_thread(lambda: settle(candidates, known=known, stores_payload=self._stores_payload))

    async def _carry_out(self, prepared: Prepared) -> None:
        """Steps 2 to 4 of a planned batch."""
        if prepared.dead_letters:
            await self._step("dead_letters", lambda: self._store.write_dead_letters(prepared))
        if prepared.dead_letters or prepared.forwards:
            await self._step("forward", lambda: self._broker.forward(prepared.forwards, prepared.dead_letters, prepared.batch))
        if prepared.executions.height:
            await self._step("executions", lambda: self._store.write_executions(prepared))
        await self._step("receipt", lambda: self._store.write_usage(prepared))
        self._proved(prepared)

    async def _recover(self, first_offset: int, next_offset: int) -> None:
        """Write a planned range again. What landed of it, by whomever, is the truth for its sums and its receipt."""
        records = await self._broker.read(self.partition, first_offset, next_offset)
        batch = self._batch(first_offset, next_offset, records)
        async with self._room.take(batch.nbytes):
            await self._write_again(batch)
        metrics.WORKER_BATCHES.labels("recovered").inc()
        log.info("batch_recovered", partition=self.partition, first_offset=first_offset, next_offset=next_offset)

    async def _write_again(self, batch: Batch) -> None:
        prepared = await self._prepare(batch)
        # First what can be read back: it shows whether ClickHouse still has what it remembers the token of.
        adopt(prepared, await self._land(prepared))
        await self._land_dead_letters(prepared)
        if prepared.dead_letters or prepared.forwards:
            await self._step("forward", lambda: self._broker.forward(prepared.forwards, prepared.dead_letters, prepared.batch))
        await self._prove(prepared)
        self._proved(prepared)

    async def _land(self, prepared: Prepared) -> pl.DataFrame:
        """Return the rows of a batch as they are in ClickHouse, after writing them unless they were there."""
        landed = await self._until_done("landed", lambda: self._store.landed(prepared.batch))
        while not landed.height and prepared.executions.height:
            await self._step("executions", lambda: self._store.write_executions(prepared))
            landed = await self._until_done("landed", lambda: self._store.landed(prepared.batch))
            if not landed.height:
                self._renew_token(prepared)
        return landed

    async def _land_dead_letters(self, prepared: Prepared) -> None:
        """Write the dead letters of a batch unless they are there, and see that they are."""
        while len(prepared.dead_letters) > await self._until_done(
            "landed", lambda: self._store.landed_dead_letters(prepared.batch)
        ):
            await self._step("dead_letters", lambda: self._store.write_dead_letters(prepared))
            if not await self._until_done("landed", lambda: self._store.landed_dead_letters(prepared.batch)):
                self._renew_token(prepared)

    async def _prove(self, prepared: Prepared) -> None:
        """Write usage and receipt, and see that they are there."""
        batch = prepared.batch
        while True:
            await self._step("receipt", lambda: self._store.write_usage(prepared))
            receipt = await self._until_done("open", lambda: self._store.last_receipt(batch.incarnation, batch.partition))
            if receipt is not None and receipt.next_offset >= batch.next_offset:
                return
            self._renew_token(prepared)

    def _renew_token(self, prepared: Prepared) -> None:
        """ClickHouse remembers the token though what came with it is gone (tables emptied by hand): take another one."""
        self._rewind = max(self._rewind + 1, self._now_ms())
        prepared.batch = replace(prepared.batch, rewind=self._rewind)
        log.warning("token_renewed", partition=self.partition, token=prepared.batch.token)

    def _proved(self, prepared: Prepared) -> None:
        assert self.seen is not None
        # Only now may an id be claimed: what is not written must not make another copy of it a duplicate.
        self.seen.add(prepared.accepted_hashes, accepted_ms=prepared.newest_record_ms)
        self._seen_until = (prepared.batch.partitions, prepared.batch.next_offset)
        self.newest_record_ms = max(self.newest_record_ms, prepared.newest_record_ms)
        self.proved_offset = prepared.batch.next_offset
        totals = prepared.totals
        metrics.WORKER_RECORDS.inc(totals["records"])
        for outcome in ("accepted", "duplicates", "conflicts", "dead_letters", "forwarded"):
            if totals[outcome]:
                metrics.WORKER_EVENTS.labels(outcome).inc(totals[outcome])
        for letter in prepared.dead_letters:
            metrics.WORKER_DEAD_LETTERS.labels(letter.reason).inc()
        metrics.PARTITION_NEXT_OFFSET.labels(str(self.partition)).set(prepared.batch.next_offset)
        log.info("batch_written", partition=self.partition, token=prepared.batch.token, **totals)

    async def _load_filter(self, proved: int) -> None:
        if self.seen is not None and self._seen_until == (self._partitions, proved):
            return  # kept through a rebalance in which nobody else wrote here
        seen = SeenFilter(budget_bytes=self._limits.dedupe_bytes)
        await self._until_done(
            "load",
            lambda: self._store.load_ids(
                seen, partition=self.partition, partitions=self._partitions, below=(self._incarnation, proved)
            ),
        )
        self.seen, self._seen_until = seen, (self._partitions, proved)

    def _report_gap(self, first_offset: int, next_offset: int) -> None:
        metrics.LEDGER_GAP_RECORDS.inc(next_offset - first_offset)
        log.error("records_lost_to_retention", partition=self.partition, first_offset=first_offset, next_offset=next_offset)

    async def _step(self, name: str, call: Callable[[], Awaitable[None]]) -> None:
        with metrics.WORKER_STEP_SECONDS.labels(name).time():
            await self._until_done(name, call)
        await self._reached(name)

    async def _until_done(self, step: str, call: Callable[[], Awaitable[T]]) -> T:
        """Try until it is done: a planned batch is a promise. Writes nothing while the group may think us dead."""
        pause_ms = _RETRY_FIRST_MS
        while True:
            if not self._broker.in_touch():
                await asyncio.sleep(_HEARTBEAT_POLL_S)
                continue
            try:
                done = await call()
                self.trouble = ""
                return done
            except TransportError as error:
                self.trouble = f"{step}: {error}"
                metrics.WORKER_RETRIES.labels(step).inc()
                log.warning("step_failed", step=step, partition=self.partition, error=str(error), retry_ms=pause_ms)
            await asyncio.sleep(pause_ms / 1000)
            pause_ms = min(pause_ms * 2, self._limits.retry_ms_max)


__all__ = ["AbandonedError", "Broker", "Found", "Limits", "Opening", "PartitionLedger", "Plan", "Receipt", "Store", "decide"]
