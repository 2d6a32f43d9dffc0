"""Secrets, and the payloads of projects that keep none, never reach Kafka."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.topics import apply
from ingest.contract.topics import topics
from ingest.keys import create_key, set_rules
from tests.support.ingest_service import IngestService, ends, eventually, records_since

pytestmark = pytest.mark.real

PROJECT = "redaction-tests"


def event(**members: Any) -> dict[str, Any]:
    return {"tool_slug": "GMAIL_SEND_EMAIL", "status": "failed", "duration_ms": 12.5, **members}


@pytest.fixture(scope="module")
def service(kafka_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IngestService]:
    apply(kafka_address, topics())
    with IngestService.start(
        kafka_address,
        tmp_path_factory.mktemp("ingest"),
        redact_patterns="EMP-\\d{6}\nbadge (\\w+)",
        redact_names="Social-Security",
    ) as running:
        yield running


@pytest.fixture
async def client(service: IngestService, kafka_address: str) -> AsyncIterator[httpx.AsyncClient]:
    _, key = await create_key(kafka_address, project_id=PROJECT)
    async with httpx.AsyncClient(base_url=service.url, headers={"x-api-key": key}, timeout=60) as made:

        async def known() -> bool:
            return "Invalid API key" not in (await made.post("/v1/events", json=[])).text

        await eventually(known)
        yield made


async def stored_since(kafka: str, before: dict[int, int]) -> dict[str, dict[str, Any]]:
    """Events in Kafka behind given offsets, by id."""
    found = [json.loads(record.value) for record in await records_since(kafka, before)]
    return {each["id"]: each for value in found for each in (value if isinstance(value, list) else [value])}


async def test_secrets_are_gone_in_kafka_and_everything_else_is_there(client: httpx.AsyncClient, kafka_address: str) -> None:
    """Of payload, metadata, message, error and unknown members; ids stay, and so does an event without a secret."""
    before = await ends(kafka_address)
    plain = event(id="plain", data={"request": {"next_page_token": "abcdefghijkl", "n": 1.0}})
    answer = await client.post(
        "/v1/events",
        json=[
            event(
                id="sk-8Jk2Lm4Np6Qr8St0Uv2Wx4Yz6",
                message="call with Bearer hidden123456 failed",
                error={"message": "https://bob:hidden123@x/?api_key=hidden12", "code": 401},
                metadata={"headers": [{"name": "Cookie", "value": "hidden"}]},
                data={
                    "request": {"Authorization": ["hidden"], "body": json.dumps({"client_secret": "hidden"})},
                    "response": {"n": 1.0},
                },
                password="hidden",
            ),
            plain,
            event(id="own", data={"request": {"social_security": "hidden", "text": "EMP-123456 with badge hidden left"}}),
        ],
    )
    assert answer.status_code == 202, answer.text
    stored = await stored_since(kafka_address, before)
    assert "hidden" not in json.dumps(stored)
    assert "EMP-123456" not in json.dumps(stored)
    redacted = stored["sk-8Jk2Lm4Np6Qr8St0Uv2Wx4Yz6"]
    assert redacted["message"] == "call with Bearer [redacted] failed"
    assert redacted["data"]["response"] == {"n": 1.0}
    assert redacted["error"]["code"] == 401
    assert {name: stored["plain"][name] for name in plain} == plain
    assert stored["own"]["data"]["request"]["text"] == "[redacted] with badge [redacted] left"


async def test_a_project_that_keeps_no_payloads_has_none_in_kafka_within_seconds(
    client: httpx.AsyncClient, kafka_address: str
) -> None:
    """Switched off and on while the service runs; nothing else of the event goes."""

    async def payload_in_kafka() -> bool:
        before = await ends(kafka_address)
        answer = await client.post("/v1/events", json=event(id="e", data={"request": {"q": "kept?"}}, metadata={"m": 1}))
        assert answer.status_code == 202
        stored = (await stored_since(kafka_address, before))["e"]
        assert stored["metadata"] == {"m": 1}
        assert stored["data"] in (None, {"request": {"q": "kept?"}})
        return stored["data"] is not None

    assert await payload_in_kafka()
    await set_rules(kafka_address, PROJECT, store_payloads=False)

    async def is_off() -> bool:
        return not await payload_in_kafka()

    await eventually(is_off)
    assert not await payload_in_kafka()
    await set_rules(kafka_address, PROJECT, store_payloads=True)
    await eventually(payload_in_kafka)


@pytest.mark.parametrize("verb", ["ingest", "worker"])
def test_an_unusable_pattern_ends_the_start_with_one_line(kafka_address: str, verb: str) -> None:
    """Exit 2, before anything is served with it."""
    environment = os.environ | {"TOOLLEDGER_REDACT_PATTERNS": "fine\n(a+", "TOOLLEDGER_KAFKA": kafka_address}
    ended = subprocess.run(
        [sys.executable, "-m", "deploy.cli.main", verb],
        env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "TOOLLEDGER_REDACT_PATTERNS" in ended.stderr
    assert "pattern 2" in ended.stderr


def test_a_pattern_that_backtracks_elsewhere_stalls_nobody(service: IngestService) -> None:
    """RE2 takes time in proportion to the text, whatever the pattern."""
    from ingest.contract.redact_patterns import redactor  # noqa: PLC0415 - what the service is made with

    rules = redactor("(a+)+b\n(x|xx|xxx)*y")
    text = "a" * 200_000 + "x" * 200_000
    assert asyncio.run(asyncio.to_thread(rules.text, text)) == text
