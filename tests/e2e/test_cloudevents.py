"""CloudEvents by every way in, on the whole stack: one by `source` and `id`, wherever it came from."""

import asyncio
import json
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from cloudevents.core.bindings import http, kafka

from ingest.contract.cloudevents import event_id
from ingest.contract.topics import TOOL_EXECUTIONS
from tests.support.cloud_events import FORMAT, TRACEPARENT, cloud_event
from tests.support.stack import Stack

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

PROJECT = "cloudevents"


@pytest.fixture(scope="module")
def stack(shared_stack: Stack) -> Stack:
    shared_stack.key = shared_stack.create_key(PROJECT)
    return shared_stack


def send(stack: Stack, *messages: kafka.KafkaMessage) -> None:
    """Write CloudEvents straight to Kafka, as any producer would: no key of ours, no partition."""

    async def sent() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=stack.up.ready["kafka"])
        await producer.start()
        try:
            for message in messages:
                headers = [*message.headers.items(), ("project_id", PROJECT.encode())]
                await producer.send_and_wait(TOOL_EXECUTIONS, message.value, key=message.key, headers=headers)
        finally:
            await producer.stop()

    asyncio.run(sent())


def test_one_event_by_five_ways_counts_once(stack: Stack) -> None:
    """Structured, batch and binary over HTTP, structured and binary in Kafka; the id of another source is another."""
    before = stack.proved()
    for source in ("/agents/mia", "/agents/noah"):
        event = cloud_event(source=source, traceparent=TRACEPARENT)
        for message in (http.to_structured_event(event), http.to_binary_event(event)):
            assert stack.post("/v1/events", message.body, **dict(message.headers)).status_code == 202
        batch = b"[" + http.to_structured_event(event).body + b"]"
        headers: dict[str, Any] = {"content-type": "application/cloudevents-batch+json"}
        assert stack.post("/v1/events", batch, **headers).status_code == 202
        send(stack, kafka.to_structured(event, FORMAT), kafka.to_binary(event, FORMAT))
    report = stack.proved()
    assert report.proved
    gained = [getattr(report, name) - getattr(before, name) for name in ("accepted", "duplicates", "dead_letters")]
    assert gained == [2, 8, 0]
    assert stack.get("/v1/usage", **{"from": "2026-04-17"}).json()["totals"]["calls"] == 2

    log = stack.get(f"/api/v3.1/logs/tool_execution/{event_id('/agents/mia', 'a-1')}").json()
    kept = log["metadata"]["cloudevent"]
    assert (kept["source"], kept["id"], kept["type"]) == ("/agents/mia", "a-1", "tool.executed")
    assert log["timestamp"] == "2026-04-17T10:25:00.000Z"
    assert log["context"]["trace_id"] == TRACEPARENT.split("-")[1]


def test_a_record_that_is_no_tool_execution_is_a_dead_letter_that_can_be_mended(stack: Stack) -> None:
    """It says why, and has what the headers said, so that the mended one has the id it should have had."""
    before = stack.proved()
    send(stack, kafka.to_binary(cloud_event({"tool_slug": "A", "status": "success"}, id="poison"), FORMAT))
    after = stack.proved()
    assert after.dead_letters - before.dead_letters == 1
    letter = stack.get("/v1/dead-letters").json()["dead_letters"][0]
    assert letter["reason"] == "missing_member"
    detail = stack.get(f"/v1/dead-letters/{letter['id']}").json()
    assert event_id("/agents/mia", "poison") in json.dumps(detail)
