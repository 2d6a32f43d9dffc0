"""Too much turns into dead letters, on real parts: the partition stops where a setting asks for it, and goes on from there."""

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from ingest.contract.topics import DEAD_LETTERS, LETTER_BYTES_MAX, RECORD_BYTES_MAX, TOOL_EXECUTIONS
from tests.e2e.test_ledger_crashes import recorded
from tests.support.pipeline import Pipeline, eventually
from tests.support.plain_http import HTTP
from tests.support.ports import free_port

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    made = Pipeline(Path(tmp_path_factory.mktemp("stop")))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def ready(port: int) -> dict[str, Any]:
    try:
        return dict(HTTP.get(f"http://127.0.0.1:{port}/readyz").json())
    except httpx.TransportError:
        return {"status": "away", "reasons": [], "warnings": []}


def accepted_ms(kafka: str, where: TopicPartition, offset: int) -> int:
    """When Kafka accepted the record at an offset."""

    async def read() -> int:
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.assign([where])
            consumer.seek(where, offset)
            return int((await consumer.getone(where)).timestamp)
        finally:
            await consumer.stop()

    return asyncio.run(read())


def test_a_partition_stops_and_the_others_go_on(pipeline: Pipeline) -> None:
    """It waits in front of the batch that passed the limit, says so, keeps freshness honest, and loses and doubles nothing."""
    port = free_port()
    settings = {"TOOLLEDGER_DEAD_LETTER_RUN_MAX": "20", "TOOLLEDGER_WORKER_PORT": str(port)}
    worker = pipeline.start_worker(TOOLLEDGER_DEAD_LETTER_STOP="true", **settings)
    pipeline.send(recorded(100, salt="a"))
    assert pipeline.settled().accepted == 100
    assert ready(port) == {"status": "ready", "reasons": [], "warnings": []}

    rubbish = b"[" + b",".join([b'{"rubbish":1}'] * 12) + b"]"
    pipeline.send_records([(rubbish, 2)] * 4)
    eventually("the partition stops", lambda: ready(port)["status"] == "unready")
    (reason,) = ready(port)["reasons"]
    assert "partition 2 is stopped" in reason
    assert "TOOLLEDGER_DEAD_LETTER_RUN_MAX" in reason
    assert 'toolledger_partition_stopped{partition="2"} 1.0' in HTTP.get(f"http://127.0.0.1:{port}/metrics").text
    # At most the batches in front of the one that passed the limit are dead letters.
    assert pipeline.rows("SELECT count() FROM dead_letters")[0][0] <= 12

    pipeline.send(recorded(100, salt="b"))

    def others_settled() -> bool:
        lag = pipeline.rows(
            "SELECT kafka_partition, argMax(end_offset - next_offset, reported_at) FROM progress GROUP BY 1 ORDER BY 1"
        )
        return [behind == 0 for _, behind in lag] == [True, True, False, True]

    eventually("the others go on", others_settled)
    ((next_offset, complete_ms),) = pipeline.rows(
        "SELECT max(next_offset), toUnixTimestamp64Milli(max(complete_until)) FROM progress WHERE kafka_partition = 2"
    )
    waiting_ms = accepted_ms(pipeline.kafka.address, TopicPartition(TOOL_EXECUTIONS, 2), next_offset)
    assert complete_ms <= waiting_ms, "a stopped partition is not complete beyond the first record that waits"
    assert worker.alive

    # The same limit again: it stops again. A higher one: it goes on.
    worker.end()
    again = pipeline.start_worker(TOOLLEDGER_DEAD_LETTER_STOP="true", **settings)
    eventually("it stops again", lambda: "stopped" in str(ready(port)["reasons"]))
    assert pipeline.rows("SELECT count() FROM dead_letters")[0][0] <= 12
    again.end()
    pipeline.start_worker(**settings)
    report = pipeline.settled()
    assert report.findings == ()
    assert (report.accepted, report.rows, report.calls, report.dead_letters) == (200, 200, 200, 48)
    text = HTTP.get(f"http://127.0.0.1:{port}/metrics").text
    assert 'toolledger_partition_stopped{partition="2"} 0.0' in text


