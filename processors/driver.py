"""The run driver: Faust's Kafka transport, changed to hand whole fetched runs to an agent as one item.

Stock Faust moves one record an item, about eleven thousand a second. Here the records of one partition that were fetched
together are one `Run`. The ledger owns commits and positions, so Faust's own periodic commit, its gap keeping and its seek to
committed offsets are switched off. What reaches into faust-streaming 0.15 and aiokafka 0.14 is here and in `consumer_thread`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar, Final, Protocol

import faust
from faust.transport.drivers import aiokafka as stock
from faust.types import TP

from ingest.contract.logs import logger
from processors.consumer_thread import Fetched, RunThread
from processors.decode import Record
from processors.gathering import Gathering, wanted_of
from processors.runs import Run

log = logger(__name__)

# A partition has at most this many runs on their way: one in work, one waiting. More would only be memory.
_RUNS_IN_FLIGHT: Final = 2
# While some partition is busy a fetch must not sleep through its becoming free, nor what is gathered through others being done.
_BUSY_FETCH_S: Final = 0.05
_FINISH_S: Final = 5.0
# What aiokafka has fetched of a partition is one answer of the broker; it asks for the next one only when that is taken.
_DRAIN_S: Final = 0.05
# As much of one partition is a full run. More would cost the store less an event, and more memory.
_RUN_BYTES: Final = 6 * 1024 * 1024
# Offsets without records (marks of transactions, aborted records, what retention took) are proved after so long alone.
_HOLLOW_S: Final = 0.25


class Owner(Protocol):
    """Who decides where a partition starts (the ledger)."""

    def suspend(self) -> None:
        """A rebalance begins: plan nothing more under the generation that ends."""

    async def open(self, partition: int, generation: int) -> int | None:
        """Return the offset to fetch from, after recovery; None if the partition cannot be opened any more."""

    async def finish(self, timeout_s: float) -> None:
        """Plan nothing more, and give what is planned the time to be written."""


class RunConsumer(stock.Consumer):  # type: ignore[misc]
    """Faust's consumer with runs for messages and the ledger for positions."""

    owner: ClassVar[Owner]
    topic: ClassVar[str]
    ahead_bytes: ClassVar[int]
    interval_s: ClassVar[float]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Partitions that were opened under the present generation -> the offset their next run begins with.
        self._next: dict[TP, int] = {}
        # Fetched and not a run yet, of the same partitions.
        self._gathered: dict[TP, Gathering] = {}
        self._in_flight: dict[TP, int] = {}
        # Gathered and in flight.
        self._held_bytes = 0
        # Since when nothing but offsets without records lies beyond what was handed over.
        self._hollow_since: dict[TP, float] = {}
        # Nothing more is fetched of these until the next rebalance.
        self._resting: set[TP] = set()
        self._freed = asyncio.Event()
        self._opening: set[asyncio.Task[None]] = set()
        # Told apart by rebalances, not generations: a member may be assigned twice under one.
        self._turn = 0

    def _new_consumer_thread(self) -> RunThread:
        return RunThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def thread(self) -> RunThread:
        """The consumer's thread, typed."""
        thread: RunThread = self._thread
        return thread

    def ready(self) -> bool:
        """Tell whether every assigned partition has been opened."""
        if not self._turn:
            # Before the first rebalance there may be no consumer yet that could be asked.
            return False
        assigned = {tp for tp in self.assignment() if tp.topic == self.topic}
        return assigned <= self._next.keys()

    # Positions: the ledger's, not the group's.

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self._forget()
        await super().on_partitions_revoked(revoked)

    async def perform_seek(self) -> None:
        """Called by Faust once a rebalance is through: open every partition, each in its own time."""
        self._forget()
        self.thread.note_joined()
        generation = self.app.consumer_generation_id
        for tp in self.assignment():
            if tp.topic == self.topic:
                task = asyncio.create_task(self._open(tp, generation, self._turn), name=f"open-{tp.partition}")
                self._opening.add(task)
                task.add_done_callback(self._opened)

    async def wait_empty(self) -> None:
        """Called by Faust at a rebalance and at the end: what is planned is better finished here than recovered elsewhere."""
        await self.owner.finish(_FINISH_S)

    def _forget(self) -> None:
        self._turn += 1
        self._next.clear()
        self._gathered.clear()
        self._in_flight.clear()
        self._resting.clear()
        self._held_bytes = 0
        self._hollow_since.clear()
        self.owner.suspend()

    async def _open(self, tp: TP, generation: int, turn: int) -> None:
        start = await self.owner.open(tp.partition, generation)
        if start is None or turn != self._turn:
            return
        if await self.thread.start_at(tp, start) and turn == self._turn:
            self._read_offset[tp] = None
            self._next[tp] = start
            self._gathered[tp] = Gathering(interval_s=self.interval_s, bytes_max=_RUN_BYTES)
            self._freed.set()

    async def give_up(self) -> None:
        """Open nothing more, at the end."""
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("partition_not_opened", task=task.get_name(), exc_info=error)
            self._opening.add(asyncio.ensure_future(self.app.crash(error)))

    # Fetching: whole runs, bounded in flight.

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109
        """Give runs to the agent, none while a rebalance is on.

        Stock Faust seeks where the flow was stopped meanwhile. Here that would open the partitions of the generation that ends,
        beside whoever owns them next.
        """
        fetched, _ = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        for tp, run in self.scheduler.iterate(fetched or {}):
            if self.should_stop or not self.flow_active or generation != self.app.consumer_generation_id:
                return
            yield tp, self._to_message(tp, run)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Mapping[TP, list[Any]]:  # noqa: ASYNC109, ARG002
        turn = self._turn
        active = self._next.keys() - self._resting
        free = {tp for tp in active if self._in_flight.get(tp, 0) < _RUNS_IN_FLIGHT}
        wanted = wanted_of({tp: self._gathered[tp] for tp in free}, room_bytes=self.ahead_bytes - self._held_bytes)
        wait_s = self._until_due_s(free, timeout)
        if not wanted or all(self._gathered[tp].rests(time.monotonic()) for tp in wanted):
            # Nothing may come in, or nothing that would be due before the rest of it is there.
            await self._freed_within(min(wait_s, _DRAIN_S) if wanted else wait_s)
            wait_s = 0.0
        elif len(free) < len(active) or any(self._gathered[tp].fills for tp in free):
            wait_s = min(wait_s, _BUSY_FETCH_S)
        elif self._hollow_since:
            wait_s = min(wait_s, _HOLLOW_S)
        fetched = await self.thread.fetch(wanted, wait_s) if wanted and turn == self._turn else Fetched()
        generation = self.app.consumer_generation_id
        if turn != self._turn:
            return {}
        for tp in fetched.records.keys() | fetched.positions.keys():
            records = fetched.records.get(tp, ())
            self._held_bytes += self._gathered[tp].add(records, time.monotonic(), behind=tp in fetched.behind)
        runs = {}
        for tp in sorted(free, key=lambda tp: -self._gathered[tp].nbytes):
            if self._gathered[tp].ready(time.monotonic(), idle=not any(self._in_flight.values())):
                runs[tp] = [self._fold(tp, generation)]
            elif not len(self._gathered[tp]) and self._hollow(tp, fetched.positions.get(tp, 0)):
                runs[tp] = [self._fold(tp, generation, hollow_until=fetched.positions[tp])]
        return runs

    def _until_due_s(self, free: set[TP], timeout_s: float) -> float:
        """Return how long it is until something gathered is due, at most the timeout."""
        due_s = min((self._gathered[tp].due_s for tp in free if len(self._gathered[tp])), default=None)
        return timeout_s if due_s is None else min(timeout_s, max(0.0, due_s - time.monotonic()))

    async def _freed_within(self, wait_s: float) -> None:
        """Wait until a run is done or a partition opened, at most so long."""
        self._freed.clear()
        try:
            async with asyncio.timeout(wait_s):
                await self._freed.wait()
        except TimeoutError:
            return

    def _hollow(self, tp: TP, position: int) -> bool:
        """Tell whether a run without records is due, so that the proof reaches the log's end whatever stands there."""
        if position <= self._next[tp] or self._in_flight.get(tp, 0):
            self._hollow_since.pop(tp, None)
            return False
        return time.monotonic() - self._hollow_since.setdefault(tp, time.monotonic()) > _HOLLOW_S

    def _fold(self, tp: TP, generation: int, *, hollow_until: int | None = None) -> Run:
        """Make what is gathered a run; with nothing gathered, one of offsets that hold no records."""
        self._hollow_since.pop(tp, None)
        records, nbytes = (
            self._gathered[tp].take(time.monotonic(), sharers=len(self._next)) if hollow_until is None else ([], 0)
        )
        next_offset = hollow_until or records[-1].offset + 1
        run = Run(
            partition=tp.partition,
            generation=generation,
            first_offset=self._next[tp],
            next_offset=next_offset,
            end_offset=self.highwater(tp) or next_offset,
            records=[
                Record(offset=r.offset, timestamp_ms=r.timestamp, key=r.key, value=r.value, headers=r.headers) for r in records
            ],
            nbytes=nbytes,
        )
        self._next[tp] = next_offset
        self._in_flight[tp] = self._in_flight.get(tp, 0) + 1
        return run

    def done(self, run: Run, *, more: bool = True) -> None:
        """The agent has finished a run: there is room for another of its partition, unless it should have no more."""
        tp = TP(self.topic, run.partition)
        if self._in_flight.get(tp, 0) > 0 and run.generation == self.app.consumer_generation_id:
            if run.records:
                self._gathered[tp].written(time.monotonic())
            if not more:
                self._resting.add(tp)
            self._in_flight[tp] -= 1
            self._held_bytes -= run.nbytes
            self._freed.set()

    def _to_message(self, tp: TP, record: Run) -> Any:
        return stock.ConsumerMessage(
            tp.topic,
            tp.partition,
            record.first_offset,
            record.records[-1].timestamp_ms / 1000 if record.records else 0.0,
            1,
            None,
            None,
            record,
            None,
            None,
            None,
            tp,
            generation_id=record.generation,
        )

    # Commits: the ledger's, so that nothing else may move the group's offsets.

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: ARG002
        return False

    def ack(self, message: Any) -> bool:
        if message.acked:
            return False
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Gaps lie inside runs; there is nothing to keep."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Stock Faust complains where it sees no commits; progress is the ledger's to report."""


class RunTransport(stock.Transport):  # type: ignore[misc]
    """Transport to be set on a Faust app."""

    Consumer = RunConsumer


class RunSchema(faust.Schema):  # type: ignore[misc]
    """Hands a run through as it is."""

    def loads_key(self, app: Any, message: Any, **_: Any) -> Any:  # noqa: ARG002
        return None

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:  # noqa: ARG002
        return message.value


def transport(owner: Owner, topic: str, *, ahead_bytes: int, interval_s: float) -> type[RunTransport]:
    """Return a transport for one topic.

    Args:
        owner: whom the consumer asks where to start.
        ahead_bytes: about so much of records is held at most.
        interval_s: between the beginnings of two runs of a partition, where there is no backlog; at least.
    """
    members = {"owner": owner, "topic": topic, "ahead_bytes": ahead_bytes, "interval_s": interval_s}
    consumer = type("LedgerConsumer", (RunConsumer,), members)
    return type("LedgerTransport", (RunTransport,), {"Consumer": consumer})
