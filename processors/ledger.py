"""The ledger of one partition: plan, write, receipt, so that every event is written exactly once. DESIGN section 5.

1. Plan: commit the batch's end to Kafka, fenced by the group generation, with its start in the metadata.
   A crash right after leaves [F, C) to be written again, as exactly that batch.
2. Strays to their home partition, dead letters to their topic and table.
   A crash right after: as above; at home an id counts once, and the table refuses the token it has.
3. Executions. A crash right after: as above; what landed is read back and is the truth.
4. Usage and receipt, one block. The commit point: a crash right after redoes nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from ingest.contract import metrics
from ingest.contract.access import Purge
from ingest.contract.errors import LedgerInvariantBroken
from ingest.contract.logs import logger
from ingest.contract.redact import COMMON, Redactor
from processors.batch import Batch, Prepared, split
from processors.decode import Record
from processors.dedupe import SeenFilter
from processors.held import Held
from processors.opening import Found, Opening, Plan, decide
from processors.ports import Broker, InThread, Store
from processors.room import Room
from processors.rows import batch_month
from processors.runs import Run
from processors.writing import BatchWriter, Limits

log = logger(__name__)

# How often a partition that waits for a batch of another looks again.
_SETTLED_POLL_S: Final = 0.2


class AbandonedError(Exception):
    """The partition is not ours any more under this generation; whoever has it goes on from what is written."""


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
        purges: Callable[[], Mapping[str, Sequence[Purge]]] = dict,
        redactor: Redactor = COMMON,
        in_thread: InThread,
        reached: Callable[[str], Awaitable[None]],
        room: Room,
        now_ms: Callable[[], int],
        admits: Callable[[Prepared], Awaitable[bool]],
    ) -> None:
        self.partition = partition
        self.next_offset = -1
        self.proved_offset = 0
        self.newest_record_ms = 0
        self.seen: SeenFilter | None = None
        self.held = Held()
        # What the filter is true for: number of partitions, and the offset it reaches up to.
        self._seen_until = (0, -1)
        self._broker, self._store, self._limits = broker, store, limits
        self._reached = reached
        self._room = room
        self._now_ms = now_ms
        self._writer = BatchWriter(
            partition,
            broker=broker,
            store=store,
            limits=limits,
            stores_payload=stores_payload,
            purges=purges,
            redactor=redactor,
            in_thread=in_thread,
            reached=reached,
            now_ms=now_ms,
        )
        self._admits = admits
        self._generation: int | None = None
        self._incarnation = ""
        self._partitions = 0
        self._began = 0
        self._rewind = 0
        self._lock = asyncio.Lock()

    @property
    def busy(self) -> bool:
        """Whether a batch is in work."""
        return self._lock.locked()

    @property
    def trouble(self) -> str:
        """What keeps the step in work from being done; empty while nothing does."""
        return self._writer.trouble

    @property
    def partitions(self) -> int:
        """How many partitions the topic has, as far as this one was opened for."""
        return self._partitions

    @property
    def generation(self) -> int | None:
        """The group generation it is open under, None while it is not."""
        return self._generation

    async def until_done(self, step: str, call: Callable[[], Awaitable[None]]) -> None:
        """Try a call until Kafka and ClickHouse do it."""
        await self._writer.until_done(step, call)

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

    async def open(self, generation: int, *, incarnation: str, partitions: int) -> int:
        """Find out where the partition stands, heal what was left undone, and return where to fetch from.

        Raises:
            AbandonedError: the next rebalance came before it was done.
        """
        async with self._lock:
            self._generation = generation
            self._incarnation, self._partitions = incarnation, partitions
            if not await self._broker.barrier(generation):
                self.suspend()
                raise AbandonedError
            found = await self._find()
            opening = decide(found)
            proof, plan = found.proof, found.plan
            self._rewind, self._began = opening.rewind, opening.began
            self.newest_record_ms = proof.newest_record_ms if proof is not None else 0
            proved = proof.next_offset if proof is not None else 0
            if opening.remove_from is not None:
                # On record first, fenced by the generation: one that lost the partition meanwhile takes nothing away.
                await self._plan(self._batch(opening.start, opening.start, ()), generation, remove_from=opening.remove_from)
                await self._remove(opening.remove_from, None, expected=proof is None)
                plan = self.seen = None
            if opening.recover is not None:
                assert plan is not None, "only a plan is recovered"
                await self._recover(plan, *opening.recover, proved=proved)
            await self._agree_on_partitions(opening.start, planned=plan, generation=generation)
            await self._load_filter(self._partitions, opening.start)
            await self._fill(found, opening, generation)
            self.next_offset = self.proved_offset = opening.start
            if opening.lost is not None:
                await self._write(self._lost(*opening.lost), generation=generation)
            log.info(
                "partition_opened",
                partition=self.partition,
                generation=generation,
                start=self.next_offset,
                recovered=opening.recover,
                filled=opening.fill,
                proved=proof.next_offset if proof is not None else None,
                planned=found.planned,
                known_ids=self.seen.count if self.seen is not None else 0,
            )
            return self.next_offset

    async def process(self, run: Run) -> None:
        """Write a run, in one or more batches.

        Raises:
            AbandonedError: the run belongs to an older generation, or a rebalance began; the rest of it is dropped unplanned.
            LedgerInvariantBroken: the run does not follow what was written before.
        """
        async with self._lock:
            if run.generation != self._generation:
                raise AbandonedError
            first_offset = run.first_offset
            begin = run.records[0].offset if run.records else run.next_offset
            if first_offset != self.next_offset or begin < first_offset:
                raise LedgerInvariantBroken(
                    f"partition {self.partition}: a run [{first_offset}, {run.next_offset}) with records from {begin} on,"
                    f" expected {self.next_offset}: the log went back, or the topic was made anew"
                )
            if begin > first_offset:
                # A hole: control records, or retention was faster than we are.
                log_start = await self._broker.log_start(self.partition)
                if log_start > first_offset:
                    await self._write(self._lost(first_offset, min(log_start, begin)), generation=run.generation)
                    first_offset = self.next_offset
            if first_offset < run.next_offset:
                await self._write_all(self._batch(first_offset, run.next_offset, run.records), generation=run.generation)

    def _batch(self, first_offset: int, next_offset: int, records: Sequence[Record]) -> Batch:
        return Batch(
            incarnation=self._incarnation,
            partition=self.partition,
            partitions=self._partitions,
            first_offset=first_offset,
            next_offset=next_offset,
            records=records,
            rewind=self._rewind,
            planned_month=0 if records else batch_month(self.newest_record_ms or self._now_ms()),
            newest_before_ms=self.newest_record_ms,
        )

    # Writing.

    async def _write_all(self, whole: Batch, *, generation: int) -> None:
        for batch in split(whole, events_max=self._limits.batch_events, bytes_max=self._limits.batch_bytes):
            async with self._room.take(batch.nbytes):
                await self._write(batch, generation=generation)

    def _lost(self, first_offset: int, next_offset: int) -> Batch:
        """Return the batch of offsets that nobody will ever read: its receipt puts the loss on record."""
        metrics.LEDGER_GAP_RECORDS.inc(next_offset - first_offset)
        log.error("records_lost_to_retention", partition=self.partition, first_offset=first_offset, next_offset=next_offset)
        return replace(self._batch(first_offset, next_offset, ()), lost=next_offset - first_offset)

    async def _write(self, batch: Batch, *, generation: int) -> None:
        assert self.seen is not None, "a partition is opened before it is written"
        prepared = await self._writer.prepare(batch, self.seen)
        if not await self._writer.until_done("watch", lambda: self._admits(prepared)):
            self.suspend()
            raise AbandonedError
        await self._require_topic()
        if self._generation != generation:
            raise AbandonedError
        await self._reached("before_plan")
        await self._plan(batch, generation)
        self.next_offset = batch.next_offset
        await self._reached("planned")
        self._proved(prepared, await self._writer.carry_out(prepared, began=self._began))
        metrics.WORKER_BATCHES.labels("ordinary").inc()

    async def _plan(self, batch: Batch, generation: int, *, remove_from: int | None = None) -> None:
        plan = Plan(
            first_offset=batch.first_offset,
            incarnation=batch.incarnation,
            rewind=batch.rewind,
            began=self._began,
            month=batch.month,
            partitions=batch.partitions if remove_from is None else 0,
            newest_before_ms=batch.newest_before_ms,
            remove_from=remove_from,
        )
        with metrics.WORKER_STEP_SECONDS.labels("plan").time():
            planned = await self._broker.plan(self.partition, batch.next_offset, plan.encode(), generation)
        if not planned:
            self.suspend()
            raise AbandonedError

    async def _require_topic(self) -> None:
        """See that the topic still is the one this partition was opened in.

        Raises:
            LedgerInvariantBroken: it was deleted and made anew.
            AbandonedError: partitions were added; a rebalance tells everybody, and who is at home is judged anew.
        """
        incarnation, partitions = await self._broker.topic()
        if incarnation != self._incarnation:
            raise LedgerInvariantBroken(
                f"partition {self.partition}: the topic was made anew ({self._incarnation} is {incarnation} now);"
                " starting again with its new incarnation"
            )
        if partitions != self._partitions:
            log.info("partitions_added", partition=self.partition, before=self._partitions, now=partitions)
            self.suspend()
            raise AbandonedError

    def _proved(self, prepared: Prepared, sent: Mapping[int, int]) -> None:
        batch = prepared.batch
        self._claim(prepared, sent)
        self._seen_until = (batch.partitions, batch.next_offset)
        self._rewind = max(self._rewind, batch.rewind)
        self.newest_record_ms = max(self.newest_record_ms, prepared.newest_record_ms)
        self.proved_offset = batch.next_offset
        metrics.PARTITION_NEXT_OFFSET.labels(str(self.partition)).set(batch.next_offset)

    def _claim(self, prepared: Prepared, sent: Mapping[int, int]) -> None:
        """Take in what a proved batch did."""
        assert self.seen is not None
        # Only now may an id be claimed: what is not written must not make another copy of it a duplicate.
        self.seen.add(prepared.accepted_hashes, accepted_ms=prepared.newest_record_ms)
        for home, next_offset in sent.items():
            accepted = [item.first_accepted_ms for item in prepared.forwards if item.partition == home]
            self.held.until(home, next_offset, min(accepted))
        totals = prepared.totals
        metrics.WORKER_RECORDS.inc(totals["records"])
        for outcome in ("accepted", "duplicates", "conflicts", "dead_letters", "forwarded"):
            if totals[outcome]:
                metrics.WORKER_EVENTS.labels(outcome).inc(totals[outcome])
        for letter in prepared.dead_letters:
            metrics.WORKER_DEAD_LETTERS.labels(letter.reason).inc()
        log.info("batch_written", partition=self.partition, token=prepared.batch.token, **totals)
        if prepared.conflict:
            log.warning("ids_with_other_content", conflicts=totals["conflicts"], example=prepared.conflict)

    # Opening.

    async def _find(self) -> Found:
        committed = (await self._broker.committed([self.partition])).get(self.partition)
        plan = Plan.parse(committed.metadata) if committed is not None else None
        if plan is not None and plan.incarnation != self._incarnation:
            plan = None
        began = plan.began if plan is not None else None
        proof = await self._writer.until_done("open", lambda: self._store.proof(self._incarnation, self.partition, began=began))
        return Found(
            proof=proof,
            planned=committed.offset if committed is not None else None,
            plan=plan,
            log_start=await self._broker.log_start(self.partition),
            fresh=self._now_ms(),
        )

    async def _remove(self, from_offset: int, to_offset: int | None, *, expected: bool) -> None:
        removed = await self._writer.until_done(
            "remove",
            lambda: self._store.remove(self._incarnation, self.partition, from_offset, to_offset, before_rewind=self._rewind),
        )
        if removed or not expected:
            log.warning(
                "partition_rewound",
                partition=self.partition,
                from_offset=from_offset,
                to_offset=to_offset,
                removed_rows=removed,
            )

    async def _recover(self, plan: Plan, first_offset: int, next_offset: int, *, proved: int) -> None:
        """Write a planned range again. What landed of it, by whomever, is the truth for its sums and its receipt."""
        records = await self._read(first_offset, next_offset)
        partitions = plan.partitions or self._partitions
        await self._load_filter(partitions, proved)
        assert self.seen is not None
        batch = replace(
            self._batch(first_offset, next_offset, records),
            partitions=partitions,
            # The plan's own, so that what lands late of it meets its token.
            rewind=plan.rewind,
            planned_month=plan.month,
            # Receipts that are gone may have covered a later record than those that are left.
            newest_before_ms=max(plan.newest_before_ms, self.newest_record_ms),
            lost=max(0, min(next_offset, await self._broker.log_start(self.partition)) - first_offset),
        )
        async with self._room.take(batch.nbytes):
            prepared = await self._writer.prepare(batch, self.seen)
            self._proved(prepared, await self._writer.write_again(prepared, began=self._began))
        metrics.WORKER_BATCHES.labels("recovered").inc()
        log.info("batch_recovered", partition=self.partition, first_offset=first_offset, next_offset=next_offset)

    async def _read(self, first_offset: int, next_offset: int) -> Sequence[Record]:
        return await self._writer.until_done("read", lambda: self._broker.read(self.partition, first_offset, next_offset))

    async def _newest_below(self, offset: int) -> int:
        return await self._writer.until_done(
            "open", lambda: self._store.newest_below(self._incarnation, self.partition, offset)
        )

    async def _fill(self, found: Found, opening: Opening, generation: int) -> None:
        """Write the holes between receipts again, as far as Kafka still has them."""
        if found.proof is not None and not found.proof.agrees:
            log.error("holes_left_open", partition=self.partition, holes=found.proof.holes)
        if opening.fill:
            # On record, so that whoever fills them next takes a later number, should this be cut short.
            await self._plan(self._batch(opening.start, opening.start, ()), generation)
        for first_offset, next_offset in opening.fill:
            lost_end = min(max(first_offset, found.log_start), next_offset)
            if lost_end > first_offset:
                await self._fill_one(self._lost(first_offset, lost_end), generation)
            if lost_end < next_offset:
                await self._remove(lost_end, next_offset, expected=False)
                records = await self._read(lost_end, next_offset)
                # The partition's time as it was then: what was in time must not be late now.
                newest_ms = await self._newest_below(lost_end)
                whole = replace(self._batch(lost_end, next_offset, records), newest_before_ms=newest_ms)
                for batch in split(whole, events_max=self._limits.batch_events, bytes_max=self._limits.batch_bytes):
                    await self._fill_one(batch, generation)

    async def _fill_one(self, batch: Batch, generation: int) -> None:
        # No plan: the group's offset lies beyond. A crash leaves the hole, and what landed in it goes when it is filled next.
        if self._generation != generation:
            raise AbandonedError
        assert self.seen is not None
        async with self._room.take(batch.nbytes):
            prepared = await self._writer.prepare(batch, self.seen)
            self._claim(prepared, await self._writer.write_again(prepared, began=self._began))
        self.newest_record_ms = max(self.newest_record_ms, prepared.newest_record_ms)
        metrics.WORKER_BATCHES.labels("filled").inc()

    async def _agree_on_partitions(self, start: int, *, planned: Plan | None, generation: int) -> None:
        """See that every partition of the topic works with the same number of them before this one decides who is at home.

        A batch planned under another number may hold ids whose home is here now, and a filter loaded before it lands would
        not know them. So each partition announces its number with an empty plan once nothing of it is open, and waits for the
        others.
        """
        announced = planned.partitions if planned is not None else 0
        while True:
            if announced != self._partitions:
                await self._plan(self._batch(start, start, ()), generation)
                announced = self._partitions
            others = [partition for partition in range(self._partitions) if partition != self.partition]
            plans = await self._plans(others)
            waiting = [number for number in others if number not in plans or plans[number].partitions != self._partitions]
            if not waiting:
                return
            if self._generation != generation:
                raise AbandonedError
            log.info("waiting_for_partitions", partition=self.partition, waiting=waiting, partitions=self._partitions)
            await asyncio.sleep(_SETTLED_POLL_S)
            # It may be this one that has not heard yet.
            incarnation, self._partitions = await self._broker.topic()
            if incarnation != self._incarnation:
                raise AbandonedError

    async def _plans(self, partitions: Sequence[int]) -> dict[int, Plan]:
        found = {}
        for partition, committed in (await self._broker.committed(partitions)).items() if partitions else ():
            plan = Plan.parse(committed.metadata)
            if plan is not None and plan.incarnation == self._incarnation:
                found[partition] = plan
        return found

    async def _load_filter(self, partitions: int, proved: int) -> None:
        if self.seen is not None and self._seen_until == (partitions, proved):
            return  # kept through a rebalance in which nobody else wrote here
        seen = SeenFilter(budget_bytes=self._limits.dedupe_bytes)
        await self._writer.until_done(
            "load", lambda: self._store.load_ids(seen, partition=self.partition, partitions=partitions)
        )
        self.seen, self._seen_until = seen, (partitions, proved)


__all__ = ["AbandonedError", "Limits", "PartitionLedger"]