def test_an_alarm_is_a_warning_and_said_once(pipeline: Pipeline) -> None:
    """By default nothing stops: ready with a warning, one line when it begins, one when it ends."""
    pipeline.workers[-1].end()
    port = free_port()
    worker = pipeline.start_worker(TOOLLEDGER_DEAD_LETTER_RUN_MAX="20", TOOLLEDGER_WORKER_PORT=str(port))
    pipeline.send_records([(b"[" + b",".join([b"{}"] * 25) + b"]", 1)] * 3, project="noisy")
    assert pipeline.settled().findings == ()
    eventually("it warns", lambda: ready(port)["warnings"])
    told = ready(port)
    assert told["status"] == "ready"
    assert "project 'noisy'" in told["warnings"][0]
    assert 'toolledger_dead_letter_alarm{partition="1"} 1.0' in HTTP.get(f"http://127.0.0.1:{port}/metrics").text
    pipeline.send(recorded(800, salt="c"))
    pipeline.settled()
    eventually("it ends", lambda: not ready(port)["warnings"])
    lines = [json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{")]
    mine = [line for line in lines if line.get("partition") == 1 and "dead_letter_alarm" in line["event"]]
    assert [line["event"] for line in mine] == ["dead_letter_alarm_began", "dead_letter_alarm_ended"]
    assert mine[0]["most_of_project"] == "noisy"


def copies(kafka: str) -> list[bytes]:
    """The values in the topic of copies."""

    async def read() -> list[bytes]:
        where = TopicPartition(DEAD_LETTERS, 0)
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, auto_offset_reset="earliest")
        await consumer.start()
        try:
            consumer.assign([where])
            end = (await consumer.end_offsets([where]))[where]
            found: list[bytes] = []
            await consumer.seek_to_beginning(where)
            while await consumer.position(where) < end:
                for some in (await consumer.getmany(where, timeout_ms=1000)).values():
                    found += [record.value for record in some]
            return found
        finally:
            await consumer.stop()

    return asyncio.run(read())


def limit_copies(kafka: str, nbytes: int) -> None:
    """Set the largest record that the topic of copies takes."""

    async def alter() -> None:
        client = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await client.start()
        try:
            config = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(nbytes)}
            for answer in await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, DEAD_LETTERS, config)]):
                assert [resource[0] for resource in answer.resources] == [0]
        finally:
            await client.close()

    asyncio.run(alter())


def test_a_dead_letter_as_large_as_a_record_is_copied_where_there_is_room_and_kept_in_any_case(pipeline: Pipeline) -> None:
    """With the topic as we make it the copy is there; where it takes less, the partition goes on without the copy."""
    # Bytes that no compression makes smaller, as large as a record can be.
    large = random.Random(1).randbytes(RECORD_BYTES_MAX - 8 * 1024).replace(b"\n", b"-")
    before = len(copies(pipeline.kafka.address))
    pipeline.send_records([(large, 3)], project="large")
    assert pipeline.settled().findings == ()
    assert copies(pipeline.kafka.address)[before:] == [large]

    limit_copies(pipeline.kafka.address, 1024 * 1024)
    pipeline.send_records([(large, 3), (b"small", 3)], project="large", wait_each=False)
    pipeline.send(recorded(50, salt="d"))
    assert pipeline.settled().findings == ()
    kept = pipeline.rows("SELECT length(payload) FROM dead_letters WHERE project_id = 'large' ORDER BY kafka_offset")
    assert kept == [(len(large),), (len(large),), (5,)]
    assert b"small" in copies(pipeline.kafka.address)[before + 1 :]
    assert large not in copies(pipeline.kafka.address)[before + 1 :]
    assert "dead_letter_not_copied" in pipeline.workers[-1].log.read_text()
    limit_copies(pipeline.kafka.address, LETTER_BYTES_MAX)
