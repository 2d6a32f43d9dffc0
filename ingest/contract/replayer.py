"""Send the records of replays back to the topic, and return only when every in-sync replica has them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError

from ingest.contract.errors import BrokerUnavailable
from ingest.contract.incarnation import topic_incarnation
from ingest.contract.replay import ReplayRecord
from ingest.contract.topics import RECORD_BYTES_MAX, TOOL_EXECUTIONS


class Replayer:
    """A producer that is started with the first replay, and anew after Kafka was away.

    It is not idempotent: it may give a record up, and say so in time. What it sent twice, or half, counts once in any case,
    because ids, timestamps and first acceptance of replays are fixed.

    Args:
        kafka: bootstrap addresses.
        timeout_s: how long each call may take.
    """

    def __init__(self, kafka: str, *, timeout_s: float) -> None:
        self._kafka = kafka
        self._timeout_s: Final = timeout_s
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def topic(self) -> tuple[str, int]:
        """Return (id of the topic's present incarnation, number of its partitions).

        Raises:
            BrokerUnavailable: Kafka does not answer, or has no such topic.
        """
        async with self._connected() as producer:
            return await topic_incarnation(producer.client, TOOL_EXECUTIONS)

    async def send(self, records: Sequence[ReplayRecord]) -> None:
        """Send records; when it returns, Kafka has all of them.

        Raises:
            BrokerUnavailable: it may have some of them; sending all of them again is safe.
        """
        async with self._connected() as producer:
            sent = [
                await producer.send(TOOL_EXECUTIONS, one.value, key=one.key, partition=one.partition, headers=list(one.headers))
                for one in records
            ]
            await asyncio.gather(*sent)

    async def close(self) -> None:
        """Close the connections."""
        self._drop()
        await asyncio.gather(*self._closing)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[AIOKafkaProducer]:
        try:
            async with asyncio.timeout(self._timeout_s):
                yield await self._ready()
        except TimeoutError:
            self._drop()
            raise BrokerUnavailable(f"Kafka at {self._kafka} did not answer within {self._timeout_s:g} s") from None
        except KafkaConnectionError:
            self._drop()
            raise BrokerUnavailable(f"no Kafka answers at {self._kafka}") from None
        except (KafkaError, AssertionError, OSError) as error:
            # aiokafka asserts that it knows the partition; it does not while the topic is being made anew.
            self._drop()
            raise BrokerUnavailable(f"Kafka at {self._kafka}: {str(error) or repr(error)}") from None

    async def _ready(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._kafka,
                    client_id="toolledger-replay",
                    acks="all",
                    compression_type="lz4",
                    max_request_size=RECORD_BYTES_MAX,
                    request_timeout_ms=int(self._timeout_s * 1000),
                )
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    def _drop(self) -> None:
        """Give the producer up; what it holds expires within the timeout."""
        producer, self._producer = self._producer, None
        if producer is not None:
            task = asyncio.create_task(_stop(producer), name="replayer-stop")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


async def _stop(producer: Any) -> None:
    with contextlib.suppress(KafkaError):
        await producer.stop()
