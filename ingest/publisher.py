"""Send records to Kafka and return only when every in-sync replica has them; survive any outage without growing.

```
            connected                      a request could not be sent in time, or the producer is beyond repair
connecting ───────────> connected ───────────────────────────────────────────────────────────────────┐
    ^                                                                                                 │
    └──────────────────────── the producer is discarded with all it held ────────────────────────────┘
```
aiokafka's idempotent producer never gives a record up, so what it holds of requests that were already answered with 503 would
pile up and be sent much later. Hence it is discarded, and a fresh one is made. Every event has its id by then, so that sending
a record again, which happens when its acknowledgement was lost, counts nothing twice.
"""

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError, MessageSizeTooLargeError

from ingest.contract.errors import BrokerUnavailable
from ingest.contract.logs import logger
from ingest.contract.metrics import INGEST_KAFKA_CONNECTED, INGEST_PUBLISH_SECONDS
from ingest.contract.topics import RECORD_BYTES_MAX, TOOL_EXECUTIONS
from ingest.packing import Record
from ingest.settings import IngestSettings

log = logger(__name__)

_RECONNECT_S: Final = 0.5
# Between two tries of one request; a broker that refuses outright must not be asked in a tight loop.
_RETRY_S: Final = 0.1
_CLOSE_TIMEOUT_S: Final = 5.0
Headers = list[tuple[str, bytes]]


