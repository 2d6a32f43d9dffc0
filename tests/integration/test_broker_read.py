"""Reading a planned range again: exactly its records, as far as Kafka has them, and an error in time where it cannot tell."""

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from deploy import topics as topic_admin
from ingest.contract.errors import BrokerUnavailable
from ingest.contract.topics import TOOL_EXECUTIONS, topics
from processors import broker as under_test
from processors.broker import KafkaBroker
from processors.driver import RunConsumer
from tests.support import kafka_admin
from tests.support.own_kafka import OwnKafka

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnKafka]:
    made = OwnKafka(Path(tmp_path_factory.mktemp("kafka")))
    try:
        made.start()
        topic_admin.apply(made.address, topics(partitions=1))
        asyncio.run(_fill(made.address))
        kafka_admin.delete_records(made.address, {0: 4})
        yield made
    finally:
        made.stop(kill=True)


async def _fill(address: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=address)
    await producer.start()
    for number in range(10):
        await producer.send_and_wait(TOOL_EXECUTIONS, b"%d" % number, partition=0)
    await producer.stop()


def no_consumer() -> RunConsumer:
    raise AssertionError("reading needs no member of the group")


async def read(kafka: OwnKafka, first_offset: int, next_offset: int) -> list[int]:
    broker = KafkaBroker(kafka.address, consumer=no_consumer, session_timeout_ms=6000)
    return [record.offset for record in await broker.read(0, first_offset, next_offset)]


async def test_exactly_the_range_comes_as_far_as_it_is_there(kafka: OwnKafka) -> None:
    """Records of the range, without those that retention took, and none from outside it."""
    assert await read(kafka, 6, 9) == [6, 7, 8]
    assert await read(kafka, 0, 7) == [4, 5, 6]
    assert await read(kafka, 0, 3) == []
    assert await read(kafka, 4, 10) == [4, 5, 6, 7, 8, 9]


async def test_a_log_that_ends_before_the_range_is_an_error(kafka: OwnKafka) -> None:
    """A range beyond the end, wholly or in part, is never answered with other records, and never waited for without a word."""
    for first_offset, next_offset in ((8, 12), (20, 25)):
        with pytest.raises(BrokerUnavailable, match="ends at 10"):
            await read(kafka, first_offset, next_offset)


async def test_a_broker_that_does_not_answer_is_an_error_in_time(kafka: OwnKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen, killed, back again: an error within the limit, then the records."""
    monkeypatch.setattr(under_test, "_SILENCE_S", 2.0)
    kafka.signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        await read(kafka, 6, 9)
    kafka.signal(signal.SIGCONT)
    assert await read(kafka, 6, 9) == [6, 7, 8]
    kafka.stop(kill=True)
    with pytest.raises(BrokerUnavailable):
        await read(kafka, 6, 9)
    assert time.monotonic() - began < 50
    await asyncio.to_thread(kafka.start)
    assert await read(kafka, 6, 9) == [6, 7, 8]
