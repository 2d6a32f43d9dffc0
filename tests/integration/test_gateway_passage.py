"""What runs no tool passes the gateway as it is, both ways and at any size, and leaves no log."""

import asyncio
import contextlib
import gzip
import os
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.gateway_site import UPSTREAM_KEY, GatewaySite, Recorded, gateway_site
from tests.support.ingest_service import ends
from tests.support.tool_upstream import HOST, Request, ToolUpstream, aborts, answer, chunked, says, tool_upstream

pytestmark = pytest.mark.real

PATH = "/api/v3/connected_accounts"


@pytest.fixture(scope="module")
def site(kafka_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewaySite]:
    with gateway_site(
        kafka_address,
        tmp_path_factory.mktemp("passage"),
        upstream_timeout_s=2,
        ingest_body_timeout_s=1,
        ingest_stop_timeout_s=3,
    ) as made:
        yield made


@pytest.fixture
async def upstream(site: GatewaySite) -> AsyncIterator[ToolUpstream]:
    async with tool_upstream(site.upstream_port) as made:
        yield made


@pytest.fixture
async def http(site: GatewaySite) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"x-api-key": site.keys["full"]}
    async with httpx.AsyncClient(base_url=site.service.url, headers=headers, timeout=60) as made:
        yield made


class Wire:
    """A connection to the gateway, written to and read from byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Read a head."""
        line, *lines = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 60))[:-4].split(b"\r\n")
        return int(line.split()[1]), [(name, value) for name, value in (one.split(b": ", 1) for one in lines)]

    async def answer(self, method: str = "GET") -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Read an answer."""
        status, headers = await self.head()
        named = dict(headers)
        if method == "HEAD" or status in (204, 304):
            return status, headers, b""
        if named.get(b"transfer-encoding") != b"chunked":
            return status, headers, await self.reader.readexactly(int(named[b"content-length"]))
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return status, headers, body


@contextlib.asynccontextmanager
async def wire(site: GatewaySite) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection(HOST, site.service.port)
    yield Wire(reader, writer)
    writer.transport.abort()


class Large(bytes):
    """Bytes that a failed example names instead of showing."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


LARGE = Large(b"y" * 200_000)
PACKED = Large(gzip.compress(os.urandom(100_000)))

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12).map(lambda name: f"x-own-{name}".encode())
values = st.binary(max_size=40).map(lambda raw: bytes(b for b in raw if b >= 0x20 and b != 0x7F).strip())
many_headers = st.lists(st.tuples(names, values), max_size=8)
paths = st.text("abz019-._~!$&'()*+,;=:@%/", max_size=30).map(lambda text: "/api/v3/other/" + text.replace("%", "%41"))
queries = st.text("abz019-._~!$&'()*+,;=:@/?%", max_size=30).map(lambda text: text.replace("%", "%C3%BC"))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]),
    path=paths,
    query=queries,
    asked=many_headers,
    sent=st.none() | st.binary(max_size=300) | st.just(LARGE),
    in_chunks=st.booleans(),
    status=st.sampled_from([200, 201, 204, 206, 304, 307, 404, 418, 500, 503]),
    told=many_headers,
    back=st.binary(max_size=300) | st.just(PACKED),
    back_in_chunks=st.booleans(),
)
async def test_any_request_and_any_answer_pass_byte_for_byte(
    site: GatewaySite,
    upstream: ToolUpstream,
    method: str,
    path: str,
    query: str,
    asked: list[tuple[bytes, bytes]],
    sent: bytes | None,
    in_chunks: bool,
    status: int,
    told: list[tuple[bytes, bytes]],
    back: bytes,
    back_in_chunks: bool,
) -> None:
    """Method, path, query, headers in their order and number, body; status, headers and body back."""
    upstream.reset()
    bare = status in (204, 304)
    if bare or method == "HEAD":
        upstream.behave = says(answer(b"", f"{status} Any", told, length=not bare))
    elif back_in_chunks:
        raw = chunked([back[:7], back[7:]] if len(back) > 7 else [b"1"], told)
        back = back if len(back) > 7 else b"1"
        upstream.behave = says(raw.replace(b"200 OK", b"%d Any" % status, 1))
    else:
        upstream.behave = says(answer(back, f"{status} Any", told))
    target = f"{path}?{query}" if query else path
    lines = [b"%b: %b" % pair for pair in asked]
    if sent is not None and in_chunks:
        lines.append(b"transfer-encoding: chunked")
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (sent[:11], sent[11:]) if part) + b"0\r\n\r\n"
    elif sent is not None:
        lines.append(b"content-length: %d" % len(sent))
        body = sent
    else:
        body = b""
    head = [f"{method} {target} HTTP/1.1".encode(), b"host: here", b"x-api-key: " + site.keys["full"].encode(), *lines]
    async with wire(site) as connection:
        connection.writer.write(b"\r\n".join(head) + b"\r\n\r\n" + body)
        got = await connection.answer(method)
    (request,) = upstream.seen
    assert (request.method, request.target, request.body) == (method, target, sent or b"")
    framing = (b"content-length", b"transfer-encoding")
    assert [pair for pair in request.headers if pair[0] not in framing] == [
        (b"host", f"{HOST}:{upstream.port}".encode()),
        *asked,
        (b"x-api-key", UPSTREAM_KEY.encode()),
    ]
    assert got[0] == status
    ours = (*framing, b"date", b"x-request-id")
    assert [pair for pair in got[1] if pair[0] not in ours] == told
    assert got[2] == (b"" if bare or method == "HEAD" else back)


