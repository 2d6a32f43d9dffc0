"""Connections that are slow, half-dead, oversized or no HTTP at all: cut in time, with an answer where one fits."""

import asyncio
import contextlib
import json
import resource
import signal
import socket
import sys

import pytest
import pytest_asyncio

from ingest.contract.http_connections import HEAD_BYTES_MAX, Patience
from tests.support import rows
from tests.support.query_service import KEY_A, query_service

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

PATIENCE = Patience(head_s=1, idle_s=1, body_s=2.5, unread_s=1)
LOGS = "/api/v3.1/logs/tool_execution"
# No judgement of speed: what is never cut fails by this, on however slow a machine.
CUT_S = 60


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(clickhouse_url):
    with rows.fresh_database(clickhouse_url) as url:
        async with query_service(url, patience=PATIENCE) as running:
            yield running


@contextlib.asynccontextmanager
async def connected(service):
    """A bare connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(service.url.rpartition(":")[2]))
    try:
        yield reader, writer
    finally:
        writer.close()


def head(method="POST", path=LOGS, **headers):
    """A request's head; names as Python writes them."""
    given = {"host": "x", "x_api_key": KEY_A, **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in given.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode()


async def answer(reader):
    """The status and the error of one answer that ends with the connection, or with its length."""
    lines = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), CUT_S)).decode().split("\r\n")
    length = next(int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length"))
    return int(lines[0].split()[1]), json.loads(await reader.readexactly(length))


async def drip(writer, drops, pause_s=0.25):
    """Send drop by drop, for as long as the other side takes them."""
    with contextlib.suppress(ConnectionError):
        for drop in drops:
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(pause_s)


@pytest.mark.parametrize(
    "drops",
    [
        [],
        [bytes([one]) for one in head()[:200]],
        [b"\r\n"] * 200,
        [head(method="GET", path="/healthz"), *[b"\r\n"] * 200],
        [head(method="GET", path="/healthz"), *[bytes([one]) for one in head()[:200]]],
    ],
    ids=["silent", "dripped", "line breaks", "line breaks after an answer", "dripped after an answer"],
)
async def test_a_head_that_does_not_come_is_cut(service, drops):
    """A connection that has not sent a whole head in time ends, however it keeps itself busy."""
    async with connected(service) as (reader, writer):
        dripping = asyncio.create_task(drip(writer, drops))
        await asyncio.wait_for(reader.read(), CUT_S)
        dripping.cancel()


@pytest.mark.parametrize("drops", [[], [b" "] * 1000], ids=["silent", "dripped"])
async def test_a_body_that_does_not_come_is_408(service, drops):
    """Silence is cut, and so is a body in drops; the answer is an Error body, and nothing of it is left in the service."""
    async with connected(service) as (reader, writer):
        writer.write(head(content_length=1000) + b"{")
        dripping = asyncio.create_task(drip(writer, drops))
        status, body = await answer(reader)
        dripping.cancel()
        assert (status, body["error"]["code"]) == (408, 10408)
        assert await reader.read() == b""


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (head(x_long="x" * HEAD_BYTES_MAX), 431),
        (head(**{f"x_{number}": "y" * 100 for number in range(700)}), 431),
        (head(x_api_key="ak_" + "k" * HEAD_BYTES_MAX), 431),
        (head(method="GET", path="/v1/usage?user_id=" + "u" * HEAD_BYTES_MAX), 414),
        (head(method="GET", path=LOGS + "/" + "i" * HEAD_BYTES_MAX), 414),
        # Never ending: refused as soon as it is too much, and read on for a while, so that the refusal arrives.
        (b"GET / HTTP/1.1\r\nx-long: " + b"x" * 3_000_000, 431),
        (b"GET /" + b"x" * 3_000_000, 414),
        (b"GET / nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (head(x_control="a\x00b"), 400),
        (head(content_length="-1"), 400),
        (head(content_length=5, transfer_encoding="chunked") + b"0\r\n\r\n", 400),
        (head(transfer_encoding="chunked") + b"zz\r\n", 400),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_cannot_be_taken_is_refused_with_the_error_body(service, sent, status):
    """Huge heads and URLs, and what is no HTTP."""
    async with connected(service) as (reader, writer):
        sending = asyncio.create_task(drip(writer, [sent]))
        got, body = await answer(reader)
        assert (got, body["error"]["code"], body["error"]["status"]) == (status, 10_000 + status, status)
        assert body["error"]["request_id"]
        assert KEY_A not in str(body)
        assert await asyncio.wait_for(reader.read(), CUT_S) == b""
        sending.cancel()


async def test_a_head_within_the_limit_is_taken(service):
    """Also one that comes in pieces, behind another request, and in front of a body larger than the limit."""
    long = head(method="GET", path="/v1/freshness", x_long="x" * (HEAD_BYTES_MAX - 500))
    async with connected(service) as (reader, writer):
        for sent in (long[:100], long[100:], long + long, head(content_length=200_000) + b" " * 200_000, head(method="GET")):
            writer.write(sent)
        statuses = [(await answer(reader))[0] for _ in range(5)]
        assert statuses == [200, 200, 200, 200, 405]


async def test_an_answer_that_nobody_reads_is_given_up(service):
    """Its connection is cut, and what it holds is free again."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", int(service.url.rpartition(":")[2])))
        with pytest.raises(ConnectionError):  # noqa: PT012 - which of the requests is the first too many depends on buffers
            async with asyncio.timeout(CUT_S):
                while True:
                    await loop.sock_sendall(client, head(method="GET", path="/metrics"))
    assert (await service.get("/healthz", key=None)).status == 200


async def test_more_connections_are_taken_than_the_usual_limit_of_files(clickhouse_url):
    """A soft limit is raised to what the machine allows: clients that stay do not keep others out."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "query_api.run"),
        env={"TOOLLEDGER_QUERY_PORT": str(port), "TOOLLEDGER_CLICKHOUSE": clickhouse_url, "TOOLLEDGER_KAFKA": "127.0.0.1:9"},
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard)),
    )
    assert process.stderr is not None
    assert b"query_listening" in await asyncio.wait_for(process.stderr.readline(), CUT_S)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(200):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        stack.callback(writer.close)
        writer.write(head(method="GET", path="/healthz"))
        assert (await answer(reader))[0] == 200
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), CUT_S) == 0
