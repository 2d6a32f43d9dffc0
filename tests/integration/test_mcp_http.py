"""`toolledger mcp --url` between a client and a streamable HTTP server: streams, sessions and failures pass as they come."""

import asyncio
import json
import socket
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.support.mcp import Ledger, Proxied, Wrapped
from tests.support.mcp_http_server import McpHttpServer
from tests.support.tool_upstream import Request, says, tool_upstream_in_thread
from tests.support.tool_upstream import answer as raw_answer

pytestmark = pytest.mark.real

ACCEPT = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


@pytest.fixture(scope="module")
def ledger(kafka_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    with Ledger.start(kafka_address, tmp_path_factory.mktemp("ledger")) as running:
        yield running


@pytest.fixture
def server() -> Iterator[McpHttpServer]:
    with McpHttpServer.start() as running:
        yield running


@pytest.fixture
def proxied(ledger: Ledger, server: McpHttpServer) -> Iterator[Proxied]:
    with Proxied(ledger, server.url) as running:
        yield running


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60, trust_env=False) as made:
        yield made


def request(tool: str, id_: int = 7, **arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id_, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


def session() -> dict[str, str]:
    return {**ACCEPT, "mcp-session-id": f"ses_{uuid.uuid4().hex[:12]}", "mcp-protocol-version": "2025-11-25"}


def test_requests_and_answers_pass_as_they_are(proxied: Proxied, server: McpHttpServer, client: httpx.Client) -> None:
    """Method, path, query, headers and bodies, also those sent twice or in chunks; only the host's name is the server's own."""
    body = b' { "jsonrpc":"2.0" ,"id":7,"method":"tools/call","params":{"name":"json"}}\n'
    headers = [(name.encode(), value.encode()) for name, value in session().items()]
    headers += [
        (b"authorization", b"Bearer abc"),
        (b"accept-encoding", b"identity"),
        (b"x-odd", "é".encode()),
        (b"x-odd", b"2"),
    ]
    through = client.post(f"{proxied.url}?a=%2F&b", content=iter([body[:9], body[9:]]), headers=headers)
    client.cookies.clear()
    straight = client.post(f"{server.url}?a=%2F&b", content=iter([body[:9], body[9:]]), headers=headers)
    by_proxy, by_hand = server.seen
    assert (by_proxy.method, by_proxy.target, by_proxy.body) == (by_hand.method, by_hand.target, by_hand.body)
    assert by_proxy.target == "/mcp?a=%2F&b"
    # The connection is another one.
    own = (b"connection",)
    assert sorted(each for each in by_proxy.headers if each[0] not in own) == sorted(
        each for each in by_hand.headers if each[0] not in own
    )
    assert (through.status_code, through.content) == (straight.status_code, straight.content)
    assert [each for each in through.headers.raw if each[0] != b"date"] == [
        each for each in straight.headers.raw if each[0] != b"date"
    ]


def test_every_kind_of_answer_is_recorded(
    ledger: Ledger, proxied: Proxied, server: McpHttpServer, client: httpx.Client
) -> None:
    """JSON, coded JSON, an HTTP error, and a stream that breaks off; the session is the server's."""
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"clientInfo": {"name": "test", "version": "1"}}}
    client.post(proxied.url, json=hello, headers=ACCEPT)
    own = session()
    for id_, tool in enumerate(("json", "gzip", "large", "refuse"), 1):
        client.post(proxied.url, json=request(tool, id_), headers=own)
    with pytest.raises(httpx.RemoteProtocolError):
        client.post(proxied.url, json=request("break_off", 5), headers=own)
    events = ledger.await_events(own["mcp-session-id"], 5)
    assert [(event["tool_slug"], event["status"]) for event in events] == [
        ("RELEASED_JSON", "success"),
        ("RELEASED_GZIP", "success"),
        ("RELEASED_LARGE", "success"),
        ("RELEASED_REFUSE", "failed"),
        ("RELEASED_BREAK_OFF", "failed"),
    ]
    assert [event["data"]["response"]["content"][0]["text"][:6] for event in events[:3]] == ["é", "packed", "xxxxxx"]
    assert [event["error"] for event in events[3:]] == [
        {"message": "HTTP 404: Session not found", "code": 404, "type": "http_error"},
        {"message": "connection closed: the server broke off within its answer", "type": "connection_closed"},
    ]
    assert {event["metadata"]["mcp.transport"] for event in events} == {"http"}


def test_events_come_one_by_one(ledger: Ledger, proxied: Proxied, server: McpHttpServer, client: httpx.Client) -> None:
    """The server sends its second event only when the client has read the first: whoever held it back would wait for ever."""
    own = session()
    with client.stream("POST", proxied.url, json=request("events"), headers=own) as answer:
        lines = answer.iter_lines()
        assert [next(lines), json.loads(next(lines)[5:])["params"]["data"]] == ["id: 1", "first"]
        server.go.set()
        assert "second" in "".join(lines)
    (event,) = ledger.await_events(own["mcp-session-id"], 1)
    assert event["status"] == "success"


def test_a_client_that_leaves_is_seen_by_the_server(
    ledger: Ledger, proxied: Proxied, server: McpHttpServer, client: httpx.Client
) -> None:
    """Also of an open stream that it only listens to. Since 2026-07-28 this is how a call is cancelled."""
    own = {**session(), "mcp-protocol-version": "2026-07-28"}
    with client.stream("POST", proxied.url, json=request("events"), headers=own) as answer:
        next(answer.iter_raw())
    assert server.left.wait(60)
    server.left.clear()
    with client.stream("GET", proxied.url, headers=own) as answer:
        assert next(answer.iter_raw()) == b": open\n\n"
    assert server.left.wait(60)
    (event,) = ledger.await_events(own["mcp-session-id"], 1)
    assert event["error"] == {"message": "cancelled by the client: it closed the stream", "type": "cancelled"}


