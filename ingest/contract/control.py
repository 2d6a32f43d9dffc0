"""Follow the control topic into memory, so that access works without ClickHouse and a revoked key stops within a second."""

import asyncio
import contextlib
import time

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from ingest.contract.access import Access
from ingest.contract.logs import logger
from ingest.contract.topics import CONTROL

log = logger(__name__)
_RETRY_S = 1.0
# How often the topic's end is asked for: a consumer whose own fetching has ended by a fault says nothing, for ever.
_LOOK_S = 5.0


class ControlFollower:
    """Reads the control topic from its start and goes on following it, through any outage of Kafka.

    `access` is always usable; `caught_up` is set once everything that was in the topic at the start has been read.
    """

    def __init__(self, kafka: str) -> None:
        self.access = Access()
        self.caught_up = asyncio.Event()
        self._kafka = kafka
        self._next_offset = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow, in the running loop."""
        self._task = asyncio.create_task(self._run(), name="control-follower")

    async def stop(self) -> None:
        """Stop following; what was read stays."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._kafka,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=500,
            )
            try:
                await consumer.start()
                await self._follow(consumer)
            except (KafkaError, OSError) as error:
                log.warning("control_topic_lost", error=repr(error), retry_s=_RETRY_S)
            except Exception as error:
                # Of a library: without keys nobody is let in, whatever went wrong.
                log.exception("control_topic_lost", error=repr(error), retry_s=_RETRY_S)
            finally:
                await self._close(consumer)
            await asyncio.sleep(_RETRY_S)

    async def _close(self, consumer: AIOKafkaConsumer) -> None:
        try:
            await consumer.stop()
        except Exception as error:
            # A fault that ended its fetching shows once more; what we were told meanwhile, to stop even, must not go under.
            log.warning("consumer_not_closed", error=repr(error))

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        partition = TopicPartition(CONTROL, 0)
        consumer.assign([partition])
        consumer.seek(partition, self._next_offset)
        end_offset = (await consumer.end_offsets([partition]))[partition]
        looked_at, position_then = time.monotonic(), -1
        while True:
            position = await consumer.position(partition)
            if position >= end_offset:
                self.caught_up.set()
            if time.monotonic() - looked_at > _LOOK_S:
                if position_then == position < end_offset:
                    raise KafkaError(f"nothing is heard although the topic goes on from offset {position} to {end_offset}")
                end_offset = (await consumer.end_offsets([partition]))[partition]
                looked_at, position_then = time.monotonic(), position
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                for record in records:
                    self._apply(record.key, record.value, record.offset)
                    self._next_offset = record.offset + 1

    def _apply(self, key: bytes | None, value: bytes | None, offset: int) -> None:
        try:
            self.access.apply(key, value)
        except ValueError as error:
            # A record that cannot be read must not take access down for everybody else.
            log.error("control_record_unreadable", offset=offset, error=repr(error))
