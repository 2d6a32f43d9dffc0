"""Connections that are slow, half-dead or lie, and keys that flood: they are cut or refused, and nobody else notices."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from deploy.topics import apply
from ingest.contract.topics import topics
from ingest.keys import create_key
from tests.support.ingest_service import IngestService, eventually

pytestmark = pytest.mark.real

HOST = "127.0.0.1"
IN_FLIGHT_BYTES_MAX = 8 << 20
BODY = json.dumps({"tool_slug": "A", "status": "success", "duration_ms": 1}).encode()


@pytest.fixture(scope="module")
def service(kafka_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IngestService]:
    apply(kafka_address, topics())
    with IngestService.start(
        kafka_address,
        tmp_path_factory.mktemp("ingest"),
        ingest_in_flight_bytes_max=IN_FLIGHT_BYTES_MAX,
        ingest_head_timeout_s=1,
        ingest_body_idle_timeout_s=1,
        ingest_body_timeout_s=3,
        ingest_unread_timeout_s=1,
        ingest_publishing_bytes_max=1 << 20,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def keys(kafka_address: str, service: IngestService) -> tuple[str, str]:
    async def make() -> tuple[str, str]:
        made = [(await create_key(kafka_address, project_id=f"connections-{name}"))[1] for name in "ab"]
        async with httpx.AsyncClient(base_url=service.url) as http:
            for plain in made:

                async def known(key: str = plain) -> bool:
                    return (await http.post("/v1/events", content=BODY, headers={"x-api-key": key})).status_code == 202

                await eventually(known)
        return made[0], made[1]

    return asyncio.run(make())


@pytest.fixture
async def http(service: IngestService) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url, timeout=60) as made:
        yield made


def head(key: str, length: int, *more: str) -> bytes:
    lines = ["POST /v1/events HTTP/1.1", "host: x", f"x-api-key: {key}", f"content-length: {length}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Read until the other side closes."""
    try:
        return await asyncio.wait_for(reader.read(), 60)
    except ConnectionResetError:
        return b""


async def test_a_head_that_drips_is_cut(service: IngestService, keys: tuple[str, str]) -> None:
    """However steadily a byte comes: what counts is when the head is whole."""
    reader, writer = await asyncio.open_connection(HOST, service.port)
    dripping = asyncio.create_task(_drip(writer, head(keys[0], 2), 0.2))
    assert await ended(reader) == b""
    dripping.cancel()
    writer.close()


async def test_a_body_that_drips_is_408(service: IngestService, keys: tuple[str, str]) -> None:
    """Never silent for long, never done."""
    reader, writer = await asyncio.open_connection(HOST, service.port)
    writer.write(head(keys[0], 1000))
    dripping = asyncio.create_task(_drip(writer, b"[" + b" " * 900, 0.2))
    assert (await ended(reader)).startswith(b"HTTP/1.1 408 ")
    dripping.cancel()
    writer.close()


async def _drip(writer: asyncio.StreamWriter, data: bytes, pause_s: float) -> None:
    for byte in data:
        writer.write(bytes([byte]))
        try:
            await writer.drain()
        except ConnectionError:
            return
        await asyncio.sleep(pause_s)


async def test_a_client_that_never_reads_is_cut(service: IngestService, keys: tuple[str, str], http: httpx.AsyncClient) -> None:
    """It asks and asks; when its answers fill what the system holds for it, it is given up, and what it held is given back."""
    connection = socket.create_connection((HOST, service.port))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(0.5)
    # Refusals of each item make answers far larger than what asks for them.
    body = b"[" + b",".join([b"1"] * 9000) + b"]"
    request = head(keys[0], len(body)) + body
    cut = False
    until = time.monotonic() + 120
    while not cut and time.monotonic() < until:
        try:
            connection.send(request)
        except TimeoutError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            cut = True
    assert cut
    connection.close()

    async def nothing_held() -> bool:
        return "in_flight_bytes 0.0" in (await http.get("/metrics")).text

    await eventually(nothing_held)