class Publisher:
    """One idempotent producer (`acks=all`), replaced whenever it cannot go on.

    Guarantee: when `publish` returns, all its records are acknowledged by all in-sync replicas. When it raises, some of them
    may be in Kafka as well.
    """

    def __init__(self, settings: IngestSettings, *, topic: str = TOOL_EXECUTIONS) -> None:
        self._settings = settings
        self._topic = topic
        self._producer: AIOKafkaProducer | None = None
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        self._reason: str | None = "not connected to Kafka yet"
        self._away_since = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to connect, in the running loop; connecting is tried until `stop`."""
        self._spawn(self._keep_connected(), name="publisher")

    async def stop(self) -> None:
        """Send what is still held, within the publish timeout, and close."""
        producer, self._producer = self._producer, None
        self._connected.clear()
        self._reason = "stopping"
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if producer is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(producer.flush(), self._settings.ingest_publish_timeout_s)
            await self._discard(producer)

    @property
    def reason(self) -> str | None:
        """Why nothing can be published now; None when it would work."""
        return self._reason

    async def partitions(self, *, deadline: float) -> int:
        """Return how many partitions the topic has, as soon as Kafka is connected.

        Args:
            deadline: on the loop's clock.

        Raises:
            BrokerUnavailable: not connected by then; at once where Kafka has been away for longer than the publish timeout.
        """
        while True:
            producer = self._producer
            if producer is not None:
                if count := _partitions(producer, self._topic):
                    return count
                self._retire(producer, f"the topic {self._topic} is missing")
            away_s = time.monotonic() - self._away_since
            if away_s > self._settings.ingest_publish_timeout_s:
                raise BrokerUnavailable(f"Kafka is away: {self._reason}")
            try:
                async with asyncio.timeout_at(deadline):
                    await self._connected.wait()
            except TimeoutError:
                raise BrokerUnavailable(f"Kafka is away: {self._reason}") from None

    async def publish(self, records: Sequence[Record], headers: Headers, *, deadline: float) -> None:
        """Send records, each to its own partition, and wait for all acknowledgements.

        Args:
            records: in the order in which those of one partition must stay.
            headers: of each record.
            deadline: on the loop's clock.

        Raises:
            BrokerUnavailable: not all of them were acknowledged by the deadline.
        """
        began = time.monotonic()
        left = list(records)
        failure = "no acknowledgement in time"
        while True:
            await self.partitions(deadline=deadline)
            producer = self._producer
            if producer is None:
                continue
            try:
                async with asyncio.timeout_at(deadline):
                    error = await self._send(producer, left, headers)
                    if error is None:
                        INGEST_PUBLISH_SECONDS.observe(time.monotonic() - began)
                        return
                    failure = error
                    self._retire(producer, failure)
                    await asyncio.sleep(_RETRY_S)
            except TimeoutError:
                self._retire(producer, failure)
                waited_s = time.monotonic() - began
                raise BrokerUnavailable(f"Kafka did not acknowledge within {waited_s:.1f} s: {failure}") from None

    async def _send(self, producer: AIOKafkaProducer, left: list[Record], headers: Headers) -> str | None:
        """Send records once; take those acknowledged out of `left`. Return what failed: the producer is spent then."""
        futures: list[asyncio.Future[object]] = []
        # Text, because an exception kept here would keep this frame, and the records with it, until a collection.
        failure: str | None = None
        try:
            for record in left:
                future = await producer.send(
                    self._topic, record.value, key=record.key, partition=record.partition, headers=headers
                )
                # Where the deadline ends this early, nobody else asks how it fared.
                future.add_done_callback(_settle)
                futures.append(future)
        except MessageSizeTooLargeError:
            raise
        except (KafkaError, AssertionError) as error:
            # aiokafka asserts that it knows the partition; it does not where the topic was made again with fewer of them.
            failure = repr(error)
        acknowledged = []
        for future in futures:
            try:
                await future
                acknowledged.append(True)
            except KafkaError as error:
                failure = repr(error)
                acknowledged.append(False)
        left[:] = [record for place, record in enumerate(left) if not (place < len(acknowledged) and acknowledged[place])]
        return failure

    def _retire(self, producer: AIOKafkaProducer, reason: str) -> None:
        """Give a producer up, with all that it holds; a fresh one is connected in the background."""
        if self._producer is producer:
            self._set_away(reason)
            self._producer = None
            self._connected.clear()
            self._lost.set()
            self._spawn(self._discard(producer), name="publisher-discard")

    async def _keep_connected(self) -> None:
        while True:
            try:
                producer = await self._connect()
            except (BrokerUnavailable, KafkaError, OSError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
                if reason != self._reason:
                    log.warning("kafka_connect_failed", error=reason, retry_s=_RECONNECT_S)
                self._reason = reason
                await asyncio.sleep(_RECONNECT_S)
                continue
            self._lost.clear()
            self._producer = producer
            self._reason = None
            self._connected.set()
            INGEST_KAFKA_CONNECTED.set(1)
            log.info("kafka_connected", topic=self._topic, partitions=_partitions(producer, self._topic))
            probe = asyncio.create_task(self._probe(producer), name="publisher-probe")
            try:
                await self._lost.wait()
            finally:
                probe.cancel()

    async def _connect(self) -> AIOKafkaProducer:
        settings = self._settings
        producer = AIOKafkaProducer(
            bootstrap_servers=settings.kafka,
            client_id="toolledger-ingest",
            acks="all",
            enable_idempotence=True,
            compression_type=None if settings.kafka_compression == "none" else settings.kafka_compression,
            linger_ms=settings.kafka_linger_ms,
            max_batch_size=settings.kafka_batch_bytes,
            max_request_size=RECORD_BYTES_MAX,
            request_timeout_ms=int(settings.kafka_request_timeout_s * 1000),
            # Added partitions are seen by the probe; this is only the client's own upper bound.
            metadata_max_age_ms=60_000,
        )
        try:
            async with asyncio.timeout(settings.kafka_connect_timeout_s):
                await producer.start()
                # Asking for all topics creates none; asking for one by name may, with a broker's defaults.
                metadata = await producer.client.fetch_all_metadata()
                if not metadata.partitions_for_topic(self._topic):
                    raise BrokerUnavailable(f"the topic {self._topic} is missing; run `toolledger topics`")
                await producer.partitions_for(self._topic)
        except BaseException:
            await self._discard(producer)
            raise
        return producer

    async def _probe(self, producer: AIOKafkaProducer) -> None:
        """Ask for metadata from time to time: sees outages while idle, and added partitions."""
        while True:
            await asyncio.sleep(self._settings.kafka_probe_s)
            try:
                async with asyncio.timeout(self._settings.kafka_connect_timeout_s):
                    answered = bool(await producer.client.force_metadata_update())
            except (TimeoutError, KafkaError):
                answered = False
            if not answered:
                self._set_away("Kafka does not answer")
            elif not _partitions(producer, self._topic):
                self._retire(producer, f"the topic {self._topic} is missing")
            elif self._reason is not None:
                self._reason = None
                INGEST_KAFKA_CONNECTED.set(1)
                log.info("kafka_answered_again")

    def _set_away(self, reason: str) -> None:
        if self._reason is None:
            self._away_since = time.monotonic()
            INGEST_KAFKA_CONNECTED.set(0)
            log.warning("kafka_lost", reason=reason)
        self._reason = reason

    async def _discard(self, producer: AIOKafkaProducer) -> None:
        """Close a producer at once: whoever still waits for it is told, and nothing it holds is sent any more.

        Its own `stop` flushes first, which never ends while Kafka is away.
        """
        held = producer._message_accumulator
        # Requests that end from now on take their batches out a second time, which a plain set does not forgive.
        held._pending_batches = _Forgiving(held._pending_batches)
        batches = [*held._pending_batches, *(batch for waiting in held._batches.values() for batch in waiting)]
        held.fail_all(KafkaConnectionError("the producer was given up"))
        for future in (
            future for batch in batches for future in (batch._drain_waiter, *(one for one, _ in batch._msg_futures))
        ):
            # Those of a send that was cut short by its deadline have nobody who asks.
            if future.done():
                _settle(future)
        sender = producer._sender
        if sender.sender_task is not None:
            sender.sender_task.remove_done_callback(sender._fail_all)
            sender.sender_task.add_done_callback(_settle)
            sender.sender_task.cancel()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                # Connections first: it ends requests under way, which the sender waits for.
                await producer.client.close()
                await producer.stop()
        except Exception as error:
            # Whatever goes wrong here: nobody waits for this producer any more.
            log.debug("producer_closed_roughly", error=repr(error))

    def _spawn(self, coroutine: Coroutine[None, None, None], *, name: str) -> None:
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Forgiving(set[Any]):
    def remove(self, element: Any) -> None:
        self.discard(element)


def _partitions(producer: AIOKafkaProducer, topic: str) -> int:
    return len(producer.client.cluster.partitions_for_topic(topic) or ())


def _settle(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
