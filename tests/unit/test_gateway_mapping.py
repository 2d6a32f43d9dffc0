"""From a call and its end to an event: what each answer is taken for."""

import json
from typing import Any

import pytest

from ingest.contract.event import EVENT_BYTES_MAX, decode_event
from ingest.contract.own_routes import is_own
from ingest.gateway.mapping import Call, Ending, id_of, record, retry_id, without_payload
from ingest.gateway.payloads import Body, Kept, kept, read, with_log_id
from ingest.gateway.routes import Execution, execution_of
from query_api.http.app import OPERATIONS


def call(body: bytes = b"{}", **members: Any) -> Call:
    given: dict[str, Any] = {
        "execution": Execution(tool_slug="GMAIL_SEND_EMAIL"),
        "project_id": "p",
        "own_id": "log_own",
        "began_ms": 1_780_000_000_000,
        "request_id": "req_1",
        "headers": {},
        "body": read(body, {}, bytes_max=1 << 20),
        "upstream": "tools.example",
    }
    return Call(**given | members)


def ending(value: Any = None, status: int = 200, **members: Any) -> Ending:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Ending(**{"duration_ms": 12.3456, "status": status, "body": Body(raw=raw, size=len(raw))} | members)


def event_of(made: Call, end: Ending) -> dict[str, Any]:
    recording = record(made, end)
    assert recording is not None
    assert decode_event(recording.event).id == recording.id
    found: dict[str, Any] = json.loads(recording.event)
    return found


@pytest.mark.parametrize(
    ("path", "execution"),
    [
        ("/api/v3.1/tools/execute/GMAIL_SEND_EMAIL", Execution(tool_slug="GMAIL_SEND_EMAIL")),
        ("/api/v3/tools/execute/A%2FB%20C", Execution(tool_slug="A/B C")),
        ("//api/v4.10/./tools/x/../execute/A/", Execution(tool_slug="A")),
        ("/api/v3.1/Tools/EXECUTE/a", Execution(tool_slug="a")),
        ("/api/v3.1/%74ools/execute/A", Execution(tool_slug="A")),
        ("/api/v3.1/tool_router/session/trs_1/execute", Execution(session_id="trs_1")),
        ("/api/v3.1/tool_router/session/trs_1/execute_meta", Execution(session_id="trs_1")),
        ("/api/v3.1/tools/execute/proxy", None),
        ("/api/v3.1/tools/execute/A/input", None),
        ("/api/v3.1/tools/execute", None),
        ("/api/v3.1/tools/A", None),
        ("/api/v3.1/tool_router/session/trs_1/proxy_execute", None),
        ("/api/latest/tools/execute/A", None),
        ("/v3.1/tools/execute/A", None),
        ("/", None),
    ],
)
def test_a_path_runs_a_tool_however_it_is_spelled(path: str, execution: Execution | None) -> None:
    """What official clients call, and what an upstream may take for it; nothing beside it."""
    assert execution_of("POST", path.encode()) == execution
    assert execution_of("GET", path.encode()) is None


