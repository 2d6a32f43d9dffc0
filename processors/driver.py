"""The run driver: Faust's Kafka transport, changed to hand whole fetched runs to an agent as one item.

Stock Faust moves one record an item, about eleven thousand a second. Here the records of one partition that were fetched
together are one `Run`. The ledger owns commits and positions, so Faust's own periodic commit, its gap keeping and its seek to
committed offsets are switched off. Everything that reaches into faust-streaming 0.15 and aiokafka 0.14 is in this file.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol, TypeVar

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import OffsetResetStrategy
from aiokafka.consumer.group_coordinator import OffsetCommitRequest
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    IllegalGenerationError,
    KafkaError,
    LeaderNotAvailableError,
    NoError,
    NotCoordinatorForGroupError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    for_code,
)
from aiokafka.protocol.offset import OffsetRequest
from faust.transport.drivers import aiokafka as stock
from faust.types import TP

from ingest.contract.incarnation import topic_incarnation
from ingest.contract.logs import logger
from ingest.contract.topics import CONTROL
from processors.decode import Record
from processors.group_offsets import committed_offsets

log = logger(__name__)
T = TypeVar("T")

# A partition has at most this many runs on their way: one in work, one waiting. More would only be memory.
_RUNS_IN_FLIGHT: Final = 2
# While some partition is busy a fetch must not sleep through its becoming free.
_BUSY_FETCH_S: Final = 0.05
_COMMIT_PAUSE_S: Final = 0.1
_FINISH_S: Final = 5.0
# Offsets without records (marks of transactions, aborted records, what retention took) are proved after so long alone.
_HOLLOW_S: Final = 0.25
_READ_UNCOMMITTED: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Consecutive records of one partition that were fetched together.

    `first_offset` is where the run before ended, so that control records and holes lie inside; `generation` is the group
    generation it was fetched under. One without records covers offsets that hold none.
    """

    partition: int
    generation: int
    first_offset: int
    next_offset: int
    end_offset: int
    records: Sequence[Record]
    nbytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A committed offset with its metadata."""

    offset: int
    metadata: str


class Owner(Protocol):
    """Who decides where a partition starts (the ledger)."""

    def suspend(self) -> None:
        """A rebalance begins: plan nothing more under the generation that ends."""

    async def open(self, partition: int, generation: int) -> int | None:
        """Return the offset to fetch from, after recovery; None if the partition cannot be opened any more."""

    async def finish(self, timeout_s: float) -> None:
        """Plan nothing more, and give what is planned the time to be written."""


class RunThread(stock.AIOKafkaConsumerThread):  # type: ignore[misc]
    """The consumer's thread: heartbeats and fetches go on here whatever the worker's own loop does."""

    last_heartbeat: float = 0.0

    def _create_worker_consumer(self, transport: Any) -> Any:
        # Stock Faust reads uncommitted records unless it processes in transactions, and waits 1.5 s for a fetch.
        conf = self.app.conf
        self._assignor = RoundRobinPartitionAssignor
        return AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            bootstrap_servers=stock.server_list(transport.url, transport.default_port),
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_poll_records=conf.broker_max_poll_records,
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            fetch_max_wait_ms=500,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            metadata_max_age_ms=conf.consumer_metadata_max_age_ms,
        )

    async def on_start(self) -> None:
        await super().on_start()
        coordinator = self._consumer._coordinator
        heartbeat = coordinator._do_heartbeat

        async def noted() -> bool:
            alive: bool = await heartbeat()
            if alive:
                self.last_heartbeat = time.monotonic()
            return alive

        coordinator._do_heartbeat = noted

    def note_joined(self) -> None:
        """A completed join proves membership as a heartbeat does."""
        self.last_heartbeat = time.monotonic()

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        """Run in the thread's loop. Stock Faust queues such calls, and all would wait behind a fetch that waits for records."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.thread_loop))

    async def start_at(self, partition: TP, offset: int) -> bool:
        """Fetch a partition from an offset on; what was fetched from elsewhere is thrown away.

        Returns:
            False if the partition is not assigned any more: the group tells this thread first.
        """
        return await self._there(self._start_at(partition, offset))

    async def _start_at(self, partition: TP, offset: int) -> bool:
        consumer, key = self._ensure_consumer(), TopicPartition(partition.topic, partition.partition)
        if key not in consumer.assignment():
            return False
        consumer.seek(key, offset)
        return True

    async def log_starts(self, *partitions: TP) -> Mapping[TP, int]:
        """Return where each partition begins."""
        return await self._there(self._ensure_consumer().beginning_offsets(partitions))

    async def log_ends(self, *partitions: TP) -> Mapping[TP, int]:
        """Return where each partition ends, transactions that are still open included."""
        return await self._there(self._log_ends(partitions))

    async def _log_ends(self, partitions: Sequence[TP]) -> Mapping[TP, int]:
        # Stock end_offsets of a consumer that reads committed records stops at the first open transaction.
        client = self._ensure_consumer()._client
        await client._maybe_wait_metadata()
        by_leader: dict[int, dict[str, list[tuple[int, int]]]] = {}
        for tp in partitions:
            leader = client.cluster.leader_for_partition(TopicPartition(tp.topic, tp.partition))
            if leader is None or leader < 0:
                await client.force_metadata_update()
                raise LeaderNotAvailableError(f"{tp.topic}-{tp.partition} has no leader")
            by_leader.setdefault(leader, {}).setdefault(tp.topic, []).append((tp.partition, OffsetResetStrategy.LATEST))
        ends = {}
        for leader, asked in by_leader.items():
            answer = await client.send(leader, OffsetRequest(-1, _READ_UNCOMMITTED, list(asked.items())))
            for topic, found in answer.topics:
                for number, error_code, _, offset, *_ in found:
                    if error_code:
                        client.force_metadata_update()
                        raise for_code(error_code)(f"{topic}-{number}")
                    ends[TP(topic, number)] = int(offset)
        return ends

    async def committed(self, partitions: Set[TP]) -> Mapping[TP, Committed]:
        """Return the group's committed offsets with their metadata, of those partitions that have any."""
        return await self._there(self._committed(partitions))

    async def _committed(self, partitions: Set[TP]) -> Mapping[TP, Committed]:
        keys = [TopicPartition(tp.topic, tp.partition) for tp in partitions]
        offsets = await committed_offsets(self._ensure_consumer()._coordinator, keys)
        return {
            TP(key.topic, key.partition): Committed(offset=found.offset, metadata=found.metadata)
            for key, found in offsets.items()
        }

    async def plan(self, partition: TP, offset: int, metadata: str, generation: int) -> bool:
        """Commit an offset under exactly this generation, waiting for the broker's answer.

        Returns:
            False if the group has moved on; then nothing was committed.
        """
        return await self._there(self._plan(partition, offset, metadata, generation))

    async def barrier(self, generation: int) -> bool:
        """See that what the group reads of its offsets from now on is no older than this moment.

        A coordinator that has just taken over may answer with offsets as of before the last commits. One commit of our own, on
        a partition that nobody reads by the group, has it catch up; it is fenced as every commit is.

        Returns:
            False if the group has moved on.
        """
        return await self.plan(TP(CONTROL, 0), 0, "barrier", generation)

    async def _plan(self, partition: TP, offset: int, metadata: str, generation: int) -> bool:
        # The stock commit takes the generation at sending, which may be a newer one than the batch was fetched under.
        coordinator = self._ensure_consumer()._coordinator
        while True:
            await coordinator.ensure_coordinator_known()
            if coordinator.generation != generation:
                return False
            request = OffsetCommitRequest(
                coordinator.group_id,
                generation,
                coordinator.member_id,
                OffsetCommitRequest.DEFAULT_RETENTION_TIME,
                [(partition.topic, [(partition.partition, offset, metadata)])],
            )
            try:
                response = await coordinator._send_req(request)
            except KafkaError as error:
                # Sent or not, the answer is unknown; the same commit again changes nothing.
                log.warning("plan_unanswered", partition=partition.partition, error=repr(error))
                await asyncio.sleep(_COMMIT_PAUSE_S)
                continue
            error_type = for_code(response.topics[0][1][0][1])
            if error_type is NoError:
                return True
            if error_type in (UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError):
                self._rejoin(generation, error_type)
                return False
            if error_type is NotCoordinatorForGroupError or not error_type.retriable:
                coordinator.coordinator_dead()
            log.warning("plan_refused", partition=partition.partition, error=error_type.__name__)
            await asyncio.sleep(_COMMIT_PAUSE_S)

    def _rejoin(self, generation: int, error_type: type[KafkaError]) -> None:
        """Join the group anew, as the stock commit does.

        A coordinator that comes back may refuse one commit and know the member again at the next heartbeat: without a rebalance
        a partition that was given up would never be opened again.
        """
        coordinator = self._ensure_consumer()._coordinator
        if coordinator.generation != generation:
            return
        log.warning("group_joined_anew", generation=generation, error=error_type.__name__)
        if error_type is RebalanceInProgressError:
            coordinator.request_rejoin()
        else:
            coordinator.reset_generation()

    async def fetch(self, partitions: set[TP], wait_s: float) -> tuple[Mapping[TP, list[Any]], dict[TP, int]]:
        """Fetch from some partitions.

        Returns:
            Records by partition, and the position of each partition behind them. Both belong together: a position read at
            another moment could lie beyond records that nobody has seen yet.
        """
        return await self._there(self._fetch(partitions, wait_s))

    async def _fetch(self, partitions: set[TP], wait_s: float) -> tuple[Mapping[TP, list[Any]], dict[TP, int]]:
        consumer = self._ensure_consumer()
        records = await self._fetch_records(consumer, partitions, timeout=wait_s, max_records=consumer._max_poll_records)
        assignment = consumer._subscription.subscription.assignment
        positions = {}
        for tp in partitions:
            state = assignment.state_value(TopicPartition(tp.topic, tp.partition)) if assignment is not None else None
            if state is not None and state.has_valid_position:
                positions[tp] = int(state.position)
        return records, positions

    async def topic_id(self, topic: str) -> tuple[str, int]:
        """Return (id of the topic's present incarnation, number of its partitions)."""
        return await self._there(self._topic_id(topic))

    async def _topic_id(self, topic: str) -> tuple[str, int]:
        return await topic_incarnation(self._ensure_consumer()._client, topic)


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
