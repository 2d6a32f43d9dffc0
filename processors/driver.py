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
from processors.consumer_thread import RunThread
from processors.decode import Record
from processors.runs import Run

log = logger(__name__)

# A partition has at most this many runs on their way: one in work, one waiting. More would only be memory.
_RUNS_IN_FLIGHT: Final = 2
# While some partition is busy a fetch must not sleep through its becoming free.
_BUSY_FETCH_S: Final = 0.05
_FINISH_S: Final = 5.0
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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Partitions that were opened under the present generation -> the offset their next run begins with.
        self._next: dict[TP, int] = {}
        self._in_flight: dict[TP, int] = {}
        self._in_flight_bytes = 0
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
        assigned = {tp for tp in self.assignment() if tp.topic == self.topic}
        return bool(self._turn) and assigned <= self._next.keys()

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
        self._in_flight.clear()
        self._resting.clear()
        self._in_flight_bytes = 0
        self._hollow_since.clear()
        self.owner.suspend()

    async def _open(self, tp: TP, generation: int, turn: int) -> None:
        start = await self.owner.open(tp.partition, generation)
        if start is None or turn != self._turn:
            return
        if await self.thread.start_at(tp, start) and turn == self._turn:
            self._read_offset[tp] = None
            self._next[tp] = start
            self._freed.set()

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
        wanted = {tp for tp in active if self._in_flight.get(tp, 0) < _RUNS_IN_FLIGHT}
        if not wanted or self._in_flight_bytes >= self.ahead_bytes:
            self._freed.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._freed.wait()
            except TimeoutError:
                return {}
            return {}
        busy = len(wanted) < len(active)
        fetched, positions = await self.thread.fetch(
            wanted, _BUSY_FETCH_S if busy else _HOLLOW_S if self._hollow_since else timeout
        )
        generation = self.app.consumer_generation_id
        if turn != self._turn:
            return {}
        runs = {}
        for tp in wanted & self._next.keys():
            records = fetched.get(tp) or []
            next_offset = records[-1].offset + 1 if records else positions.get(tp, 0)
            if records or self._hollow(tp, next_offset):
                runs[tp] = [self._fold(tp, records, next_offset, generation)]
        return runs

    def _hollow(self, tp: TP, position: int) -> bool:
        """Tell whether a run without records is due, so that the proof reaches the log's end whatever stands there."""
        if position <= self._next[tp] or self._in_flight.get(tp, 0):
            self._hollow_since.pop(tp, None)
            return False
        return time.monotonic() - self._hollow_since.setdefault(tp, time.monotonic()) > _HOLLOW_S

    def _fold(self, tp: TP, records: list[Any], next_offset: int, generation: int) -> Run:
        self._hollow_since.pop(tp, None)
        nbytes = sum(len(record.value) for record in records if record.value is not None)
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
        self._in_flight_bytes += nbytes
        return run

    def done(self, run: Run, *, more: bool = True) -> None:
        """The agent has finished a run: there is room for another of its partition, unless it should have no more."""
        tp = TP(self.topic, run.partition)
        if self._in_flight.get(tp, 0) > 0 and run.generation == self.app.consumer_generation_id:
            if not more:
                self._resting.add(tp)
            self._in_flight[tp] -= 1
            self._in_flight_bytes -= run.nbytes
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


def transport(owner: Owner, topic: str, *, ahead_bytes: int) -> type[RunTransport]:
    """Return a transport whose consumer asks `owner` where to start, and holds about `ahead_bytes` of records at most."""
    consumer = type("LedgerConsumer", (RunConsumer,), {"owner": owner, "topic": topic, "ahead_bytes": ahead_bytes})
    return type("LedgerTransport", (RunTransport,), {"Consumer": consumer})
