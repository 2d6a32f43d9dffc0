"""A recorded MCP call as an event: names that read as others do, payloads that fit, nothing that ingest would refuse."""

import json
from typing import Any

import msgspec
import pytest

from ingest.contract.event import EVENT_BYTES_MAX, decode_event
from ingest.mcp.call import Call, Fault, Peers
from ingest.mcp.endings import cancelled, server_exited
from ingest.mcp.events import event_of, tool_slug_of, toolkit_of
from ingest.mcp.frames import Moment
from ingest.mcp.lines import TooLong
from ingest.mcp.setup import Setup
from ingest.mcp.tracker import OPEN_CALLS_MAX, Tracker

SETUP = Setup(url="", api_key="", transport="stdio", fallback="server.py", run_id="run_1")


def at(ms: int) -> Moment:
    return Moment(1_700_000_000_000 + ms, ms * 1_000_000)


def line(**members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **members}).encode()


def asked(id_: Any = 1, name: str = "add", **params: Any) -> bytes:
    return line(id=id_, method="tools/call", params={"name": name, **params})


def event(call: Call, setup: Setup = SETUP) -> dict[str, Any]:
    raw = event_of(call, setup, id_="log_1")
    assert len(raw) <= EVENT_BYTES_MAX
    decode_event(raw)
    found: dict[str, Any] = json.loads(raw)
    return found


@pytest.mark.parametrize(
    ("server", "tool", "slug"),
    [
        ("Weather-Desk", "get_forecast", "WEATHER_DESK_GET_FORECAST"),
        ("github", "github_create_issue", "GITHUB_CREATE_ISSUE"),
        ("github", "githubber", "GITHUB_GITHUBBER"),
        ("@scope/server", "admin.tools.list", "SCOPE_SERVER_ADMIN_TOOLS_LIST"),
        ("", "add", "SERVER_PY_ADD"),
        ("wetter", "größe", "WETTER_GRÖSSE"),
        ("time", "", "TIME_UNNAMED"),
        ("x" * 300, "y" * 300, ("X" * 256)),
    ],
)
def test_a_tool_is_named_by_its_server_and_its_name(server: str, tool: str, slug: str) -> None:
    assert tool_slug_of(tool, toolkit_of(server, SETUP)) == slug


def test_the_users_toolkit_wins_over_the_servers_name() -> None:
    assert toolkit_of("Weather-Desk", msgspec.structs.replace(SETUP, toolkit="Meteo")) == "meteo"


