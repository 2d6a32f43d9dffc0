"""The driver's side towards Kafka: a thread with a loop of its own, for the group's heartbeats and all calls to brokers.

What the ledger needs and stock Faust has not: commits with metadata under a given generation, positions that belong to what was
fetched, log ends with open transactions, the topic's id. Reaches into faust-streaming 0.15 and aiokafka 0.14, as `driver` does.
"""

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

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
from processors.group_offsets import committed_offsets

log = logger(__name__)
T = TypeVar("T")

_COMMIT_PAUSE_S: Final = 0.1
_READ_UNCOMMITTED: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A committed offset with its metadata."""

    offset: int
    metadata: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What one fetch brought.

    Records and positions belong together: a position read at another moment could lie beyond records that nobody has seen yet.

    Args:
        records: by partition, of those that have any.
        positions: of each partition, behind its records.
        behind: partitions whose log holds more than that, as of the broker's last answer.
    """

    records: Mapping[TP, list[Any]] = field(default_factory=dict)
    positions: Mapping[TP, int] = field(default_factory=dict)
    behind: Set[TP] = frozenset()


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

    async def on_thread_stop(self) -> None:
        try:
            await super().on_thread_stop()
        except KafkaError as error:
            # A fault that ended its fetching shows once more here; whoever waits for this thread would wait for ever.
            log.warning("consumer_not_closed", error=repr(error))

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

    async def fetch(self, partitions: set[TP], wait_s: float) -> Fetched:
        """Fetch from some partitions, at least one."""
        return await self._there(self._fetch(partitions, wait_s))

    async def _fetch(self, partitions: set[TP], wait_s: float) -> Fetched:
        consumer = self._ensure_consumer()
        if consumer._fetcher.error_future.done() and not consumer._closed:
            # aiokafka goes on as if there were no records, for ever: to end is to be started again.
            raise KafkaError("the consumer's own fetching has ended by a fault")
        records = await self._fetch_records(consumer, partitions, timeout=wait_s, max_records=consumer._max_poll_records)
        assignment = consumer._subscription.subscription.assignment
        positions, behind = {}, set()
        for tp in partitions:
            state = assignment.state_value(TopicPartition(tp.topic, tp.partition)) if assignment is not None else None
            if state is not None and state.has_valid_position:
                positions[tp] = int(state.position)
                # An open transaction keeps what is behind it from everybody.
                if state.lso is not None and state.position < state.lso:
                    behind.add(tp)
        return Fetched(records=records, positions=positions, behind=behind)

    async def topic_id(self, topic: str) -> tuple[str, int]:
        """Return (id of the topic's present incarnation, number of its partitions)."""
        return await self._there(self._topic_id(topic))

    async def _topic_id(self, topic: str) -> tuple[str, int]:
        return await topic_incarnation(self._ensure_consumer()._client, topic)
