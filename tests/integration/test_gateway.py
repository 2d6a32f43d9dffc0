"""The gateway between a caller and an upstream of ours: tools run once, callers get their answers, Kafka has what happened."""

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from tests.support.gateway_site import UPSTREAM_KEY, GatewaySite, Recorded, gateway_site
from tests.support.ingest_service import ends
from tests.support.tool_upstream import HOST, Request, ToolUpstream, aborts, answer, chunked, says, says_json, tool_upstream

pytestmark = pytest.mark.real

HELD_MAX = 64 * 1024
EXECUTE = "/api/v3.1/tools/execute/GMAIL_SEND_EMAIL"
SUCCESS = {"data": {"id": "m1"}, "error": None, "successful": True}


@pytest.fixture(scope="module")
def site(kafka_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewaySite]:
    with gateway_site(
        kafka_address,
        tmp_path_factory.mktemp("gateway"),
        upstream_timeout_s=2,
        upstream_held_bytes_max=HELD_MAX,
        upstream_spool=tmp_path_factory.mktemp("spool"),
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


@pytest.fixture
async def log(site: GatewaySite) -> Recorded:
    return Recorded(site.kafka, await ends(site.kafka))


async def test_a_tool_runs_once_and_its_log_has_the_upstreams_id(
    http: httpx.AsyncClient, upstream: ToolUpstream, log: Recorded
) -> None:
    """The answer is the upstream's to the byte, and the event under its id says who called what, when and with what result."""
    raw = b'{"data": {"id":"m1"} ,\n"error":null,"successful":true,"log_id":"log_of_upstream"}'
    upstream.behave = says(answer(raw, headers=[(b"content-type", b"application/json"), (b"x-own", b"1"), (b"x-own", b"2")]))
    body = {"user_id": "user_1", "connected_account_id": "ca_1", "version": "v2", "arguments": {"to": "a@b.c", "n": 1.50}}
    got = await http.post(
        f"{EXECUTE}?a=b&a=%20",
        json=body,
        headers={"x-request-id": "req-1", "x-framework": "langchain", "x-source": "PYTHON_SDK"},
    )
    assert (got.status_code, got.content, got.headers["x-log-id"]) == (200, raw, "log_of_upstream")
    assert got.headers.get_list("x-own") == ["1", "2"]
    (request,) = upstream.seen
    assert (request.method, request.target, request.json()) == ("POST", f"{EXECUTE}?a=b&a=%20", body)
    assert (request.header("x-api-key"), request.header("host")) == (UPSTREAM_KEY, f"{HOST}:{upstream.port}")
    event = await log.event()
    assert event["_project"] == "gate"
    assert (event["id"], event["tool_slug"], event["status"]) == ("log_of_upstream", "GMAIL_SEND_EMAIL", "success")
    assert (event["user_id"], event["connected_account_id"]) == ("user_1", "ca_1")
    assert event["data"] == {"request": body, "response": json.loads(raw)}
    assert event["context"] == {"request_id": "req-1"}
    assert event["source"] == {"host": "sdk", "framework": "langchain"}
    assert event["metadata"] == {"gateway": {"upstream": f"{HOST}:{upstream.port}", "status": 200}, "tool_version": "v2"}
    assert event["duration_ms"] > 0


async def test_an_answer_without_a_log_id_gets_one_and_keeps_every_other_byte(
    http: httpx.AsyncClient, upstream: ToolUpstream, log: Recorded
) -> None:
    raw = b'{ "data":{"log_id":"not this"},"n":1.50, "successful":true }\n'
    upstream.behave = says(answer(raw))
    got = await http.post("/api/v3/tools/execute/GMAIL_SEND_EMAIL", json={})
    event = await log.event()
    assert event["id"] == got.headers["x-log-id"] == got.json()["log_id"]
    assert got.content == raw.replace(b" }\n", b' ,"log_id":"%b"}\n' % event["id"].encode())


async def test_a_request_in_chunks_and_packed_is_understood(
    http: httpx.AsyncClient, upstream: ToolUpstream, log: Recorded
) -> None:
    """It goes on as the bytes it came as, in one piece; the request id is the one that the caller sees."""
    packed = gzip.compress(b'{"user_id":"u","arguments":{}}')

    async def parts() -> AsyncIterator[bytes]:
        yield packed[:9]
        yield packed[9:]

    headers = [(b"content-type", b"application/json"), (b"x-request-id", b"of-the-upstream")]
    upstream.behave = says(answer(b"{}", headers=headers))
    got = await http.post(EXECUTE, content=parts(), headers={"content-encoding": "gzip", "content-type": "application/json"})
    (request,) = upstream.seen
    assert (request.body, request.header("content-length")) == (packed, str(len(packed)))
    assert request.header("transfer-encoding") is None
    event = await log.event()
    assert (event["user_id"], event["context"]["request_id"]) == ("u", got.headers["x-request-id"])


async def test_a_packed_answer_without_a_log_id_comes_unpacked_with_one(
    http: httpx.AsyncClient, upstream: ToolUpstream, log: Recorded
) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")]
    upstream.behave = says(answer(gzip.compress(json.dumps(SUCCESS).encode()), headers=headers))
    got = await http.post(EXECUTE, json={}, headers={"accept-encoding": "br;q=1.0, gzip"})
    assert upstream.seen[0].header("accept-encoding") == "gzip"
    assert "content-encoding" not in got.headers
    event = await log.event()
    assert got.json() == SUCCESS | {"log_id": event["id"]}
    upstream.behave = says(answer(packed := gzip.compress(b'{"log_id":"log_packed","successful":true}'), headers=headers))
    async with http.stream("POST", EXECUTE, json={}) as streamed:
        assert b"".join([part async for part in streamed.aiter_raw()]) == packed
        assert streamed.headers["x-log-id"] == "log_packed"


async def test_a_sessions_execution_names_tool_session_and_the_user_seen_when_it_was_made(
    http: httpx.AsyncClient, upstream: ToolUpstream, log: Recorded
) -> None:
    upstream.behave = says_json({"session_id": "trs_1", "config": {"user_id": "user_of_session"}}, "201 Created")
    assert (await http.post("/api/v3.1/tool_router/session", json={"user_id": "user_of_session"})).status_code == 201
    upstream.behave = says_json({"result_type": "failed", "data": {}, "error": "Invalid recipient", "log_id": "log_s1"})
    await http.post("/api/v3.1/tool_router/session/trs_1/execute", json={"tool_slug": "GMAIL_SEND_EMAIL", "arguments": {}})
    upstream.behave = says_json({"result_type": "completed", "data": {}, "error": None, "log_id": "log_s2"})
    await http.post("/api/v3.1/tool_router/session/trs_1/execute_meta", json={"slug": "COMPOSIO_SEARCH_TOOLS"})
    failed, meta = sorted(await log.events(2), key=lambda event: event["id"])
    for event in (failed, meta):
        assert (event["session_id"], event["user_id"]) == ("trs_1", "user_of_session")
    assert (failed["tool_slug"], failed["status"], failed["error"]) == (
        "GMAIL_SEND_EMAIL",
        "failed",
        {"message": "Invalid recipient"},
    )
    assert (meta["tool_slug"], meta["status"]) == ("COMPOSIO_SEARCH_TOOLS", "success")


async def test_a_call_that_waits_for_the_user_has_not_run_and_is_no_log(
    http: httpx.AsyncClient, upstream: ToolUpstream, log: Recorded
) -> None:
    asks = {"result_type": "input_required", "input_requests": {}}
    upstream.behave = says_json(asks)
    path = "/api/v3.1/tool_router/session/trs_1/execute"
    got = await http.post(path, json={"tool_slug": "A_B"})
    assert (got.json(), "x-log-id" in got.headers) == (asks, False)
    upstream.behave = says_json({"result_type": "completed", "data": {}, "error": None, "log_id": "log_ran"})
    await http.post(path, json={"tool_slug": "A_B", "input_responses": {}})
    assert (await log.event())["id"] == "log_ran"


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "404 Not Found", "429 Too Many Requests", "500 Oh"])
async def test_an_upstreams_refusal_is_the_callers_answer_and_the_log_says_which(
    http: httpx.AsyncClient, upstream: ToolUpstream, log: Recorded, status: str
) -> None:
    """The body is not touched; the id of the log stands in a header."""
    error = {"error": {"message": "No, thanks", "code": 1810, "slug": "ActionExecute_ConnectedAccountNotFound", "status": 400}}
    raw = json.dumps(error).encode()
    upstream.behave = says(answer(raw, status, [(b"content-type", b"application/json"), (b"retry-after", b"7")]))
    got = await http.post(EXECUTE, json={"arguments": {}})
    assert (got.status_code, got.content, got.headers["retry-after"]) == (int(status[:3]), raw, "7")
    assert len(upstream.seen) == 1
    event = await log.event()
    assert event["id"] == got.headers["x-log-id"]
    said = {"message": "No, thanks", "code": status[:3], "type": "ActionExecute_ConnectedAccountNotFound"}
    assert (event["status"], event["error"], event["data"]["response"]) == ("failed", said, error)