def test_every_route_of_the_query_service_stays_its_own() -> None:
    """With an upstream set, none of the routes that are answered here goes to it; what is like them does."""
    for operation in OPERATIONS:
        assert is_own(operation.path.replace("{id:path}", "log/a").replace("{entity_type}", "tool_calls")), operation.path
    for path in ("/api/v3.1/logs/tool_executions", "/api/v3/tools", "/api/v3.1/project/usages", "/api/v3.1/internal/x"):
        assert not is_own(path)


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        ({"successful": True, "error": None, "data": {}}, "success", None),
        ({"successful": True, "error": "ignored"}, "success", None),
        ({"data": {}, "error": None}, "success", None),
        ({"data": {}, "error": ""}, "success", None),
        ({"result_type": "completed", "data": {}, "error": None}, "success", None),
        ({"result_type": "failed", "data": {}, "error": "no"}, "failed", {"message": "no"}),
        ({"successful": False, "error": "no"}, "failed", {"message": "no"}),
        ({"error": {"message": "no", "code": 7, "type": "T"}}, "failed", {"message": "no", "code": "7", "type": "T"}),
        (
            {"successful": False, "error": None, "data": {"status_code": 403, "message": "Forbidden"}},
            "failed",
            {"message": "Forbidden", "code": "403"},
        ),
        ({"successful": False, "error": None}, "failed", {"message": "the tool failed without saying why"}),
        (
            {"result_type": "blocked", "reason": {"type": "request_blocked", "hook_id": "h"}, "message": "Not today"},
            "failed",
            {"message": "Not today", "type": "request_blocked"},
        ),
        ([1], "failed", {"message": "the upstream's answer (HTTP 200) is no JSON object", "type": "unreadable_answer"}),
        (b"", "success", None),
        (b'{"successful": true, "data": NaN}', "success", None),
        (b'\xef\xbb\xbf{"successful": true}', "success", None),
        (rb'{"successful": true, "data": "cut \ud83d"}', "success", None),
        (rb'{"successful": false, "error": "cut \ud83d"}', "failed", {"message": "cut \ufffd"}),
    ],
)
def test_what_an_answer_says_decides(answer: Any, status: str, error: dict[str, str] | None) -> None:
    """`successful` first, then `result_type`, then whether there is an error."""
    event = event_of(call(), ending(answer))
    assert (event["status"], event.get("error")) == (status, error)


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        ({"error": {"message": "m", "code": 1810, "slug": "S"}}, 400, {"message": "m", "code": "400", "type": "S"}),
        ({"message": "Rate limit exceeded"}, 429, {"message": "Rate limit exceeded", "code": "429"}),
        ({"detail": "not there"}, 404, {"message": "not there", "code": "404"}),
        (b"", 500, {"message": "500 Internal Server Error", "code": "500"}),
        (b"<h1>no</h1>", 799, {"message": "799 an unknown status", "code": "799"}),
    ],
)
def test_a_refusal_is_a_failure_with_its_status(answer: Any, status: int, error: dict[str, str]) -> None:
    assert event_of(call(), ending(answer, status))["error"] == error


def test_a_text_that_explains_a_refusal_is_its_message() -> None:
    raw = b"  upstream connect error\n or reset "
    event = event_of(call(), ending(status=503, body=Body(raw=raw, size=len(raw), json=False)))
    assert event["error"] == {"message": "upstream connect error or reset", "code": "503"}


def test_credentials_are_found_behind_a_byte_order_mark() -> None:
    event = event_of(call(b'\xef\xbb\xbf{"user_id":"u","custom_auth_params":{"x":"hunter2"}}'), ending({}))
    assert (event["user_id"], event["data"]["request"]["custom_auth_params"]) == ("u", "[redacted]")


@pytest.mark.parametrize("behind", [b" and more", b"}", b",,"])
def test_credentials_of_what_is_no_json_are_not_kept(behind: bytes) -> None:
    event = event_of(call(b'{"user_id":"u","custom_auth_params":{"x":"hunter2"}}' + behind), ending({"error": "bad"}, 400))
    assert "hunter2" not in json.dumps(event)
    assert "may hold credentials" in json.dumps(event["data"]["request"])
    assert event["metadata"]["gateway"]["truncated"] == ["request"]


def test_no_tool_no_log_and_none_that_only_waits() -> None:
    session = Execution(session_id="s")
    assert record(call(b"not json", execution=session), ending({}, 400)) is None
    assert record(call(b'{"tool_slug":"A"}', execution=session), ending({"result_type": "input_required"})) is None
    assert record(call(b'{"slug":"A"}', execution=session), ending({})) is not None


def test_an_id_is_the_upstreams_where_it_fits() -> None:
    assert event_of(call(), ending({"log_id": "log_up"}))["id"] == "log_up"
    assert event_of(call(), ending({"error": "x", "log_id": "log_up"}, 400))["id"] == "log_up"
    for odd in (None, "", "x" * 257, True, [1], "a\nb", "a\0", " "):
        assert event_of(call(), ending({"log_id": odd}))["id"] == "log_own"


def test_ids_of_tries_that_came_to_nothing_are_beside_that_of_the_call() -> None:
    """Each kind of failure has one, the same each time; with an answer it is the call's own."""
    ids = [id_of(call(), 200), id_of(call(), 429), id_of(call(), 500), id_of(call(), 0, "timed_out")]
    assert ids[0] == "log_own"
    assert len(set(ids)) == 4
    assert ids[1] == id_of(call(), 429)
    assert retry_id("p", "k", Execution(tool_slug="A")) != retry_id("q", "k", Execution(tool_slug="A"))