def test_who_talks_stands_in_the_metadata() -> None:
    """Client, server and protocol as `initialize` says; request id, progress token and trace of the call itself."""
    tracker = Tracker()
    hello = {"protocolVersion": "2025-11-25", "clientInfo": {"name": "desk", "version": "2"}}
    tracker.from_client(line(id=0, method="initialize", params=hello), "", at(0))
    answer = {"protocolVersion": "2025-06-18", "serverInfo": {"name": "sums", "version": "1"}}
    tracker.from_server(line(id=0, result=answer), "", at(1))
    meta = {"progressToken": "p", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    tracker.from_client(asked(7, arguments={"a": 1}, _meta=meta), "", at(2))
    told = {"progressToken": "p", "progress": 1}
    tracker.from_server(line(method="notifications/progress", params=told), "", at(3))
    (call,) = tracker.from_server(line(id=7, result={"content": [], "isError": False}), "", at(42))
    found = event(call, msgspec.structs.replace(SETUP, user="u", host="h"))
    assert found["tool_slug"] == "SUMS_ADD"
    assert (found["timestamp"], found["duration_ms"]) == (at(2).epoch_ms, 40)
    assert (found["user_id"], found["session_id"]) == ("u", "run_1")
    assert found["context"] == {"request_id": "7", "trace_id": "0af7651916cd43dd8448eb211c80319c"}
    assert found["source"] == {"framework": "mcp", "host": "h"}
    assert found["metadata"] == {
        "mcp.transport": "stdio",
        "mcp.tool.name": "add",
        "mcp.server.name": "sums",
        "mcp.server.version": "1",
        "mcp.client.name": "desk",
        "mcp.client.version": "2",
        "mcp.protocol.version": "2025-06-18",
        "jsonrpc.request.id": "7",
        "mcp.progress.token": "p",
        "mcp.progress.count": 1,
    }


def test_a_client_without_a_handshake_introduces_itself_with_each_call() -> None:
    """Protocol 2026-07-28: version and client in the request, the server in the result."""
    tracker = Tracker()
    own = "io.modelcontextprotocol/"
    meta = {f"{own}protocolVersion": "2026-07-28", f"{own}clientInfo": {"name": "desk", "version": "3"}}
    tracker.from_client(asked(_meta=meta), "", at(0))
    result = {"resultType": "complete", "content": [], "_meta": {f"{own}serverInfo": {"name": "sums", "version": "1"}}}
    (call,) = tracker.from_server(line(id=1, result=result), "", at(1))
    found = event(call)
    assert found["tool_slug"] == "SUMS_ADD"
    assert found["metadata"]["mcp.client.name"] == "desk"
    assert found["metadata"]["mcp.protocol.version"] == "2026-07-28"


def test_a_call_that_the_server_answers_with_a_question_is_one_call() -> None:
    """The rounds until it has what it needs are one execution, from the first request to the last answer."""
    tracker = Tracker()
    tracker.from_client(asked(1, "book"), "", at(0))
    question = {"resultType": "input_required", "inputRequests": {}, "requestState": "s1"}
    assert tracker.from_server(line(id=1, result=question), "", at(5)) == []
    tracker.from_client(asked(2, "book", inputResponses={}, requestState="s1"), "", at(50))
    (call,) = tracker.from_server(line(id=2, result={"resultType": "complete", "content": []}), "", at(60))
    found = event(call)
    assert (found["status"], found["duration_ms"], found["metadata"]["mcp.rounds"]) == ("success", 60, 2)
    assert tracker.end(server_exited(0), at(99)) == []


def test_a_question_that_is_never_answered_is_a_failure() -> None:
    tracker = Tracker()
    tracker.from_client(asked(1, "book"), "", at(0))
    tracker.from_server(line(id=1, result={"resultType": "input_required", "requestState": "s1"}), "", at(5))
    (call,) = tracker.end(server_exited(0), at(99))
    assert event(call)["error"]["type"] == "input_required"


def test_the_text_of_a_tools_error_is_the_events_error() -> None:
    tracker = Tracker()
    tracker.from_client(asked(), "", at(0))
    content = [
        {"type": "text", "text": "invalid recipient"},
        {"type": "image", "data": "aaaa"},
        {"type": "text", "text": "again"},
    ]
    (call,) = tracker.from_server(line(id=1, result={"content": content, "isError": True}), "", at(1))
    assert event(call)["error"] == {"message": "invalid recipient\nagain", "type": "tool_error"}


def test_the_code_of_a_json_rpc_error_is_kept() -> None:
    tracker = Tracker()
    tracker.from_client(asked(), "", at(0))
    (call,) = tracker.from_server(line(id=1, error={"code": -32602, "message": "Invalid params"}), "", at(1))
    assert event(call)["error"] == {"message": "Invalid params", "code": -32602}


def test_an_error_that_is_null_beside_a_result_is_none() -> None:
    tracker = Tracker()
    tracker.from_client(asked(), "", at(0))
    (call,) = tracker.from_server(line(id=1, result={"content": []}, error=None), "", at(1))
    assert (event(call)["status"], event(call)["data"]["response"]) == ("success", {"content": []})


@pytest.mark.parametrize("code", [0xD83D, 0xDE00])
def test_half_a_surrogate_pair_hides_neither_tool_nor_outcome(code: int) -> None:
    """As programs write them that cut a text in the middle of an emoji."""
    half, tracker = chr(code), Tracker()
    assert not tracker.from_client(asked(arguments={"text": f"cut {half}"}), "", at(0))
    (call,) = tracker.from_server(
        line(id=1, result={"isError": True, "content": [{"type": "text", "text": f"no {half}"}]}), "", at(1)
    )
    found = event(call)
    assert (found["tool_slug"], found["status"]) == ("SERVER_PY_ADD", "failed")
    assert found["error"]["message"] == "no \ufffd"
    assert found["data"]["request"] == {"text": "cut \ufffd"}


def test_an_answer_after_a_cancellation_changes_nothing() -> None:
    tracker = Tracker()
    tracker.from_client(asked(), "", at(0))
    (call,) = tracker.from_client(line(method="notifications/cancelled", params={"requestId": 1}), "", at(3))
    assert tracker.from_server(line(id=1, result={"content": []}), "", at(4)) == []
    found = event(call)
    assert found["error"] == {"message": "cancelled by the client", "type": "cancelled"}
    assert found["metadata"]["mcp.cancelled"] is True


def test_an_id_used_twice_at_once_is_answered_in_the_order_of_the_requests() -> None:
    tracker = Tracker()
    tracker.from_client(asked(1, "first"), "", at(0))
    tracker.from_client(asked(1, "second"), "", at(1))
    ended = [tracker.from_server(line(id=1, result={}), "", at(2))[0].tool for _ in range(2)]
    assert ended == ["first", "second"]


def test_no_more_calls_are_held_than_fit() -> None:
    """A server that never answers costs bounded memory; the oldest calls are given up, and none is left out."""
    tracker = Tracker()
    ended = [call for id_ in range(OPEN_CALLS_MAX + 5) for call in tracker.from_client(asked(id_), "", at(id_))]
    assert [call.request_id for call in ended] == [0, 1, 2, 3, 4]
    assert event(ended[0])["error"]["type"] == "unanswered"
    assert len(tracker.end(cancelled(None), at(0))) == OPEN_CALLS_MAX


@pytest.mark.parametrize("kibibytes", [1, 900, 1_100, 40_000])
def test_a_payload_of_any_size_makes_an_event_that_fits(kibibytes: int) -> None:
    """What is small stays byte for byte; of what is large the texts are cut and say how long they were."""
    blob = "x" * (kibibytes * 1024)
    call = Call(tool="t", request_id=1, scope="", started=at(0), ended=at(1), peers=Peers())
    call.request = b'{ "a" : 1 }'
    call.response = line(content=[{"type": "text", "text": blob}, {"type": "text", "text": "short"}])
    raw = event_of(call, SETUP, id_="log_1")
    assert b'"request":{ "a" : 1 }' in raw
    response = event(call)["data"]["response"]
    assert response["content"][1]["text"] == "short"
    kept = response["content"][0]["text"]
    assert kept == blob if kibibytes < 900 else kept.endswith(f"… ({len(blob)} characters)") or len(kept) == len(blob)


@pytest.mark.parametrize(
    "payload",
    [b'{"a":"\\ud800"}', b'{"a":' * 2_000 + b"1" + b"}" * 2_000, b'{"a":1e999}', b'{"a":' + b"9" * 400 + b"}", b"[1]"],
)
def test_arguments_of_any_kind_make_an_event(payload: bytes) -> None:
    call = Call(tool="t", request_id=1, scope="", started=at(0), ended=at(1), peers=Peers(), request=payload)
    assert event(call)["status"] == "success"


def test_codes_and_ids_of_any_size_make_an_event() -> None:
    call = Call(tool="t" * 99_999, request_id="9" * 999, scope="", started=at(9), ended=at(1), peers=Peers())
    call.fault = Fault(message="m" * 99_999, code=-(10**40), kind="k" * 999)
    assert event(call)["duration_ms"] == 0


@pytest.mark.parametrize(
    ("head", "tail", "failed"),
    [
        (b'{"jsonrpc":"2.0","id":1,"result":{"content":[', b'"}],"isError":false}}', False),
        (b'{"result":{"content":[', b'"}]},"jsonrpc":"2.0","id":1}', False),
        (b'{"jsonrpc":"2.0","id":1,"result":{"content":[', b'"}],"isError":true}}', True),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"data":', b'"}}', True),
    ],
)
def test_of_a_line_too_long_to_be_read_the_ends_say_enough(head: bytes, tail: bytes, failed: bool) -> None:
    """The id stands before the result or behind it, as implementations write it."""
    tracker = Tracker()
    tracker.from_client(asked(), "", at(0))
    (call,) = tracker.from_server(TooLong(head, tail, 10**8), "", at(1))
    assert event(call)["status"] == ("failed" if failed else "success")


def test_payloads_that_are_not_wanted_are_left_out() -> None:
    call = Call(tool="t", request_id=1, scope="", started=at(0), ended=at(1), peers=Peers(), request=b'{"a":"b"}')
    assert "data" not in json.loads(event_of(call, SETUP, id_="log_1", payloads=False))