async def test_an_upstream_that_is_down_is_a_502_and_a_log(site: GatewaySite, http: httpx.AsyncClient, log: Recorded) -> None:
    got = await http.post(EXECUTE, json={"user_id": "u"}, headers={"x-request-id": "down"})
    assert (got.status_code, got.json()["error"]["slug"]) == (502, "Upstream_Unreachable")
    # Nothing was sent: an official client may well try again.
    assert "x-should-retry" not in got.headers
    event = await log.event()
    assert (event["id"], event["user_id"], event["context"]) == (got.headers["x-log-id"], "u", {"request_id": "down"})
    assert (event["status"], event["error"]["type"]) == ("failed", "upstream_unreachable")
    assert str(site.upstream_port) in event["error"]["message"]
    assert "response" not in event["data"] or event["data"]["response"] is None


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\ncontent-le", b'HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"a"', b"hello\r\n"]
)
async def test_an_upstream_that_breaks_off_is_asked_once_and_told_of(
    http: httpx.AsyncClient, upstream: ToolUpstream, log: Recorded, said: bytes
) -> None:
    """Nobody knows whether the tool ran: the caller is told not to retry by itself, and the log says what is known."""
    await http.post(EXECUTE, json={})  # a connection that is kept
    upstream.behave = aborts(said)
    got = await http.post(EXECUTE, json={})
    assert (got.status_code, got.json()["error"]["slug"], got.headers["x-should-retry"]) == (502, "Upstream_BrokeOff", "false")
    assert len(upstream.seen) == 2
    failed = next(event for event in await log.events(2) if event["status"] == "failed")
    assert (failed["id"], failed["error"]["type"]) == (got.headers["x-log-id"], "upstream_broke_off")