async def test_a_length_that_lies_is_answered_and_the_connection_is_not_trusted_again(
    service: IngestService, keys: tuple[str, str]
) -> None:
    """Too long: 408 when nothing more comes. Too short: the rest is no request. Two lengths, or both framings: 400."""
    reader, writer = await asyncio.open_connection(HOST, service.port)
    writer.write(head(keys[0], len(BODY) + 5) + BODY)
    assert (await ended(reader)).startswith(b"HTTP/1.1 408 ")
    for request in (
        head(keys[0], len(BODY) - 5) + BODY,
        head(keys[0], len(BODY), "content-length: 1") + BODY,
        head(keys[0], len(BODY), "transfer-encoding: chunked") + BODY,
        head(keys[0], len(BODY)).replace(b"content-length: ", b"content-length: -") + BODY,
        head(keys[0], len(BODY)).replace(b"content-length: ", b"content-length: 99999999999999999999") + BODY,
    ):
        reader, writer = await asyncio.open_connection(HOST, service.port)
        writer.write(request)
        said = await ended(reader)
        assert said.startswith(b"HTTP/1.1 4"), (request[:200], said[:200])
        assert b"HTTP/1.1 2" not in said
        writer.close()


async def test_pipelined_requests_are_answered_in_order(service: IngestService, keys: tuple[str, str]) -> None:
    """Good and bad ones, all sent at once."""
    reader, writer = await asyncio.open_connection(HOST, service.port)
    bad = b"[1]"
    requests = [(BODY, 202), (bad, 400), (b"", 400), (BODY, 202)] * 3
    writer.write(b"".join(head(keys[0], len(body)) + body for body, _ in requests))
    for _, status in requests:
        line = await asyncio.wait_for(reader.readline(), 60)
        assert line.startswith(f"HTTP/1.1 {status} ".encode())
        length = 0
        while (header := await reader.readline()) != b"\r\n":
            if header.lower().startswith(b"content-length:"):
                length = int(header.split(b":")[1])
        await reader.readexactly(length)
    writer.close()


async def test_a_key_that_holds_its_share_is_429_and_others_are_not(
    service: IngestService, keys: tuple[str, str], http: httpx.AsyncClient
) -> None:
    """Half of all is what one key may hold; the other half is there for whoever comes."""
    flooding, other = keys
    held = []
    for _ in range(4):
        connection = socket.create_connection((HOST, service.port))
        connection.sendall(head(flooding, 2 << 20) + b"[")
        held.append(connection)

    async def status(key: str) -> int:
        return (await http.post("/v1/events", content=BODY, headers={"x-api-key": key})).status_code

    async def is_refused() -> bool:
        return await status(flooding) == 429

    await eventually(is_refused)
    answer = await http.post("/v1/events", content=BODY, headers={"x-api-key": flooding})
    assert int(answer.headers["retry-after"]) > 0
    assert str(IN_FLIGHT_BYTES_MAX) in answer.json()["error"]["message"]
    assert await status(other) == 202
    for connection in held:
        connection.close()

    async def is_over() -> bool:
        return await status(flooding) == 202

    await eventually(is_over)


async def test_everything_of_two_keys_at_once_is_answered_and_accepted(
    service: IngestService, keys: tuple[str, str], http: httpx.AsyncClient
) -> None:
    """More than fits on the way to Kafka at once, in one connection each: turns let all of it through, 429 is told as such."""
    batch: list[dict[str, Any]] = [{"tool_slug": "A", "status": "success", "duration_ms": 1, "data": {"x": "x" * 900}}] * 500

    async def send(key: str) -> set[int]:
        statuses = set()
        for _ in range(6):
            statuses.add((await http.post("/v1/events", json=batch, headers={"x-api-key": key})).status_code)
        return statuses

    found = await asyncio.gather(*(send(keys[number % 2]) for number in range(8)))
    assert set().union(*found) <= {202, 429}
    assert all(202 in statuses for statuses in found)
