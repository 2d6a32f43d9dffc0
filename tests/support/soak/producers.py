"""Producers that never give an event up: over HTTP and straight to Kafka, in a thread of their own.

Now and then one does on purpose what real ones do: sends again what was acknowledged, over the other way too, or changed;
sends to the wrong partition; sends rubbish; or goes away in the middle of a request and never learns what became of it.
"""

import asyncio
import json
import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import httpx
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from ingest.contract.partitioning import event_key, home_partition
from ingest.contract.topics import HEADER_PROJECT, TOOL_EXECUTIONS
from tests.support.soak.truth import Block, Event, Lane, Rubbish
from tests.support.soak.watch import Watch

_HTTP_TIMEOUT_S: Final = 20.0
_KAFKA_TIMEOUT_S: Final = 15.0
_RETRY_S: Final = 0.3
_CLOSE_S: Final = 3.0
_BLOCK_EVENTS: Final = 10.2
_AGAIN_SHARE: Final = 0.08
_RUBBISH_SHARE: Final = 0.03
_GONE_SHARE: Final = 0.02


class Message(NamedTuple):
    """One record on its way to Kafka."""

    value: bytes
    key: bytes | None
    partition: int | None
    headers: list[tuple[str, bytes]]


class Producers(threading.Thread):
    """All producers and the watch, in one loop.

    Args:
        keys: API key of each project.
        rate: events a second over all lanes.
        clock: seconds since the run began.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        *,
        kafka: str,
        url: str,
        keys: Mapping[str, str],
        partitions: int,
        rate: float,
        began_s: float,
        watch: Watch,
        seed: int,
    ) -> None:
        super().__init__(name="producers", daemon=True)
        self.lanes = lanes
        self.rubbish = Rubbish()
        # Answers that no client should ever get.
        self.surprises: list[str] = []
        self.retries = 0
        self._kafka, self._url, self._keys = kafka, url, keys
        self._partitions, self._seed, self._watch = partitions, seed, watch
        self._pause_s = len(lanes) * _BLOCK_EVENTS / rate
        self._began_s = began_s
        self._paused = threading.Event()
        self._ended = threading.Event()
        self._busy = 0
        self._idle = False

    # What the main thread asks.

    def pause(self) -> None:
        """Begin no further block."""
        self._paused.set()

    def resume(self) -> None:
        """Go on."""
        self._idle = False
        self._paused.clear()

    @property
    def idle(self) -> bool:
        """Whether every block that was begun is acknowledged or given up."""
        return self._paused.is_set() and self._idle

    def end(self) -> None:
        """End, whatever is on its way."""
        self._ended.set()
        self.join(30)

    # The loop.

    def run(self) -> None:
        try:
            asyncio.run(self._run())
        except Exception as error:
            self.surprises.append(f"the producers ended: {error!r}")
            raise

    async def _run(self) -> None:
        work = [
            asyncio.create_task(self._http(lane) if lane.name.startswith("http") else self._straight(lane), name=lane.name)
            for lane in self.lanes
        ]
        work.append(asyncio.create_task(self._watch.run(), name="watch"))
        while not self._ended.is_set():
            done, _ = await asyncio.wait(work, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
            # Judged here, between two steps of the producers, never in the middle of one.
            self._idle = self._paused.is_set() and self._busy == 0
            for task in done:
                task.result()
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)

    async def _turn(self, rng: random.Random) -> None:
        """Wait for the time of the next block."""
        await asyncio.sleep(rng.expovariate(1) * self._pause_s)
        while self._paused.is_set():  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.05)

    def _moment_s(self) -> float:
        return time.monotonic() - self._began_s

    # Over HTTP.

    async def _http(self, lane: Lane) -> None:
        rng = random.Random(f"{self._seed}/{lane.name}")
        async with httpx.AsyncClient(base_url=self._url, timeout=_HTTP_TIMEOUT_S) as client:
            while True:
                await self._turn(rng)
                self._busy += 1
                block = lane.begin()
                if rng.random() < _GONE_SHARE:
                    await self._go_away(client, block, rng)
                else:
                    await self._post(client, block.project, block.events, rng)
                    lane.acknowledge(block.number, self._moment_s())
                if rng.random() < _AGAIN_SHARE:
                    await self._post_again(client, rng)
                self._busy -= 1

    async def _go_away(self, client: httpx.AsyncClient, block: Block, rng: random.Random) -> None:
        """Send once, and hang up before the answer as often as not."""
        try:
            async with asyncio.timeout(rng.uniform(0, 0.05)):
                await self._request(client, block.project, json.dumps(block.events).encode())
        except (httpx.TransportError, TimeoutError):
            return

    async def _post_again(self, client: httpx.AsyncClient, rng: random.Random) -> None:
        """Send something acknowledged again: as it was, or under another time, or, what came over HTTP first, changed."""
        lane = rng.choice(self.lanes)
        block = lane.acknowledged_among(rng)
        if block is None:
            return
        events = block.events
        # What came straight to Kafka may still be on its way home, where the first one counts.
        if lane.name.startswith("http") and rng.random() < 0.5:
            change: Event = rng.choice(
                ({"timestamp": events[0]["timestamp"] - 1000}, {"status": "failed", "user_id": "somebody-else"})
            )
            events = tuple({**event, **change} for event in events)
        await self._post(client, block.project, events, rng)

    async def _post(self, client: httpx.AsyncClient, project: str, events: Sequence[Event], rng: random.Random) -> None:
        """Send until it is accepted; sometimes as NDJSON with a line that is none."""
        rejected = int(rng.random() < _RUBBISH_SHARE)
        body = b"\n".join([json.dumps(event).encode() for event in events] + [b'{"tool_slug":1}'] * rejected)
        wanted = {"accepted": len(events), "ids": [event["id"] for event in events]}
        while True:
            try:
                answer = await self._request(client, project, body)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == 202:
                said = answer.json()
                if {name: said[name] for name in wanted} != wanted or len(said["rejected"]) != rejected:
                    self.surprises.append(f"202 for {wanted['ids']}: {answer.text[:500]}")
                return
            if answer is not None and answer.status_code not in (429, 503):
                self.surprises.append(f"{answer.status_code} for {wanted['ids']}: {answer.text[:500]}")
            self.retries += 1
            await asyncio.sleep(_RETRY_S)

    async def _request(self, client: httpx.AsyncClient, project: str, body: bytes) -> httpx.Response:
        ndjson = not body.startswith(b"[")
        kind = "application/x-ndjson" if ndjson else "application/json"
        headers = {"x-api-key": self._keys[project], "content-type": kind}
        return await client.post("/v1/events", content=body, headers=headers)

    # Straight to Kafka.

    async def _straight(self, lane: Lane) -> None:
        rng = random.Random(f"{self._seed}/{lane.name}")
        producer = _KafkaProducer(self._kafka)
        try:
            while True:
                await self._turn(rng)
                self._busy += 1
                block = lane.begin()
                marker = self.rubbish.begin(lane.name) if rng.random() < _RUBBISH_SHARE else None
                messages = self._messages(block, rng)
                if marker is not None:
                    messages.append(self._no_event(marker, block.project, rng))
                self.retries += await producer.send(messages)
                lane.acknowledge(block.number, self._moment_s())
                if marker is not None:
                    self.rubbish.acknowledged.add(marker)
                if rng.random() < _AGAIN_SHARE and (again := rng.choice(self.lanes).acknowledged_among(rng)) is not None:
                    self.retries += await producer.send(self._messages(again, rng))
                self._busy -= 1
        finally:
            await producer.close()

    def _messages(self, block: Block, rng: random.Random) -> list[Message]:
        """Write a block as records, in one of the ways producers do."""
        header = [(HEADER_PROJECT, block.project.encode())]
        project = {"project_id": block.project}
        anywhere = rng.randrange(self._partitions)
        match rng.randrange(5):
            case 0:  # an event a record, keyed as recommended
                return [Message(_raw(each), event_key(block.project, each["id"]), None, header) for each in block.events]
            case 1:  # no key, anywhere, the project in the body
                return [Message(_raw({**each, **project}), None, rng.randrange(self._partitions), []) for each in block.events]
            case 2:  # a pack that is astray
                return [Message(b"[" + b",".join(map(_raw, block.events)) + b"]", None, anywhere, header)]
            case 3:  # lines, astray
                return [Message(b"\n".join(_raw({**each, **project}) for each in block.events), b"some key", anywhere, [])]
            case _:  # packs by home
                homes: dict[int, list[bytes]] = {}
                for each in block.events:
                    home = home_partition(event_key(block.project, each["id"]), self._partitions)
                    homes.setdefault(home, []).append(_raw(each))
                return [Message(b"[" + b",".join(raws) + b"]", None, home, header) for home, raws in homes.items()]

    def _no_event(self, marker: str, project: str, rng: random.Random) -> Message:
        body = rng.choice((b'{"marker":"%s"}', b'{"tool_slug":"%s","status":"maybe","duration_ms":1}', b"%s"))
        headers = [(HEADER_PROJECT, project.encode())] if rng.random() < 0.5 else []
        return Message(body % marker.encode(), None, rng.randrange(self._partitions), headers)


class _KafkaProducer:
    """An idempotent producer that is replaced when it fails, until everything is acknowledged."""

    def __init__(self, kafka: str) -> None:
        self.last_error = ""
        self._kafka = kafka
        self._producer: Any = None

    async def send(self, messages: Sequence[Message]) -> int:
        """Send until all are acknowledged; return how often it was tried again."""
        left, retries = list(messages), 0
        while True:
            left = await self._try(left)
            if not left:
                return retries
            retries += 1
            await self.close()
            await asyncio.sleep(_RETRY_S)

    async def _try(self, messages: Sequence[Message]) -> list[Message]:
        """Send once; return what was not acknowledged."""
        sent: list[tuple[Message, asyncio.Future[Any]]] = []
        try:
            async with asyncio.timeout(_KAFKA_TIMEOUT_S):
                if self._producer is None:
                    producer = AIOKafkaProducer(
                        bootstrap_servers=self._kafka, acks="all", enable_idempotence=True, request_timeout_ms=5000
                    )
                    self._producer = producer
                    await producer.start()
                for message in messages:
                    future = await self._producer.send(
                        TOOL_EXECUTIONS,
                        message.value,
                        key=message.key,
                        partition=message.partition,
                        headers=message.headers,
                    )
                    sent.append((message, future))
                await asyncio.wait([future for _, future in sent])
        except (KafkaError, OSError, TimeoutError, AssertionError) as error:
            # Whatever has no acknowledgement is sent again.
            self.last_error = repr(error)
        acknowledged = [message for message, future in sent if future.done() and not _failed(future)]
        return [message for message in messages if not any(message is each for each in acknowledged)]

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                async with asyncio.timeout(_CLOSE_S):
                    await producer.stop()
            except (KafkaError, OSError, TimeoutError):
                return  # Kafka is away; nobody waits for this producer any more


def _failed(future: "asyncio.Future[Any]") -> bool:
    return future.cancelled() or future.exception() is not None


def _raw(event: Event) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()
