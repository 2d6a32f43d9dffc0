"""Kafka goes away, hangs and comes back, gets its topic late and more partitions later: ingest tells so and recovers."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from deploy.topics import apply
from ingest.contract.topics import TOOL_EXECUTIONS, topics
from ingest.keys import create_key
from tests.support.ingest_service import IngestService, ends, eventually, records_since
from tests.support.own_kafka import OwnKafka
from tests.support.plain_http import HTTP
from tests.support.ports import HOST, free_port

pytestmark = pytest.mark.real

PUBLISH_TIMEOUT_S = 2.0
SETTINGS = {"ingest_publish_timeout_s": PUBLISH_TIMEOUT_S, "kafka_probe_s": 0.5}


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnKafka]:
    own = OwnKafka(tmp_path_factory.mktemp("kafka"))
    own.start()
    yield own
    own.stop(kill=True)


@pytest.fixture(scope="module")
def service(kafka: OwnKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IngestService]:
    with IngestService.start(kafka.address, tmp_path_factory.mktemp("ingest"), ready=False, **SETTINGS) as running:
        yield running


@pytest.fixture
async def sender(kafka: OwnKafka, service: IngestService) -> AsyncIterator["Sender"]:
    await asyncio.to_thread(apply, kafka.address, topics())
    _, key = await create_key(kafka.address, project_id="outage")
    service.wait_for("/readyz", 200)
    async with httpx.AsyncClient(base_url=service.url, headers={"x-api-key": key}, timeout=60) as client:
        made = Sender(client)
        await eventually(made.is_accepted)
        yield made


class Sender:
    """Sends events with ids of their own and remembers which were accepted."""

    number = 0

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.accepted: set[str] = set()

    async def send(self) -> int:
        ids = [f"{Sender.number + place}" for place in range(20)]
        Sender.number += 20
        answer = await self.client.post("/v1/events", json=[event(id=each) for each in ids])
        if answer.status_code == 202:
            self.accepted.update(answer.json()["ids"])
        return answer.status_code

    async def is_accepted(self) -> bool:
        return await self.send() == 202

    async def is_refused_in_time(self) -> None:
        began = time.monotonic()
        answer = await self.client.post("/v1/events", json=event(id="refused"))
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["error"]["slug"] == "Ingest_KafkaUnavailable"
        assert time.monotonic() - began < PUBLISH_TIMEOUT_S + 15

    async def everything_is_in(self, kafka: OwnKafka) -> None:
        stored: set[str] = set()
        for record in await records_since(kafka.address, {}):
            value = json.loads(record.value)
            stored.update(each["id"] for each in (value if isinstance(value, list) else [value]))
        assert self.accepted <= stored


def event(**members: Any) -> dict[str, Any]:
    return {"tool_slug": "A", "status": "success", "duration_ms": 1, **members}


def test_without_the_topic_ingest_lives_but_is_not_ready_and_does_not_make_it_by_asking(
    service: IngestService, kafka: OwnKafka
) -> None:
    deadline = time.monotonic() + 60
    while not any("tool-executions is missing" in reason for reason in service.wait_for("/readyz", 503).json()["reasons"]):
        assert time.monotonic() < deadline
    changes = apply(kafka.address, topics(), dry_run=True)
    assert "create" in {change.kind for change in changes if change.topic.name == TOOL_EXECUTIONS}


async def test_while_kafka_is_dead_every_answer_is_503_in_time_and_recovery_needs_nobody(
    kafka: OwnKafka, service: IngestService, sender: Sender
) -> None:
    kafka.stop(kill=True)
    await asyncio.gather(*(sender.is_refused_in_time() for _ in range(20)))
    await sender.is_refused_in_time()
    service.wait_for("/readyz", 503)
    kafka.start()
    service.wait_for("/readyz", 200)
    assert await sender.is_accepted()
    await sender.everything_is_in(kafka)


async def test_events_sent_during_a_clean_restart_are_accepted_or_refused_and_none_is_lost(
    kafka: OwnKafka, sender: Sender
) -> None:
    running = True

    async def keep_sending() -> None:
        while running:
            assert await sender.send() in (202, 503)

    senders = [asyncio.create_task(keep_sending()) for _ in range(4)]
    await asyncio.to_thread(kafka.stop)
    kafka.launch()
    await asyncio.to_thread(kafka.await_ready)
    await eventually(sender.is_accepted)
    running = False
    await asyncio.gather(*senders)
    await sender.everything_is_in(kafka)


async def test_a_frozen_broker_that_keeps_its_connections_is_noticed_too(
    kafka: OwnKafka, service: IngestService, sender: Sender
) -> None:
    kafka.signal(signal.SIGSTOP)
    try:
        await sender.is_refused_in_time()
        service.wait_for("/readyz", 503)
    finally:
        kafka.signal(signal.SIGCONT)
    service.wait_for("/readyz", 200)
    await eventually(sender.is_accepted)
    await sender.everything_is_in(kafka)


async def test_added_partitions_are_used_without_a_restart(kafka: OwnKafka, sender: Sender) -> None:
    before = await ends(kafka.address)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.address)
    await admin.start()
    await admin.create_partitions({TOOL_EXECUTIONS: NewPartitions(len(before) + 4)})
    await admin.close()

    async def new_ones_are_used() -> bool:
        await sender.send()
        found = await ends(kafka.address)
        return all(found.get(partition, 0) > 0 for partition in range(len(before), len(before) + 4))

    await eventually(new_ones_are_used)
    await sender.everything_is_in(kafka)


def test_the_log_tells_of_outages_without_stack_traces(service: IngestService, sender: Sender, kafka: OwnKafka) -> None:
    kafka.stop(kill=True)
    service.wait_for("/readyz", 503)
    kafka.start()
    service.wait_for("/readyz", 200)
    text = service.log.read_text()
    assert '"kafka_lost"' in text
    assert "Traceback" not in text
    assert "never retrieved" not in text


def test_starting_before_kafka_is_there_is_no_reason_to_end(tmp_path: Path) -> None:
    with IngestService.start(f"{HOST}:{free_port()}", tmp_path, ready=False) as service:
        assert service.wait_for("/readyz", 503).json()["checks"] == {"kafka": False, "control": False}
        answer = HTTP.post(service.url + "/v1/events", json=event(), headers={"x-api-key": "ak_unknown_yet_to_us"})
        assert (answer.status_code, answer.json()["error"]["slug"]) == (503, "Ingest_Starting")
        assert service.stop() == 0


def test_at_last_a_stop_while_kafka_is_away_is_clean_and_bounded(kafka: OwnKafka, tmp_path: Path) -> None:
    with IngestService.start(kafka.address, tmp_path, **SETTINGS) as service:
        kafka.stop(kill=True)
        began = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - began < PUBLISH_TIMEOUT_S + 20