async def test_what_passes_leaves_no_log(site: GatewaySite, http: httpx.AsyncClient, upstream: ToolUpstream) -> None:
    """Only executions are recorded: not asking for tools, not an execution's own input, not a proxied request."""
    log = Recorded(site.kafka, await ends(site.kafka))
    for path in ("/api/v3/tools/A", "/api/v3.1/tools/execute/A/input", "/api/v3.1/tools/execute/proxy"):
        assert (await http.post(path, json={})).status_code == 200
    assert (await http.get("/api/v3.1/tools/execute/A")).status_code == 200
    assert (await http.post("/api/v3.1/tools/execute/A", json={})).status_code == 200
    assert (await log.event())["tool_slug"] == "A"
    assert len(upstream.seen) == 5


async def test_an_upload_of_any_size_is_streamed_and_may_take_longer_than_a_body_that_is_read_here(
    site: GatewaySite, upstream: ToolUpstream
) -> None:
    """The upstream has the first part before the last is sent; a length that was given stays one."""
    first = asyncio.Event()
    size = 0

    async def count(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        nonlocal size
        assert request.header("content-length") == str(24 << 20)
        assert request.header("expect") is None
        while size < 24 << 20:
            size += len(await reader.read(1 << 20))
            first.set()
        writer.write(answer(b"{}"))
        return True

    upstream.before_body = count
    async with wire(site) as connection:
        key = site.keys["full"]
        head = (
            f"PUT {PATH} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-length: {24 << 20}\r\nexpect: 100-continue\r\n\r\n"
        )
        connection.writer.write(head.encode())
        assert (await connection.head())[0] == 100
        connection.writer.write(b"x" * (1 << 20))
        await asyncio.wait_for(first.wait(), 60)
        for _ in range(23):
            # Slower as a whole than `ingest_body_timeout_s`, which holds for bodies that are read here.
            await asyncio.sleep(0.06)
            connection.writer.write(b"x" * (1 << 20))
            await connection.writer.drain()
        assert (await connection.answer())[0] == 200
    assert size == 24 << 20


async def test_an_answer_that_comes_before_the_upload_ends_is_passed_on_at_once(
    site: GatewaySite, upstream: ToolUpstream
) -> None:
    async def refuse(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(answer(b"too large", "413 Content Too Large", [(b"connection", b"close")]))
        return True

    upstream.before_body = refuse
    async with wire(site) as connection:
        key = site.keys["full"]
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n"
        connection.writer.write(head.encode())
        status, _, body = await connection.answer()
    assert (status, body) == (413, b"too large")


async def test_a_stream_of_events_arrives_as_it_comes_and_ends_with_its_reader(
    http: httpx.AsyncClient, upstream: ToolUpstream
) -> None:
    ended = asyncio.Event()

    async def stream(_request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
        await reader.read()
        ended.set()

    upstream.behave = stream
    async with http.stream("GET", "/api/v3/stream") as got:
        assert await anext(got.aiter_raw()) == b"data: 1\n\n"
    await asyncio.wait_for(ended.wait(), 60)


async def test_a_reader_who_is_slow_makes_the_upstream_wait(site: GatewaySite, upstream: ToolUpstream) -> None:
    """Nothing piles up here: of a hundred megabytes only what fits into sockets and a bounded buffer is taken."""
    written = 0

    async def flood(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n")
        for _ in range(100):
            writer.write(bytes(1 << 20))
            await writer.drain()
            written += 1

    upstream.behave = flood
    async with wire(site) as connection:
        connection.writer.write(f"GET /api/v3/big HTTP/1.1\r\nhost: x\r\nx-api-key: {site.keys['full']}\r\n\r\n".encode())
        await connection.head()
        before = -1
        while before != written:
            before = written
            await asyncio.sleep(0.5)
        assert written < 50
        left = 100 << 20
        while left:
            left -= len(await connection.reader.read(1 << 20))
    assert written == 100


async def test_a_question_is_asked_again_on_a_new_connection_where_the_kept_one_was_closed(
    http: httpx.AsyncClient, upstream: ToolUpstream
) -> None:
    """Only what changes nothing; anything else may have been done already."""
    attempts = 0

    async def close_second(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 2:
            writer.transport.abort()
        else:
            writer.write(answer(b"{}"))

    for method, status, sent in (("GET", 200, 3), ("DELETE", 502, 2)):
        upstream.behave, attempts = close_second, 0
        assert (await http.request(method, PATH)).status_code == 200
        assert (await http.request(method, PATH)).status_code == status
        assert attempts == sent


@pytest.mark.parametrize(
    ("said", "slug"),
    [
        (b"", "Upstream_BrokeOff"),
        (b"garbage\r\n\r\n", "Upstream_BrokeOff"),
        (answer(b"no", "999 Denied"), "Upstream_BrokeOff"),
        (None, "Upstream_TimedOut"),
    ],
)
async def test_an_upstream_without_an_answer_is_a_502_or_504(
    http: httpx.AsyncClient, upstream: ToolUpstream, said: bytes | None, slug: str
) -> None:
    async def silent(_request: Request, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    upstream.behave = silent if said is None else aborts(said)
    got = await http.post(PATH, json={})
    assert (got.status_code, got.json()["error"]["slug"]) == (504 if said is None else 502, slug)


async def test_a_broken_answer_is_seen_as_broken(http: httpx.AsyncClient, upstream: ToolUpstream) -> None:
    upstream.behave = aborts(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get(PATH)


async def test_trailers_and_interim_answers_disturb_nothing(http: httpx.AsyncClient, upstream: ToolUpstream) -> None:
    trailers = b"x-sum: 1\r\ncontent-type: text/plain\r\n"
    upstream.behave = says(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + chunked([b"{}"], trailers=trailers))
    for _ in range(2):
        got = await http.get(PATH)
        assert (got.status_code, got.content, got.headers["content-type"]) == (200, b"{}", "application/json")
        assert not {"link", "x-sum"} & set(got.headers)
    assert upstream.connections == 1


async def test_trailers_of_a_request_end_here(site: GatewaySite, upstream: ToolUpstream) -> None:
    async with wire(site) as connection:
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nx-api-key: {site.keys['full']}\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.writer.write(head.encode() + b"2\r\n{}\r\n0\r\nx-sum: 1\r\n\r\n")
        assert (await connection.answer("POST"))[0] == 200
    (request,) = upstream.seen
    assert (request.body, request.header("x-sum")) == (b"{}", None)


async def test_a_304_may_tell_the_length_of_what_it_stands_for(site: GatewaySite, upstream: ToolUpstream) -> None:
    upstream.behave = says(answer(b"", "304 Not Modified", [(b"etag", b'"a"'), (b"content-length", b"1234")], length=False))
    async with wire(site) as connection:
        for _ in range(2):
            connection.writer.write(f"GET {PATH} HTTP/1.1\r\nhost: x\r\nx-api-key: {site.keys['full']}\r\n\r\n".encode())
            status, headers, _ = await connection.answer("HEAD")
            assert (status, dict(headers)[b"etag"]) == (304, b'"a"')


async def test_what_comes_behind_an_answer_is_no_answer(http: httpx.AsyncClient, upstream: ToolUpstream) -> None:
    upstream.behave = says(answer(b"{}") + answer(b"bad", "500 Bad"))
    for _ in range(2):
        got = await http.get(PATH)
        assert (got.status_code, got.content) == (200, b"{}")


async def test_headers_of_one_connection_end_here(site: GatewaySite, upstream: ToolUpstream) -> None:
    upstream.behave = says(
        answer(
            b"{}",
            headers=[(b"connection", b"keep-alive, x-hop"), (b"keep-alive", b"timeout=5"), (b"x-hop", b"1"), (b"x-end", b"1")],
        )
    )
    async with wire(site) as connection:
        lines = "connection: keep-alive, x-mine\r\nx-mine: 1\r\nte: trailers\r\nproxy-authorization: Basic eDp5\r\nx-end: 1"
        head = f"GET {PATH} HTTP/1.1\r\nhost: x\r\nx-api-key: {site.keys['full']}\r\n{lines}\r\n\r\n"
        connection.writer.write(head.encode())
        _, headers, _ = await connection.answer()
    assert [name for name, _ in upstream.seen[0].headers] == [b"host", b"x-end", b"x-api-key"]
    assert not {b"x-hop", b"keep-alive"} & {name for name, _ in headers}
    assert (b"x-end", b"1") in headers


async def test_websockets_are_refused_plainly(site: GatewaySite, upstream: ToolUpstream) -> None:
    async with wire(site) as connection:
        lines = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: " + os.urandom(8).hex()
        head = f"GET /api/v3/socket HTTP/1.1\r\nhost: x\r\nx-api-key: {site.keys['full']}\r\n{lines}\r\n\r\n"
        connection.writer.write(head.encode())
        status, _, body = await connection.answer()
    assert (status, upstream.seen) == (501, [])
    assert b"websockets are not passed on" in body


async def test_our_own_routes_stay_ours(http: httpx.AsyncClient, upstream: ToolUpstream) -> None:
    """Without a query service they are not there; in no case are they the upstream's."""
    for path in ("/api/v3.1/logs/tool_execution", "/api/v3.1/project/usage/summary", "/v1/usage", "/docs", "/"):
        assert (await http.post(path, json={})).status_code == 404
    assert upstream.seen == []