@pytest.mark.parametrize(
    ("headers", "source"),
    [
        ({}, {"host": "api"}),
        ({b"x-source": b"mcp"}, {"host": "mcp"}),
        (
            {b"x-source": b"PYTHON_SDK", b"x-framework": b"openai", b"x-client-language": b"python"},
            {"host": "sdk", "framework": "openai", "language": "python"},
        ),
        ({b"user-agent": b"Composio/JS 2.0.0-rc.6"}, {"host": "api", "language": "javascript"}),
        ({b"x-stainless-lang": b"Python", b"user-agent": b"Composio/Python 1.43.0"}, {"host": "sdk", "language": "python"}),
    ],
)
def test_clients_say_where_a_call_came_from(headers: dict[bytes, bytes], source: dict[str, str]) -> None:
    assert event_of(call(headers=headers), ending({}))["source"] == source


def test_a_trace_context_is_kept() -> None:
    parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    event = event_of(call(headers={b"traceparent": parent}), ending({}))
    assert event["context"]["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"{}", b'{"log_id":"L"}'),
        (b" { } \n", b' { "log_id":"L"} \n'),
        (b'{"a":1}', b'{"a":1,"log_id":"L"}'),
        (b'{"log_id": null ,"a":1}', b'{"log_id": "L" ,"a":1}'),
        (b'{"a":{"log_id":""},"log_id":""}', b'{"a":{"log_id":""},"log_id":"L"}'),
        (b'{"a":"\\"log_id\\":null","b":["log_id"]}', b'{"a":"\\"log_id\\":null","b":["log_id"],"log_id":"L"}'),
        (b'\xef\xbb\xbf{"a":1}', b'\xef\xbb\xbf{"a":1,"log_id":"L"}'),
        (b"[]", None),
        (b"", None),
    ],
)
def test_a_log_id_is_put_in_and_nothing_else_changed(raw: bytes, told: bytes | None) -> None:
    assert with_log_id(raw, "L", named=b"log_id" in raw) == told


def test_no_payload_makes_an_event_too_large() -> None:
    """Whatever comes, both ways at once, escapes and depth included."""
    deep: Any = "x"
    for _ in range(200):
        deep = [deep, {"y" * 50: deep}] if len(json.dumps(deep)) < 100_000 else [deep]
    for value in ({"a": "\x01" * 3_000_000}, {str(number): "x" * 500 for number in range(9_000)}, {"d": deep}, "ü" * 2_000_000):
        raw = json.dumps(value).encode()
        event = record(call(raw), ending(raw))
        assert event is not None
        assert len(event.event) <= EVENT_BYTES_MAX
        decode_event(event.event)
    raw = b"\x01" * 3_000_000
    event = record(call(raw), ending(status=500, body=Body(raw=raw, size=len(raw), json=False)))
    assert event is not None
    assert len(event.event) <= EVENT_BYTES_MAX


def test_json_that_is_not_whole_is_not_kept_because_secrets_in_it_could_not_be_told() -> None:
    part = Kept(20)
    for chunk in (b'{"password":', b'"hunter2",', b'"more":1}'):
        part.add(chunk)
    body = part.body({b"content-type": b"text/plain"}, ended=True)
    assert bytes(kept(body, bytes_max=1000)[0]) == b'{"truncated":true,"bytes":31,"note":"not kept: larger than is held here"}'


def test_a_body_in_an_unknown_encoding_is_told_of() -> None:
    body = read(b"\x00\x01", {b"content-encoding": b"br"}, bytes_max=100)
    kept_of, cut = kept(body, bytes_max=1000)
    assert (json.loads(bytes(kept_of))["note"], cut) == ("not kept: its encoding 'br' cannot be undone here", True)
    assert event_of(call(), ending(body=body))["status"] == "success"


def test_an_event_that_is_refused_for_its_payload_can_do_without() -> None:
    recording = record(call(b'{"user_id":"u"}'), ending({"log_id": "l"}))
    assert recording is not None
    event = json.loads(without_payload(recording, "why"))
    assert (event["id"], event["user_id"], event["data"]) == ("l", "u", {"note": "not kept: why"})
