"""The worker's service: the ledgers of the partitions it owns, and their heartbeat into ClickHouse."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ingest.contract import metrics
from ingest.contract.control import ControlFollower
from ingest.contract.errors import LedgerInvariantBroken, TransportError
from ingest.contract.logs import logger
from processors import memory
from processors.alarm import AlarmLimits
from processors.broker import KafkaBroker
from processors.driver import RunConsumer
from processors.heartbeat import Heartbeat
from processors.ledger import AbandonedError, Limits, PartitionLedger
from processors.letter_watch import LetterWatch
from processors.room import Room
from processors.runs import Run
from processors.settings import WorkerSettings
from processors.sink import ClickHouseStore

log = logger(__name__)
T = TypeVar("T")


def now_ms() -> int:
    """The clock, epoch ms."""
    return time.time_ns() // 1_000_000


class WorkerService:
    """Owns the ledgers; the driver asks it where partitions start, the agent hands it runs.

    Args:
        settings: the worker's.
        broker, store: the adapters.
        consumer: gives the driver's consumer, which exists once the app runs.
        control: gives the project rules, followed from the control topic.
        reached: called at each numbered step of a batch (fault points of tests).
        crash: ends the worker.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        name: str,
        broker: KafkaBroker,
        store: ClickHouseStore,
        consumer: Callable[[], RunConsumer],
        control: ControlFollower,
        reached: Callable[[str], Awaitable[None]],
        crash: Callable[[Exception], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._broker, self._store, self._consumer = broker, store, consumer
        self._control = control
        self._reached = reached
        self._crash = crash
        self._work: set[asyncio.Task[None]] = set()
        self._ledgers: dict[int, PartitionLedger] = {}
        self._owned: set[int] = set()
        self._heartbeat = Heartbeat(name, broker=broker, store=store, skew_ms=settings.clock_skew_ms)
        self._incarnation = ""
        self._partitions = 0
        # Whether a run was in work since memory was last given back.
        self._worked = False
        self._redactor = settings.redactor()
        self._room = Room(settings.work_bytes)
        self._letters = LetterWatch(
            store,
            limits=AlarmLimits(run_max=settings.dead_letter_run_max, ratio_max=settings.dead_letter_ratio_max),
            stops=settings.dead_letter_stop,
        )
        # One thread: the work is bound by the interpreter, more of them would only interleave.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare")

    # What the driver asks.

    def suspend(self) -> None:
        """A rebalance begins."""
        for partition in self._owned:
            self._letters.closed(partition)
        self._owned.clear()
        for ledger in self._ledgers.values():
            ledger.suspend()

    async def open(self, partition: int, generation: int) -> int | None:
        """Open a partition; None if the next rebalance came first."""
        # Whether a project keeps payloads must be known before the first of them is written.
        await self._control.caught_up.wait()
        incarnation, partitions = await self._broker.incarnation()
        if incarnation != self._incarnation:
            self._ledgers.clear()
            self._incarnation = incarnation
        self._partitions = partitions
        ledger = self._ledgers.get(partition)
        if ledger is None:
            ledger = self._ledgers[partition] = self._new_ledger(partition)
        opened = ledger

        async def hold() -> None:
            await self._heartbeat.hold(partition, opened.held, incarnation=incarnation, partitions=partitions)

        self._letters.opened(partition)
        try:
            start = await ledger.open(generation, incarnation=incarnation, partitions=partitions)
            await ledger.until_done("hold", hold)
        except AbandonedError:
            return None
        if ledger.generation != generation:
            return None
        self._partitions = ledger.partitions
        self._heartbeat.forget(partition)
        self._owned.add(partition)
        return start

    async def finish(self, timeout_s: float) -> None:
        """Plan nothing more, and let batches that are planned already come to their receipt."""
        self.suspend()
        deadline = time.monotonic() + timeout_s
        for ledger in self._ledgers.values():
            await ledger.idle(max(0.0, deadline - time.monotonic()))

    # What the agent hands over.

    async def process(self, run: Run) -> None:
        """Write a run; one that belongs to an older generation is dropped, it comes again to whoever owns it now.

        Whoever waits for it may be cancelled: it goes on by itself, because what is planned is a promise. Given up, it returns.
        """
        work = asyncio.create_task(self._process(run), name=f"process-{run.partition}")
        self._work.add(work)
        work.add_done_callback(self._ended)
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            if not work.cancelled():
                raise

    async def give_up(self) -> None:
        """Leave what is not done yet, at the end: the next worker finds it planned and writes it."""
        for work in self._work:
            work.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    def _ended(self, work: asyncio.Task[None]) -> None:
        self._work.discard(work)
        if not work.cancelled():
            work.exception()  # said already, and by now nobody may wait for it

    async def _process(self, run: Run) -> None:
        try:
            await self._ledgers[run.partition].process(run)
        except AbandonedError:
            log.info("run_dropped", partition=run.partition, generation=run.generation, first_offset=run.first_offset)
        except Exception as error:
            # Going on could miscount. The process ends, and the next one starts from the receipts.
            log.critical("worker_stopped", partition=run.partition, exc_info=error)
            await self._crash(error)
            raise
        finally:
            self._worked = True
            self._consumer().done(run, more=not self._letters.stopped(run.partition))

    # Its own heartbeat.

    async def report_forever(self) -> None:
        """Report freshness of the owned partitions, at the interval of the settings, through any outage.

        Ends the worker when what was reported is gone.
        """
        while True:
            try:
                await self._report()
            except TransportError as error:
                log.warning("progress_not_reported", error=str(error))
            except LedgerInvariantBroken as error:
                log.critical("worker_stopped", exc_info=error)
                await self._crash(error)
                return
            if self._worked:
                self._worked = False
                await asyncio.to_thread(memory.trim)
            await asyncio.sleep(self._settings.progress_ms / 1000)

    async def _report(self) -> None:
        asked_ms = now_ms()
        owned = {partition: self._ledgers[partition] for partition in self._owned}
        if self._ledgers and self._consumer().ready():
            # What moved to another worker is known there.
            for partition, ledger in self._ledgers.items():
                if partition not in owned and not ledger.busy:
                    ledger.seen = None
        filters = [ledger.seen for ledger in owned.values() if ledger.seen is not None]
        metrics.DEDUPE_IDS.set(sum(seen.count for seen in filters))
        metrics.DEDUPE_BYTES.set(sum(seen.nbytes for seen in filters))
        reach_ms = max((seen.reach_ms for seen in filters), default=0)
        metrics.DEDUPE_REACH.set((asked_ms - reach_ms) / 1000 if reach_ms else self._settings.dedupe_horizon_ms / 1000)
        if not owned:
            return
        await self._heartbeat.beat(owned, incarnation=self._incarnation, partitions=self._partitions, now_ms=asked_ms)

    async def unready(self) -> list[str]:
        """Return what keeps the worker from working, nothing if it would work."""
        reasons = []
        if not self._consumer().ready():
            reasons.append("not every assigned partition is open yet")
        if not self._control.caught_up.is_set():
            reasons.append("the project rules of the control topic are not read yet")
        if not self._broker.in_touch():
            reasons.append("the consumer group has not heard from this worker within the session timeout")
        # A question may be answered while inserts are refused, so what the ledgers meet is told too.
        trouble: dict[str, list[int]] = {}
        for partition, ledger in sorted(self._ledgers.items()):
            if ledger.trouble:
                trouble.setdefault(ledger.trouble, []).append(partition)
        reasons += [f"partition {', '.join(map(str, of))} waits: {text}" for text, of in trouble.items()]
        reasons += self._letters.reasons()
        try:
            await self._store.ping()
        except TransportError as error:
            reasons.append(str(error))
        return reasons

    def warnings(self) -> list[str]:
        """Return what should be looked at, though the worker works."""
        return self._letters.warnings(sorted(self._owned))

    def close(self) -> None:
        """Give the thread back."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _new_ledger(self, partition: int) -> PartitionLedger:
        settings = self._settings
        return PartitionLedger(
            partition,
            broker=self._broker,
            store=self._store,
            limits=Limits(
                batch_events=settings.batch_events,
                batch_bytes=settings.batch_bytes,
                retry_ms_max=settings.retry_ms_max,
                dedupe_bytes=settings.dedupe_bytes // max(1, self._partitions),
                window_close_ms=settings.window_close_ms,
            ),
            stores_payload=lambda project: self._control.access.rules_of(project).store_payloads,
            purges=lambda: self._control.access.purges,
            redactor=self._redactor,
            in_thread=self._in_thread,
            reached=self._reached,
            room=self._room,
            now_ms=now_ms,
            admits=self._letters.admits,
        )

    def _in_thread(self, work: Callable[[], T], /) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)
