"""Follow the control topic into memory, so that access works without ClickHouse and a revoked key stops within a second."""

import asyncio
import contextlib

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from ingest.contract.access import Access
from ingest.contract.logs import logger
from ingest.contract.topics import CONTROL

log = logger(__name__)
_RETRY_S = 1.0


class ControlFollower:
    """Reads the control topic from its start and goes on following it, through any outage of Kafka.

    `access` is always usable; `caught_up` is set once everything that was in the topic at the start has been read.
    """

    def __init__(self, kafka: str) -> None:
        self.access = Access()
        self.caught_up = asyncio.Event()
        self._kafka = kafka
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
        next_offset = 0
        while True:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._kafka,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=500,
            )
            try:
                await consumer.start()
                partition = TopicPartition(CONTROL, 0)
                consumer.assign([partition])
                consumer.seek(partition, next_offset)
                end_offset = (await consumer.end_offsets([partition]))[partition]
                while True:
                    if await consumer.position(partition) >= end_offset:
                        self.caught_up.set()
                    for records in (await consumer.getmany(timeout_ms=1000)).values():
                        for record in records:
                            self._apply(record.key, record.value, record.offset)
                            next_offset = record.offset + 1
            except (KafkaError, OSError) as error:
                log.warning("control_topic_lost", error=repr(error), retry_s=_RETRY_S)
            finally:
                await consumer.stop()
            await asyncio.sleep(_RETRY_S)

    def _apply(self, key: bytes | None, value: bytes | None, offset: int) -> None:
        try:
            self.access.apply(key, value)
        except ValueError as error:
            # A record that cannot be read must not take access down for everybody else.
            log.error("control_record_unreadable", offset=offset, error=repr(error))
