"""Kafka as the ledger's broker: the group's offsets through the driver's consumer, reads and sends by clients of their own."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from faust.types import TP

from ingest.contract.errors import BrokerUnavailable
from ingest.contract.logs import logger
from ingest.contract.topics import (
    DEAD_LETTERS,
    HEADER_FIRST_ACCEPTED_MS,
    HEADER_FORWARDED_AMONG,
    HEADER_PROJECT,
    HEADER_REPLAY_OF,
    LETTER_BYTES_MAX,
    RECORD_BYTES_MAX,
    TOOL_EXECUTIONS,
)
from processors.batch import Batch, Forward
from processors.consumer_thread import Committed
from processors.decode import DeadLetter, Record
from processors.driver import RunConsumer

log = logger(__name__)

_RETRY_S: Final = 0.5
_READ_S: Final = 1.0
# A read that gets nothing for so long is given up and begun again.
_SILENCE_S: Final = 30.0
# A batch is planned under what the topic was at most this long ago: a topic made anew, or grown, is noticed by then.
_TOPIC_AGE_S: Final = 0.2
# A message may quote a whole member; as a header its beginning will do, for the table has all of it.
_MESSAGE_CHARS_MAX: Final = 4_096


class KafkaBroker:
    """The adapter.

    Args:
        kafka: bootstrap addresses.
        consumer: gives the driver's consumer, which exists once the app runs.
        session_timeout_ms: a worker unheard of for longer may have lost its partitions.
    """

    def __init__(self, kafka: str, *, consumer: Callable[[], RunConsumer], session_timeout_ms: int) -> None:
        self._kafka = kafka
        self._consumer = consumer
        self._session_timeout_s = session_timeout_ms / 1000
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._topic, self._topic_at = ("", 0), float("-inf")
        self._asking = asyncio.Lock()

    async def close(self) -> None:
        """Close the producer."""
        if self._producer is not None:
            await self._producer.stop()

    def in_touch(self) -> bool:
        return time.monotonic() - self._consumer().thread.last_heartbeat < self._session_timeout_s

    async def incarnation(self) -> tuple[str, int]:
        """Return (id of the topic, number of its partitions), however long it takes to be told."""
        while True:
            try:
                return await self._consumer().thread.topic_id(TOOL_EXECUTIONS)
            except KafkaError as error:
                log.warning("topic_id_unknown", error=repr(error))
                await asyncio.sleep(_RETRY_S)

    async def topic(self) -> tuple[str, int]:
        async with self._asking:
            if time.monotonic() - self._topic_at > _TOPIC_AGE_S:
                self._topic = await self.incarnation()
                self._topic_at = time.monotonic()
            return self._topic

    async def barrier(self, generation: int) -> bool:
        return await self._consumer().thread.barrier(generation)

    async def committed(self, partitions: Sequence[int]) -> dict[int, Committed]:
        found = await self._consumer().thread.committed({TP(TOOL_EXECUTIONS, number) for number in partitions})
        return {tp.partition: committed for tp, committed in found.items()}

    async def plan(self, partition: int, offset: int, metadata: str, generation: int) -> bool:
        return await self._consumer().thread.plan(TP(TOOL_EXECUTIONS, partition), offset, metadata, generation)

    async def log_start(self, partition: int) -> int:
        tp = TP(TOOL_EXECUTIONS, partition)
        while True:
            try:
                return int((await self._consumer().thread.log_starts(tp))[tp])
            except KafkaError as error:
                log.warning("log_start_unknown", partition=partition, error=repr(error))
                await asyncio.sleep(_RETRY_S)

    async def log_ends(self, partitions: Sequence[int]) -> dict[int, int]:
        """Return where each partition ends, transactions that are still open included.

        Raises:
            BrokerUnavailable: nobody answered.
        """
        try:
            found = await self._consumer().thread.log_ends(*[TP(TOOL_EXECUTIONS, number) for number in partitions])
        except KafkaError as error:
            raise BrokerUnavailable(f"Kafka: {error!r}") from error
        return {tp.partition: offset for tp, offset in found.items()}

    async def read(self, partition: int, first_offset: int, next_offset: int) -> Sequence[Record]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._kafka,
            enable_auto_commit=False,
            # What retention took is skipped by hand: a log that ends too early must not be read again from its start.
            auto_offset_reset="none",
            isolation_level="read_committed",
            max_partition_fetch_bytes=RECORD_BYTES_MAX,
        )
        try:
            async with asyncio.timeout(_SILENCE_S):
                await consumer.start()
            return await _read(consumer, TopicPartition(TOOL_EXECUTIONS, partition), first_offset, next_offset)
        except TimeoutError as error:
            raise BrokerUnavailable(f"Kafka: no record within {_SILENCE_S:g} s") from error
        except KafkaError as error:
            raise BrokerUnavailable(f"Kafka: {error!r}") from error
        finally:
            await consumer.stop()

    async def forward(self, forwards: Sequence[Forward], letters: Sequence[DeadLetter], origin: Batch) -> dict[int, int]:
        try:
            producer = await self._ready_producer()
            sent = [
                await producer.send(
                    TOOL_EXECUTIONS,
                    item.value,
                    key=item.key,
                    partition=item.partition,
                    headers=_journey(item, origin),
                )
                for item in forwards
            ]
            reached: dict[int, int] = {}
            for where in await asyncio.gather(*sent):
                reached[where.partition] = max(reached.get(where.partition, 0), where.offset + 1)
            left = letters
            while left:
                left = await self._copy(left, origin)
            return reached
        except KafkaError as error:
            await self._drop_producer()
            raise BrokerUnavailable(f"Kafka: {_said(error)}") from error

    async def _copy(self, letters: Sequence[DeadLetter], origin: Batch) -> list[DeadLetter]:
        """Send copies of dead letters; return those to be sent again.

        A copy that is too large for its topic is given up, for no later try would do better: the table is the truth.
        """
        producer = await self._ready_producer()
        answers: list[asyncio.Future[object] | KafkaError] = []
        for letter in letters:
            headers = _origin(letter, origin)
            try:
                answers.append(await producer.send(DEAD_LETTERS, letter.payload, key=letter.key or None, headers=headers))
            except MessageSizeTooLargeError as error:
                answers.append(error)
        refused, failed = [], []
        failure: KafkaError | None = None
        for letter, answer in zip(letters, answers, strict=True):
            try:
                if isinstance(answer, KafkaError):
                    raise answer
                await answer
            except MessageSizeTooLargeError:
                refused.append(letter)
            except KafkaError as error:
                failure = error
                failed.append(letter)
        if failure is not None and not refused:
            raise failure
        for letter in refused:
            log.warning(
                "dead_letter_not_copied",
                partition=origin.partition,
                offset=letter.offset,
                index=letter.index,
                size_bytes=len(letter.payload),
                action="it is in the table; `toolledger topics` makes room for such copies too",
            )
        if refused:
            # The number of what was refused is missing in this producer's sequence, so that nothing behind it is taken.
            await self._drop_producer()
        return failed

    async def _ready_producer(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._kafka,
                    acks="all",
                    enable_idempotence=True,
                    compression_type="lz4",
                    max_request_size=LETTER_BYTES_MAX,
                )
                await producer.start()
                self._producer = producer
            return self._producer

    async def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                await producer.stop()
            except KafkaError as error:
                log.warning("producer_not_stopped", error=repr(error))


async def _read(consumer: AIOKafkaConsumer, tp: TopicPartition, first_offset: int, next_offset: int) -> list[Record]:
    consumer.assign([tp])
    async with asyncio.timeout(_SILENCE_S):
        start, end = (await consumer.beginning_offsets([tp]))[tp], (await consumer.end_offsets([tp]))[tp]
    if end < next_offset:
        # Right after a broker's start its end may lie behind; if it stays there, acknowledged records are gone.
        raise BrokerUnavailable(f"Kafka: {tp.topic}-{tp.partition} ends at {end}, and was read up to {next_offset} before")
    consumer.seek(tp, max(first_offset, start))
    records: list[Record] = []
    while True:
        async with asyncio.timeout(_SILENCE_S):
            reached = position = await consumer.position(tp)
            while position < next_offset and position == reached:
                for found in (await consumer.getmany(tp, timeout_ms=int(_READ_S * 1000))).values():
                    records.extend(
                        Record(offset=r.offset, timestamp_ms=r.timestamp, key=r.key, value=r.value, headers=r.headers)
                        for r in found
                        if r.offset < next_offset
                    )
                position = await consumer.position(tp)
        if position >= next_offset:
            return records


def _said(error: KafkaError) -> str:
    """Say what keeps a record out; where it is a limit, what to do, for no later try will do better."""
    if isinstance(error, MessageSizeTooLargeError):
        return f"a record is larger than it takes: raise max.message.bytes of {TOOL_EXECUTIONS} to {RECORD_BYTES_MAX}"
    return repr(error)


def _journey(item: Forward, origin: Batch) -> list[tuple[str, bytes]]:
    headers = [
        (HEADER_PROJECT, item.project_id.encode()),
        (HEADER_FIRST_ACCEPTED_MS, b"%d" % item.first_accepted_ms),
        (HEADER_FORWARDED_AMONG, b"%d" % origin.partitions),
    ]
    return [*headers, (HEADER_REPLAY_OF, item.replay_of.encode())] if item.replay_of else headers


def _origin(letter: DeadLetter, batch: Batch) -> list[tuple[str, bytes]]:
    said = {
        "reason": letter.reason,
        "message": letter.message[:_MESSAGE_CHARS_MAX],
        "topic": TOOL_EXECUTIONS,
        "partition": str(batch.partition),
        "offset": str(letter.offset),
        "index": str(letter.index),
        HEADER_PROJECT: letter.project_id,
    }
    return [(name, value.encode(errors="replace")) for name, value in said.items()]