def test_an_answer_over_a_stream_that_is_taken_up_again_is_the_calls(
    ledger: Ledger, proxied: Proxied, client: httpx.Client
) -> None:
    """The stream of the POST ends before the answer, which comes over a GET with `Last-Event-ID`."""
    own = session()
    first = client.post(proxied.url, json=request("to_be_resumed"), headers=own)
    assert first.content == b"id: 9\ndata: \n\n"
    again = client.get(proxied.url, headers={**own, "last-event-id": "9"})
    assert "resumed" in again.text
    (event,) = ledger.await_events(own["mcp-session-id"], 1)
    assert (event["status"], event["data"]["response"]["content"][0]["text"]) == ("success", "resumed")


def test_the_end_of_a_session_passes_too(proxied: Proxied, server: McpHttpServer, client: httpx.Client) -> None:
    assert client.delete(proxied.url, headers=session()).status_code == 200
    assert server.seen[-1].method == "DELETE"


def test_a_redirect_leads_to_where_it_is_recorded(ledger: Ledger, proxied: Proxied, client: httpx.Client) -> None:
    """One to the server itself; who follows it stays with us, and made one call."""
    own = session()
    answer = client.post(proxied.url.replace("/mcp", "/old"), json=request("json"), headers=own)
    assert answer.status_code == 307
    assert answer.headers["location"] == f"{proxied.url}?from=old"
    client.post(answer.headers["location"], json=request("json"), headers=own)
    client.post(proxied.url, json=request("refuse", 8), headers=own)
    events = ledger.await_events(own["mcp-session-id"], 2)
    assert [event["status"] for event in events] == ["success", "failed"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "rebound.example"}, 403),
        ({"origin": "https://rebound.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:6274"}, 200),
        ({"host": "localhost:1"}, 200),
    ],
)
def test_pages_of_other_sites_are_refused(
    proxied: Proxied, server: McpHttpServer, client: httpx.Client, headers: dict[str, str], status: int
) -> None:
    """A page in a browser of this machine must not reach the server through us, by whatever name."""
    answer = client.post(proxied.url, json=request("json"), headers={**session(), **headers})
    assert answer.status_code == status
    assert len(server.seen) == (status == 200)


def test_a_server_that_is_away_is_a_failure_with_a_reason(ledger: Ledger, client: httpx.Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    own = session()
    with Proxied(ledger, f"http://127.0.0.1:{port}/mcp") as proxied:
        answer = client.post(proxied.url, json=request("json"), headers=own)
        assert proxied.stop() == 0
    assert answer.status_code == 502
    assert "cannot reach the MCP server" in answer.json()["error"]["message"]
    (event,) = ledger.await_events(own["mcp-session-id"], 1)
    assert event["error"]["type"] == "unreachable"


def test_a_request_that_is_refused_before_it_is_whole_is_recorded(ledger: Ledger, client: httpx.Client) -> None:
    async def refuse(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(raw_answer(b"too large", "413 Content Too Large"))
        await writer.drain()
        return False

    own = session()
    with tool_upstream_in_thread(says(b"")) as server, Proxied(ledger, f"{server.url}/mcp") as proxied:
        server.before_body = refuse
        answer = client.post(proxied.url, json=request("json", x="y" * 4_000_000), headers=own)
        assert (answer.status_code, answer.text) == (413, "too large")
        assert proxied.stop() == 0
    (event,) = ledger.await_events(own["mcp-session-id"], 1)
    assert event["error"] == {"message": "HTTP 413: too large", "code": 413, "type": "http_error"}


def test_a_status_that_no_server_can_answer_with_is_told_of(ledger: Ledger, client: httpx.Client) -> None:
    own = session()
    with tool_upstream_in_thread(says(raw_answer(b"", "999 Odd"))) as odd, Proxied(ledger, f"{odd.url}/mcp") as proxied:
        answer = client.post(proxied.url, json=request("json"), headers=own)
        assert proxied.stop() == 0
    assert answer.status_code == 502
    assert "the status 999" in answer.json()["error"]["message"]
    (event,) = ledger.await_events(own["mcp-session-id"], 1)
    assert event["error"]["type"] == "unreachable"


@pytest.mark.parametrize(("how", "kind"), [("terminate", "interrupted"), ("kill", "killed")])
def test_a_stop_records_what_is_open(ledger: Ledger, proxied: Proxied, client: httpx.Client, how: str, kind: str) -> None:
    """Asked to end or killed, with a stream open: the call is recorded as cut off, and nothing is left running."""
    own = session()
    children = psutil.Process(proxied.process.pid).children()
    with client.stream("POST", proxied.url, json=request("events"), headers=own) as answer:
        next(answer.iter_raw())
        getattr(proxied.process, how)()
        assert proxied.process.wait(60) == (0 if how == "terminate" else -9)
    (event,) = ledger.await_events(own["mcp-session-id"], 1)
    assert event["error"]["type"] == kind
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []


def test_wrong_use_is_said_in_one_line(ledger: Ledger) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with Wrapped(ledger, [], "--url", "http://127.0.0.1:9/mcp", "--port", port) as wrapped:
            code, _, error = wrapped.leave()
    assert code == 2
    assert error.startswith(f"toolledger: cannot listen on port {port}:".encode())
    for options in (["--url", "ftp://x"], [], ["--url", "http://x/mcp"]):
        command = ["cat"] if options == ["--url", "http://x/mcp"] else []
        with Wrapped(ledger, command, *options) as wrapped:
            assert wrapped.process.wait(60) == 2
