"""CloudEvents from the SDK over HTTP, through a real server into a real Kafka."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from cloudevents.core.bindings import http

from deploy.topics import apply
from ingest.contract.cloudevents import event_id
from ingest.contract.partitioning import event_key, home_partition
from ingest.contract.topics import topics
from tests.integration.test_ingest_http import make_key
from tests.support.cloud_events import cloud_event, execution
from tests.support.ingest_service import IngestService, ends, records_since

pytestmark = pytest.mark.real

PROJECT = "cloudevents-tests"
BATCH = {"content-type": "application/cloudevents-batch+json"}


@pytest.fixture(scope="module")
def service(kafka_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IngestService]:
    apply(kafka_address, topics())
    with IngestService.start(kafka_address, tmp_path_factory.mktemp("ingest"), ingest_events_max=100) as running:
        yield running


@pytest.fixture(scope="module")
def key(kafka_address: str, service: IngestService) -> str:
    return asyncio.run(make_key(kafka_address, service, project_id=PROJECT))


@pytest.fixture
async def client(service: IngestService, key: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url, headers={"x-api-key": key}, timeout=60) as made:
        yield made


async def events_since(kafka: str, before: dict[int, int]) -> dict[str, Any]:
    found = {}
    for written in await records_since(kafka, before):
        value = json.loads(written.value)
        for event in value if isinstance(value, list) else [value]:
            found[event["id"]] = event
            assert written.partition == home_partition(event_key(PROJECT, event["id"]), len(before))
    return found


@pytest.mark.parametrize("make", [http.to_structured_event, http.to_binary_event])
async def test_what_the_sdk_makes_is_taken(client: httpx.AsyncClient, kafka_address: str, make: Any) -> None:
    """Both modes, with an attribute that needs its encoding; the answer has the id of the pair."""
    before = await ends(kafka_address)
    message = make(cloud_event(id=f"{make.__name__} 1 ü%", subject="€ 5"))
    answer = await client.post("/v1/events", content=message.body, headers=dict(message.headers))
    expected = event_id("/agents/mia", f"{make.__name__} 1 ü%")
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "ids": [expected], "rejected": []})
    event = (await events_since(kafka_address, before))[expected]
    assert event["tool_slug"] == "GMAIL_SEND_EMAIL"
    assert event["metadata"]["cloudevent"]["subject"] == "€ 5"
    assert event["timestamp"] == "2026-04-17T10:25:00Z"


async def test_a_batch_is_judged_event_by_event(client: httpx.AsyncClient, kafka_address: str) -> None:
    """What is no tool execution is refused with its place, its own id and the reason; an empty batch is one too."""
    before = await ends(kafka_address)
    batch = [json.loads(http.to_structured_event(cloud_event(id=f"batch-{at}")).body) for at in range(3)]
    batch[1]["data"] = {"order": 7}
    answer = await client.post("/v1/events", json=batch, headers=BATCH)
    assert answer.status_code == 202
    body = answer.json()
    assert body["ids"] == [event_id("/agents/mia", "batch-0"), event_id("/agents/mia", "batch-2")]
    assert [(one["index"], one["id"], one["code"]) for one in body["rejected"]] == [(1, "batch-1", "missing_member")]
    assert set(await events_since(kafka_address, before)) == set(body["ids"])
    empty = await client.post("/v1/events", content=b"[]", headers=BATCH)
    assert (empty.status_code, empty.json()) == (202, {"accepted": 0, "ids": [], "rejected": []})


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{}", {"content-type": "application/cloudevents+json"}, 400, "invalid_cloudevent"),
        (b"", {"content-type": "application/cloudevents+json"}, 400, "invalid_json"),
        (b'{"id":"\xff"}', {"content-type": "application/cloudevents+json"}, 400, "invalid_encoding"),
        (b'{"a":' * 5000, {"content-type": "application/cloudevents+json"}, 400, None),
        (b"{}", {"content-type": "application/cloudevents+avro"}, 415, None),
        (b"{}", BATCH, 400, None),
        (b"<a/>", {"content-type": "text/xml", "ce-id": "1", "ce-source": "s", "ce-type": "t", "ce-specversion": "1.0"}, 400,
         "invalid_cloudevent"),
        (json.dumps(execution()).encode(), {"ce-id": "1", "ce-source": "s", "ce-type": "t"}, 400, "invalid_cloudevent"),
        (b"", {"ce-id": "1", "ce-source": "s", "ce-type": "t", "ce-specversion": "1.0"}, 400, "invalid_cloudevent"),
        (b"{}", {"ce-id": "%ff", "ce-source": "s", "ce-type": "t", "ce-specversion": "1.0"}, 400, "invalid_encoding"),
        (json.dumps([{}] * 101).encode(), BATCH, 413, None),
    ],
    ids=range(11),
)  # fmt: skip
async def test_what_is_none_is_refused_with_the_reason(
    client: httpx.AsyncClient, content: bytes, headers: dict[str, str], status: int, code: str | None
) -> None:
    """In the Error body, with `rejected` where an event was found."""
    answer = await client.post("/v1/events", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]
    if code is not None:
        assert [one["code"] for one in answer.json()["rejected"]] == [code]
