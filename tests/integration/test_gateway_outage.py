"""Kafka goes away, ingest is killed or stopped: tools give their answers at once, and what happened is on record in the end."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.topics import apply
from ingest.contract.topics import topics
from ingest.keys import create_key
from tests.support.gateway_site import Recorded
from tests.support.ingest_service import IngestService, ends, eventually
from tests.support.own_kafka import OwnKafka
from tests.support.plain_http import HTTP
from tests.support.ports import HOST, free_port
from tests.support.tool_upstream import Request, ToolUpstream, answer, tool_upstream

pytestmark = pytest.mark.real

EXECUTE = "/api/v3.1/tools/execute/GMAIL_SEND_EMAIL"
SETTINGS = {
    "ingest_publish_timeout_s": 1,
    "kafka_probe_s": 0.5,
    "upstream_waiting_bytes_max": 2 << 20,
    "ingest_stop_timeout_s": 1,
}


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnKafka]:
    own = OwnKafka(tmp_path_factory.mktemp("kafka"))
    own.start()
    apply(own.address, topics())
    yield own
    own.stop(kill=True)


@pytest.fixture(scope="module")
def key(kafka: OwnKafka) -> str:
    return asyncio.run(create_key(kafka.address, project_id="gate"))[1]


@pytest.fixture
async def upstream() -> AsyncIterator[ToolUpstream]:
    async with tool_upstream() as made:
        number = 0

        async def count(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal number
            number += 1
            told = {"successful": True, "data": {"text": "x" * 100_000}, "log_id": f"log_{made.port}_{number}"}
            writer.write(answer(json.dumps(told).encode()))

        made.behave = count
        yield made


async def run(service: IngestService, key: str, count: int) -> list[str]:
    """Run tools one after another; each answers at once. Return the ids."""
    async with httpx.AsyncClient(base_url=service.url, headers={"x-api-key": key}, timeout=60) as http:
        found = []
        for _ in range(count):
            got = await http.post(EXECUTE, json={})
            assert got.status_code == 200, got.text
            found.append(got.json()["log_id"])
        return found


async def start(kafka: OwnKafka, folder: Path, upstream: ToolUpstream, key: str = "", **more: Any) -> IngestService:
    given = {**SETTINGS, "upstream": upstream.url, **more}
    service = await asyncio.to_thread(IngestService.start, kafka.address, folder, ready=bool(key), **given)
    if key:
        async with httpx.AsyncClient(base_url=service.url, headers={"x-api-key": key}) as http:

            async def known() -> bool:
                return (await http.get("/api/v3/anything")).status_code == 200

            await eventually(known)
    return service


async def all_recorded(kafka: OwnKafka, before: dict[int, int], ids: list[str]) -> list[dict[str, Any]]:
    """Wait until all are in Kafka; some may be there twice, which counts once. Return them."""
    recorded = Recorded(kafka.address, before)
    found: list[dict[str, Any]] = []

    async def there() -> bool:
        found[:] = await recorded.now()
        return {event["id"] for event in found} >= set(ids)

    await eventually(there, deadline_s=60)
    assert {event["id"] for event in found} == set(ids)
    return found


def metric(service: IngestService, name: str) -> float:
    lines = HTTP.get(f"{service.url}/metrics").text.splitlines()
    return float(next((line.rpartition(" ")[2] for line in lines if line.startswith(name)), 0))


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
async def test_an_outage_of_kafka_and_the_end_of_the_process_lose_nothing_where_there_is_a_spool(
    kafka: OwnKafka, key: str, upstream: ToolUpstream, tmp_path: Path, ending: signal.Signals
) -> None:
    """More than fits into memory, then the process ends while Kafka is away: the next one brings all of it."""
    before = await ends(kafka.address)
    spool = tmp_path / "spool"
    service = await start(kafka, tmp_path, upstream, key, upstream_spool=spool)
    ids = await run(service, key, 3)
    await asyncio.to_thread(kafka.stop, kill=True)
    ids += await run(service, key, 40)
    assert metric(service, "toolledger_gateway_waiting_bytes") <= 2 << 20
    assert metric(service, "toolledger_gateway_spooled_bytes") > 3 << 20
    service.process.send_signal(ending)
    assert await asyncio.to_thread(service.process.wait, 30) == (0 if ending == signal.SIGTERM else -signal.SIGKILL)
    # Not in a thread of this test's loop: with that it would end.
    kafka.start()
    # It need not know any key, nor be asked anything.
    service = await start(kafka, tmp_path, upstream, upstream_spool=spool)
    events = await all_recorded(kafka, before, ids)
    versions: dict[str, set[str]] = {}
    for event in events:
        versions.setdefault(event["id"], set()).add(json.dumps(event))
    assert all(len(same) == 1 for same in versions.values()), "what is sent twice is the same to the byte"

    async def emptied() -> bool:
        return metric(service, "toolledger_gateway_spooled_bytes") == 0

    await eventually(emptied)
    assert await asyncio.to_thread(service.stop) == 0
    assert list(spool.iterdir()) == []


async def test_without_a_spool_what_does_not_fit_is_dropped_counted_and_logged(
    kafka: OwnKafka, key: str, upstream: ToolUpstream, tmp_path: Path
) -> None:
    """The tools run on; what fits is there when Kafka is back; recorded = published + dropped."""
    before = await ends(kafka.address)
    service = await start(kafka, tmp_path, upstream, key)
    await asyncio.to_thread(kafka.stop, kill=True)
    ids = await run(service, key, 40)
    dropped = metric(service, 'toolledger_gateway_events_total{outcome="dropped"}')
    assert 10 < dropped < 40
    # Not in a thread of this test's loop: with that it would end.
    kafka.start()
    await all_recorded(kafka, before, ids[: 40 - int(dropped)])
    assert metric(service, 'toolledger_gateway_events_total{outcome="recorded"}') == 40
    assert metric(service, 'toolledger_gateway_events_total{outcome="published"}') == 40 - dropped
    assert await asyncio.to_thread(service.stop) == 0
    assert "gateway_dropped" in service.log.read_text()


async def test_a_stop_records_what_has_not_been_answered_yet(
    kafka: OwnKafka, key: str, upstream: ToolUpstream, tmp_path: Path
) -> None:
    before = await ends(kafka.address)
    service = await start(kafka, tmp_path, upstream, key)
    arrived = asyncio.Event()

    async def silent(_request: Request, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await reader.read()

    upstream.behave = silent
    async with httpx.AsyncClient(base_url=service.url, headers={"x-api-key": key}, timeout=60) as http:
        asked = asyncio.create_task(http.post(EXECUTE, json={"user_id": "u"}))
        await asyncio.wait_for(arrived.wait(), 60)
        assert await asyncio.to_thread(service.stop) == 0
        got = await asked
    assert (got.status_code, got.json()["error"]["slug"], got.headers["x-should-retry"]) == (
        503,
        "Upstream_Interrupted",
        "false",
    )
    event = await Recorded(kafka.address, before).event()
    assert event["id"] == got.headers["x-log-id"]
    assert (event["user_id"], event["status"], event["error"]["type"]) == ("u", "failed", "gateway_stopped")


async def test_an_upstream_that_needs_no_key_is_sent_none(
    kafka: OwnKafka, key: str, upstream: ToolUpstream, tmp_path: Path
) -> None:
    service = await start(kafka, tmp_path, upstream, key)
    await run(service, key, 1)
    assert upstream.seen[-1].header("x-api-key") is None
    async with httpx.AsyncClient(base_url=service.url, headers={"x-api-key": "of nobody"}) as http:
        assert (await http.post(EXECUTE, json={})).status_code == 401
    assert await asyncio.to_thread(service.stop) == 0


async def test_an_upstream_that_is_no_address_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="TOOLLEDGER_UPSTREAM"):
        await asyncio.to_thread(IngestService.start, f"{HOST}:{free_port()}", tmp_path, upstream="backend.composio.dev")
