"""`complete_until` against the truth: everything Kafka accepted before it is in the answers of that moment."""

import asyncio
import json
import random
import signal
import time

import pytest
from aiokafka import AIOKafkaProducer

from ingest.contract.partitioning import event_key, home_partition
from ingest.contract.topics import TOOL_EXECUTIONS
from query_api.progress import progress
from tests.support.pipeline import Pipeline, eventually

pytestmark = pytest.mark.real

_PROJECT = "demo"
_QUIET_S = 6.0  # at first there are transactions alone
_UNOWNED_S = 4.0  # a dead worker's partitions; then another worker comes
_ASLEEP_S = 8.0  # longer than the group waits for a worker
_IDLE = 3  # this partition gets nothing but strays


class Sender:
    """Sends events here and there, and keeps each one's time of acceptance as the broker gave it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._made = 0
        self.accepted: dict[str, int] = {}

    async def run(self, over: asyncio.Event) -> None:
        await asyncio.gather(self._singles(over, after_s=_QUIET_S), self._transactions(over))

    def _event(self, chance: random.Random, *, home: bool) -> tuple[str, bytes, int]:
        while True:
            self._made += 1
            event_id = f"fresh-{self._made}"
            partition = home_partition(event_key(_PROJECT, event_id), self._pipeline.partitions)
            if partition != _IDLE:
                break
        if not home:
            partition = chance.choice([other for other in range(self._pipeline.partitions) if other != partition])
        event = {"id": event_id, "tool_slug": "GMAIL_SEND", "status": "success", "duration_ms": 1}
        return event_id, json.dumps(event).encode(), partition

    async def _singles(self, over: asyncio.Event, *, after_s: float) -> None:
        await asyncio.sleep(after_s)
        chance = random.Random(1)
        async with AIOKafkaProducer(bootstrap_servers=self._pipeline.kafka.address, acks="all") as producer:
            while not over.is_set():
                await self._send(producer, chance, home=chance.random() < 0.7)
                await asyncio.sleep(0.01)  # the load of the test, not a wait for anything

    async def _transactions(self, over: asyncio.Event) -> None:
        """Records of a transaction have their time from when they were sent, and are seen once it is committed."""
        chance = random.Random(2)
        producer = AIOKafkaProducer(bootstrap_servers=self._pipeline.kafka.address, transactional_id="fresh")
        async with producer:
            while not over.is_set():
                async with producer.transaction():
                    await self._send(producer, chance, home=True)
                    await asyncio.sleep(1.5)
                await asyncio.sleep(1)

    async def _send(self, producer: AIOKafkaProducer, chance: random.Random, *, home: bool) -> None:
        event_id, value, partition = self._event(chance, home=home)
        headers = [("project_id", _PROJECT.encode())]
        sent = await producer.send_and_wait(TOOL_EXECUTIONS, value, partition=partition, headers=headers)
        self.accepted[event_id] = sent.timestamp


class Reader:
    """Asks again and again: first until when it is complete, then what is there."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._store = pipeline.store()
        self.samples: list[tuple[int, frozenset[str]]] = []

    def complete_until_ms(self) -> int:
        heartbeats = self._store.query(
            "SELECT incarnation, kafka_partition, partitions, next_offset, end_offset, toUnixTimestamp64Milli(complete_until),"
            " toUnixTimestamp64Milli(reported_at) FROM progress"
            " ORDER BY reported_at DESC LIMIT 1 BY incarnation, kafka_partition"
        ).result_rows
        return progress(heartbeats, now_ms=time.time_ns() // 1_000_000).complete_until_ms

    @property
    def newest_ms(self) -> int:
        return max((until_ms for until_ms, _ in self.samples), default=0)

    def look(self) -> None:
        until_ms = self.complete_until_ms()
        rows = self._store.query("SELECT id FROM tool_executions").result_rows
        self.samples.append((until_ms, frozenset(row[0] for row in rows)))

    async def run(self, done: asyncio.Event) -> None:
        while not done.is_set():
            await asyncio.to_thread(self.look)
            await asyncio.sleep(0.05)


async def _moves_on(reader: Reader) -> None:
    """Wait until it is complete until a later time than before, twice."""
    for _ in range(2):
        known = reader.newest_ms
        await asyncio.to_thread(eventually, "it moves on", lambda known=known: reader.newest_ms > known)


async def _night(pipeline: Pipeline, reader: Reader) -> None:
    """A worker dies and its partitions have no owner for a while; another one sleeps longer than the group waits for it."""
    await asyncio.sleep(_QUIET_S)
    await _moves_on(reader)
    pipeline.workers[0].end(signal.SIGKILL)
    await asyncio.sleep(_UNOWNED_S)
    pipeline.start_worker()
    await _moves_on(reader)
    pipeline.workers[1].send_signal(signal.SIGSTOP)
    await asyncio.sleep(_ASLEEP_S)
    pipeline.workers[1].send_signal(signal.SIGCONT)
    await _moves_on(reader)


async def _observe(pipeline: Pipeline) -> tuple[Sender, Reader]:
    sender, reader, over = Sender(pipeline), Reader(pipeline), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sender.run(over))
        tasks.create_task(reader.run(over))
        await _night(pipeline, reader)
        over.set()
    return sender, reader


def test_what_is_called_complete_is_complete(pipeline: Pipeline) -> None:
    """At every moment of a bad night, with strays, open transactions and an idle partition, no event before it is missing."""
    pipeline.start_worker()
    pipeline.start_worker()
    reader = Reader(pipeline)
    eventually("all partitions have reported", lambda: reader.complete_until_ms() > 0)
    sender, reader = asyncio.run(_observe(pipeline))
    newest = max(sender.accepted.values())
    eventually("it passes the newest event", lambda: reader.complete_until_ms() > newest)
    reader.look()
    for until_ms, there in reader.samples:
        missing = [event_id for event_id, at_ms in sender.accepted.items() if at_ms < until_ms and event_id not in there]
        assert missing == [], (until_ms, len(missing), missing[:3])
    report = pipeline.settled()
    assert report.findings == ()
    assert (report.accepted, report.rows, report.calls) == (len(sender.accepted),) * 3
