"""What is not ingest's own goes to the query service and comes back as it is, also streams, large bodies and broken answers."""

import asyncio
import contextlib
import gzip
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from tests.support.ingest_service import IngestService
from tests.support.ports import HOST, free_port

pytestmark = pytest.mark.real


class Upstream:
    """A small HTTP server in the place of the query service; it notes what reached it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.seen: list[web.Request] = []
        self.gone = asyncio.Event()
        self.started = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        match request.path:
            case "/stream":
                answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
                await answer.prepare(request)
                await answer.write(b"data: 1\n\n")
                self.started.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    self.gone.set()
            case "/slow":
                self.started.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    self.gone.set()
            case "/broken":
                broken = web.StreamResponse(headers={"content-length": "100"})
                await broken.prepare(request)
                await broken.write(b"half")
                assert request.transport is not None
                request.transport.abort()
                return broken
            case "/abort":
                assert request.transport is not None
                request.transport.abort()
            case "/gzip":
                return web.Response(body=gzip.compress(b"text"), headers={"content-encoding": "gzip", "x-own": "ü"})
            case "/cookies":
                cookies = web.Response(status=207, headers={"x-request-id": "upstream-made"})
                cookies.headers.add("set-cookie", "a=1")
                cookies.headers.add("set-cookie", "b=2")
                return cookies
        body = await request.read()
        return web.json_response(
            {
                "method": request.method,
                "raw_path": request.raw_path,
                "length": len(body),
                "first": body[:20].decode("latin-1"),
                "headers": {name.lower(): value for name, value in request.headers.items()},
            }
        )


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    made = Upstream()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{tail:.*}", made.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, made.port).start()
    yield made
    await runner.cleanup()


@pytest.fixture
def head_timeout_s() -> int:
    """How long the query service may take to begin its answer."""
    return 60


@pytest.fixture
async def service(upstream: Upstream, tmp_path: Path, head_timeout_s: int) -> AsyncIterator[IngestService]:
    # No Kafka is needed to forward, and none that is away may keep questions from being answered.
    running = await asyncio.to_thread(
        IngestService.start,
        f"{HOST}:{free_port()}",
        tmp_path,
        ready=False,
        query_url=f"http://{HOST}:{upstream.port}",
        query_head_timeout_s=head_timeout_s,
    )
    yield running
    assert await asyncio.to_thread(running.stop) == 0


@pytest.fixture
async def http(service: IngestService) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(service.url, auto_decompress=False) as session:
        yield session


async def test_path_query_headers_and_body_reach_the_query_service_unchanged(http: aiohttp.ClientSession) -> None:
    target = URL(f"{http._base_url}/api/v3.1/logs%2Fodd/%C3%BC;x?q=a%20b&q=&z=%2B", encoded=True)
    answer = await http.post(
        target, data=b'{"limit":5}', headers={"x-api-key": "k", "content-type": "application/json", "x-own": "1"}
    )
    seen = await answer.json()
    assert seen["method"] == "POST"
    assert seen["raw_path"] == "/api/v3.1/logs%2Fodd/%C3%BC;x?q=a%20b&q=&z=%2B"
    assert seen["first"] == '{"limit":5}'
    assert seen["headers"]["x-api-key"] == "k"
    assert seen["headers"]["x-own"] == "1"
    assert seen["headers"]["host"] == f"{HOST}:{target.port}"
    assert seen["headers"]["x-request-id"] == answer.headers["x-request-id"]


async def test_no_header_is_invented_on_the_way(service: IngestService) -> None:
    reader, writer = await asyncio.open_connection(HOST, service.port)
    writer.write(b"GET /bare HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    for name in ("accept", "user-agent", "content-type", "content-length", "transfer-encoding"):
        assert f'"{name}"' not in text


async def test_status_repeated_headers_and_encodings_come_back_unchanged(http: aiohttp.ClientSession) -> None:
    answer = await http.get("/cookies")
    assert answer.status == 207
    assert answer.headers.getall("set-cookie") == ["a=1", "b=2"]
    assert answer.headers["x-request-id"] == "upstream-made"
    assert len(answer.headers.getall("date")) == 1
    answer = await http.get("/gzip")
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(await answer.read()) == b"text"
    answer = await http.head("/anything")
    assert answer.status == 200
    assert int(answer.headers["content-length"]) > 0


async def test_large_bodies_are_streamed_with_and_without_a_length(http: aiohttp.ClientSession) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield b"x" * 65_536

    assert (await (await http.put("/large", data=chunks())).json())["length"] == 300 * 65_536
    assert (await (await http.put("/large", data=b"x" * 20_000_000)).json())["length"] == 20_000_000


async def test_an_event_stream_arrives_as_it_comes_and_its_end_reaches_the_query_service(
    http: aiohttp.ClientSession, upstream: Upstream
) -> None:
    answer = await http.get("/stream")
    assert await answer.content.readuntil(b"\n\n") == b"data: 1\n\n"
    answer.close()
    await asyncio.wait_for(upstream.gone.wait(), 60)


async def test_a_client_that_goes_away_cancels_its_question(http: aiohttp.ClientSession, upstream: Upstream) -> None:
    question = asyncio.create_task(http.get("/slow"))
    await asyncio.wait_for(upstream.started.wait(), 60)
    question.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await question
    await asyncio.wait_for(upstream.gone.wait(), 30)


@pytest.mark.parametrize("head_timeout_s", [1])
async def test_a_query_service_that_fails_is_told_as_502_504_or_a_broken_answer(http: aiohttp.ClientSession) -> None:
    answer = await http.get("/abort")
    assert (answer.status, (await answer.json())["error"]["slug"]) == (502, "Query_BrokeOff")
    answer = await http.get("/slow")
    assert (answer.status, (await answer.json())["error"]["code"]) == (504, 10504)
    with pytest.raises(aiohttp.ClientPayloadError):
        await (await http.get("/broken")).read()


async def test_a_query_service_that_is_away_is_503_with_retry_after(tmp_path: Path) -> None:
    nowhere = f"{HOST}:{free_port()}"
    running = await asyncio.to_thread(IngestService.start, nowhere, tmp_path, ready=False, query_url=f"http://{nowhere}")
    async with aiohttp.ClientSession(running.url) as http:
        answer = await http.get("/v1/usage", headers={"x-request-id": "mine"})
        assert (answer.status, answer.headers["retry-after"]) == (503, "2")
        assert (await answer.json())["error"]["request_id"] == "mine"
    assert await asyncio.to_thread(running.stop) == 0


async def test_a_stop_ends_event_streams_instead_of_waiting_for_them(
    http: aiohttp.ClientSession, service: IngestService
) -> None:
    answer = await http.get("/stream")
    await answer.content.readuntil(b"\n\n")
    began = time.monotonic()
    stopping = asyncio.create_task(asyncio.to_thread(service.stop))
    assert await answer.content.read() == b""
    assert await stopping == 0
    assert time.monotonic() - began < 12


@pytest.mark.parametrize(
    ("answer", "closes"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\nuntil the end", False),
        # Closed without a word: the kept connection must not be used for the next question.
        (b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\nuntil the end", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nuntil \r\n7\r\nthe end\r\n0\r\n\r\n", False),
    ],
)
async def test_answers_of_every_length_and_ending_are_understood(tmp_path: Path, answer: bytes, closes: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await writer.drain()
                if closes:
                    break
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    nowhere = f"{HOST}:{free_port()}"
    running = await asyncio.to_thread(IngestService.start, nowhere, tmp_path, ready=False, query_url=f"http://{HOST}:{port}")
    async with aiohttp.ClientSession(running.url) as http:
        for _ in range(5):
            async with http.get("/any") as got:
                assert (got.status, await got.read()) == (200, b"until the end")
    assert await asyncio.to_thread(running.stop) == 0
    server.close()