async def test_an_upstream_that_is_silent_is_a_504_and_a_log(
    http: httpx.AsyncClient, upstream: ToolUpstream, log: Recorded
) -> None:
    async def silent(_request: Request, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    upstream.behave = silent
    got = await http.post(EXECUTE, json={})
    assert (got.status_code, got.json()["error"]["slug"], got.headers["x-should-retry"]) == (504, "Upstream_TimedOut", "false")
    event = await log.event()
    assert (event["error"]["code"], event["error"]["type"]) == ("504", "upstream_timeout")
    assert event["duration_ms"] > 1000


async def test_a_caller_who_goes_away_does_not_end_the_tool_nor_its_log(
    site: GatewaySite, upstream: ToolUpstream, log: Recorded
) -> None:
    go_on = asyncio.Event()

    async def slow(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(answer(json.dumps(SUCCESS | {"log_id": "log_abandoned"}).encode()))

    upstream.behave = slow
    _, writer = await asyncio.open_connection(HOST, site.service.port)
    head = f"POST {EXECUTE} HTTP/1.1\r\nhost: x\r\nx-api-key: {site.keys['full']}\r\ncontent-length: 2\r\n\r\n{{}}"
    writer.write(head.encode())
    await asyncio.wait_for(upstream.arrived.wait(), 60)
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    go_on.set()
    event = await log.event()
    assert (event["id"], event["status"]) == ("log_abandoned", "success")


async def test_answers_that_are_no_json_are_passed_on_as_they_come(
    http: httpx.AsyncClient, upstream: ToolUpstream, log: Recorded
) -> None:
    """The first part is there before the last is made; the log keeps the text."""
    go_on = asyncio.Event()

    async def events(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n"
        )
        await go_on.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    upstream.behave = events
    async with http.stream("POST", EXECUTE, json={}) as got:
        parts = got.aiter_raw()
        assert await anext(parts) == b"data: 1\n\n"
        go_on.set()
        assert [part async for part in parts] == [b"data: 2\n\n"]
    event = await log.event()
    assert event["id"] == got.headers["x-log-id"]
    assert (event["status"], event["data"]["response"]) == ("success", "data: 1\n\ndata: 2\n\n")


async def test_an_answer_that_breaks_off_while_it_is_passed_on_is_seen_as_broken(
    http: httpx.AsyncClient, upstream: ToolUpstream, log: Recorded
) -> None:
    upstream.behave = aborts(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\nhalf")
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post(EXECUTE, json={})
    event = await log.event()
    assert (event["status"], event["error"]["type"]) == ("failed", "upstream_broke_off")
    assert event["data"]["response"].startswith("half")


@pytest.mark.parametrize("known_length", [True, False])
async def test_huge_answers_pass_whole_and_the_log_says_that_it_has_less(
    http: httpx.AsyncClient, upstream: ToolUpstream, log: Recorded, known_length: bool
) -> None:
    raw = json.dumps({"data": {"text": "x" * 3_000_000, "password": "hunter2"}, "successful": True}).encode()
    upstream.behave = says(
        answer(raw) if known_length else chunked([raw[at : at + 50_000] for at in range(0, len(raw), 50_000)])
    )
    got = await http.post(EXECUTE, json={})
    assert got.content == raw
    event = await log.event()
    assert (event["id"], event["status"]) == (got.headers["x-log-id"], "success")
    assert event["data"]["response"]["bytes"] == len(raw)
    assert event["metadata"]["gateway"]["truncated"] == ["response"]
    assert "hunter2" not in json.dumps(event)


async def test_a_large_request_goes_on_whole_and_is_cut_in_the_log(
    http: httpx.AsyncClient, upstream: ToolUpstream, log: Recorded
) -> None:
    body = {"user_id": "u", "arguments": {"text": "x" * 2_000_000, "rows": list(range(50_000)), "password": "hunter2"}}
    got = await http.post(EXECUTE, json=body)
    assert got.status_code == 200
    assert upstream.seen[0].json() == body
    event = await log.event()
    assert event["user_id"] == "u"
    assert event["metadata"]["gateway"]["truncated"] == ["request"]
    cut = event["data"]["request"]["arguments"]
    assert cut["text"].endswith("[2000000 characters]")
    assert cut["rows"][:3] == [0, 1, 2]


async def test_an_answer_that_claims_to_be_json_and_is_none_is_passed_on_and_logged_as_failed(
    http: httpx.AsyncClient, upstream: ToolUpstream, log: Recorded
) -> None:
    upstream.behave = says(answer(b'{"data": tru'))
    got = await http.post(EXECUTE, json={})
    assert (got.status_code, got.content) == (200, b'{"data": tru')
    event = await log.event()
    assert (event["status"], event["error"]["type"]) == ("failed", "unreadable_answer")
    assert event["data"]["response"] == '{"data": tru'


async def test_trailers_change_nothing_of_an_answer_that_is_held(
    http: httpx.AsyncClient, upstream: ToolUpstream, log: Recorded
) -> None:
    trailers = b"x-sum: 1\r\ncontent-type: text/plain\r\n"
    upstream.behave = says(chunked([b'{"successful":', b"true}"], trailers=trailers))
    got = await http.post(EXECUTE, json={})
    assert (got.headers.get_list("content-type"), "x-sum" in got.headers) == (["application/json"], False)
    assert got.json() == {"successful": True, "log_id": (await log.event())["id"]}


@pytest.mark.parametrize("kind", [b"application/json", b"text/plain"])
async def test_an_answer_with_a_status_that_is_none_is_a_502_and_a_log(
    http: httpx.AsyncClient, upstream: ToolUpstream, log: Recorded, kind: bytes
) -> None:
    """No server can answer with it."""
    upstream.behave = says(answer(b"no", "999 Denied", [(b"content-type", kind)]))
    got = await http.post(EXECUTE, json={})
    event = await log.event()
    assert (got.status_code, got.headers["x-log-id"]) == (502, event["id"])
    assert "the status 999" in got.json()["error"]["message"]
    assert (event["status"], event["error"]["type"]) == ("failed", "upstream_broke_off")


async def test_an_id_that_no_header_can_hold_is_none(http: httpx.AsyncClient, upstream: ToolUpstream, log: Recorded) -> None:
    upstream.behave = says_json(SUCCESS | {"log_id": "a\nb"})
    got = await http.post(EXECUTE, json={})
    assert got.status_code == 200
    assert got.headers["x-log-id"] == got.json()["log_id"] == (await log.event())["id"]


async def test_a_redirect_is_not_followed(http: httpx.AsyncClient, upstream: ToolUpstream, log: Recorded) -> None:
    upstream.behave = says(answer(b"", "307 Temporary Redirect", [(b"location", b"/elsewhere")]))
    got = await http.post(EXECUTE, json={})
    assert (got.status_code, got.headers["location"], len(upstream.seen)) == (307, "/elsewhere", 1)
    assert (await log.event())["error"]["type"] == "redirect"


async def test_credentials_in_a_request_reach_the_upstream_and_no_log(
    http: httpx.AsyncClient, upstream: ToolUpstream, log: Recorded
) -> None:
    body = {
        "custom_auth_params": {"parameters": [{"in": "header", "name": "x-own-auth", "value": "hunter2"}]},
        "custom_connection_data": {"authScheme": "BASIC", "val": {"username": "u", "pass": "hunter2"}},
        "arguments": {},
    }
    await http.post(EXECUTE, json=body)
    assert upstream.seen[0].json() == body
    event = await log.event()
    assert "hunter2" not in json.dumps(event)
    assert event["data"]["request"]["custom_auth_params"] == "[redacted]"


async def test_the_same_idempotency_key_is_one_log_and_a_failed_try_another(
    http: httpx.AsyncClient, upstream: ToolUpstream, log: Recorded
) -> None:
    """Events of equal ids count once; that the first try failed stays to be seen."""
    headers = {"idempotency-key": "order-1"}
    upstream.behave = says_json({"error": {"message": "later"}}, "503 Service Unavailable")
    refused = [await http.post(EXECUTE, json={}, headers=headers) for _ in range(2)]
    upstream.behave = says_json(SUCCESS)
    done = [await http.post(EXECUTE, json={}, headers=headers) for _ in range(2)]
    other = await http.post(EXECUTE.replace("SEND", "READ"), json={}, headers=headers)
    assert [request.header("idempotency-key") for request in upstream.seen] == ["order-1"] * 5
    ids = [got.headers["x-log-id"] for got in (*refused, *done, other)]
    assert (ids[0], ids[2]) == (ids[1], ids[3])
    assert len({ids[0], ids[2], ids[4]}) == 3
    assert sorted(event["id"] for event in await log.events(5)) == sorted(ids)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"x-api-key": "revoked"}, 401),
        ({"x-api-key": "read"}, 403),
        ({"x-api-key": "ingest"}, 403),
        ({"x-org-api-key": "org"}, 401),
        ({"authorization": "full"}, 401),
        ({"x-api-key": "full", "authorization": "Bearer other"}, 401),
        ({"x-api-key": "other", "x-user-api-key": "full"}, 401),
    ],
)
@pytest.mark.parametrize("path", [EXECUTE, "/api/v3/connected_accounts"])
async def test_only_one_full_key_of_a_project_reaches_the_upstream(
    site: GatewaySite, upstream: ToolUpstream, headers: dict[str, str], status: int, path: str
) -> None:
    """A key of ours is never sent on, whatever its header: not the revoked, not beside another."""
    sent = {name: site.keys.get(value, value) for name, value in headers.items()}
    if headers.get("authorization") == "full":
        sent["authorization"] = f"Bearer {site.keys['full']}"
    async with httpx.AsyncClient(base_url=site.service.url) as http:
        got = await http.post(path, json={}, headers=sent)
    assert (got.status_code, upstream.seen) == (status, []), got.text


async def test_a_key_of_the_upstreams_own_goes_on_and_is_recorded_in_the_project_for_such(
    site: GatewaySite, upstream: ToolUpstream, log: Recorded
) -> None:
    """Where the upstream does not know it either, it is nobody's call: passed on, and not recorded."""
    async with httpx.AsyncClient(base_url=site.service.url, headers={"x-api-key": "ak_theirs"}) as http:
        upstream.behave = says_json({"error": {"message": "Invalid API key"}}, "401 Unauthorized")
        assert (await http.post(EXECUTE, json={})).status_code == 401
        upstream.behave = says_json(SUCCESS)
        assert (await http.post(EXECUTE, json={})).status_code == 200
        assert (await http.get("/api/v3/auth_configs", headers={"x-user-api-key": "uak_theirs"})).status_code == 200
    assert [request.header("x-api-key") for request in upstream.seen] == ["ak_theirs"] * 3
    assert upstream.seen[2].header("x-user-api-key") == "uak_theirs"
    assert (await log.event())["_project"] == "foreign"
