"""Spans become the events that users of each convention expect, alike in both encodings."""

import json

import pytest
from opentelemetry.trace import Status, StatusCode

from ingest.admission import admit
from ingest.otlp.export import Export, encoding_of, items_of, take_apart, told, with_broken
from tests.support.tool_spans import (
    GENAI,
    GENAI_FAILED,
    OTHERS,
    TOOLS,
    Recorded,
    json_of,
    protobuf_of,
    spans_of,
)

ENCODERS = {"protobuf": protobuf_of, "json": json_of}


def export(*recorded: Recorded, encoding: str = "protobuf") -> Export:
    return take_apart(ENCODERS[encoding](spans_of(*recorded)), encoding, events_max=1000)


def event(recorded: Recorded, encoding: str = "protobuf") -> dict:
    found = export(recorded, encoding=encoding)
    assert not found.broken
    (raw,) = found.events
    return json.loads(raw)


def flat(found: dict) -> dict:
    """An event with what stands deeper brought up, so that a test can name it."""
    return found | {"tool_call_id": found["metadata"].get("tool_call_id"), "request_id": found["context"].get("request_id")}


@pytest.mark.parametrize("encoding", ENCODERS)
@pytest.mark.parametrize("recorded", TOOLS, ids=lambda one: one.name)
def test_tool_spans_of_every_convention_become_events(recorded, encoding):
    """Tool, toolkit or server, session, user, error, arguments and result are where a log has them."""
    found = flat(event(recorded, encoding))
    assert {name: found.get(name) for name in recorded.expected} == recorded.expected


@pytest.mark.parametrize("encoding", ENCODERS)
def test_other_spans_are_counted_and_passed_over(encoding):
    """Also those that speak of tools: a model's messages, a list of tools, an agent with a tool's name."""
    found = export(*OTHERS, encoding=encoding)
    assert (list(found.events), list(found.broken), found.ignored) == ([], [], len(OTHERS))


@pytest.mark.parametrize("encoding", ENCODERS)
def test_ids_times_and_parent_are_those_of_the_span(encoding):
    """Trace id and span id make the event's id; the duration keeps its fractions; a root span has no parent."""
    (span,) = spans_of(GENAI)
    (raw,) = take_apart(ENCODERS[encoding]([span]), encoding, events_max=1).events
    found = json.loads(raw)
    trace_id, span_id = f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"
    assert found["id"] == f"otel_{trace_id}_{span_id}"
    assert found["context"] == {"trace_id": trace_id}
    assert found["timestamp"] == span.start_time // 1_000_000
    assert found["duration_ms"] == (span.end_time - span.start_time) / 1e6
    assert "parent" not in found
    assert found["metadata"]["otel"]["span_id"] == span_id


def test_arguments_that_are_json_are_kept_byte_for_byte():
    """`1.50` stays `1.50`."""
    (raw,) = export(GENAI).events
    assert b'"request":{"to": "mia@example.com", "n": 1.50}' in raw


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("105", "105"),
        ("true", "true"),
        ("{broken", "{broken"),
        ('{"n": NaN}', '{"n": NaN}'),
        ("[1, 2]", [1, 2]),
        (7, 7),
        (float("nan"), "nan"),
        (("a", "b"), ["a", "b"]),
        ({"city": "Oslo", "days": [1, {"x": None}]}, {"city": "Oslo", "days": [1, {"x": None}]}),
        (b"\x00\xff", "AP8="),
    ],
)
@pytest.mark.parametrize("encoding", ENCODERS)
def test_results_of_any_type_are_kept(value, kept, encoding):
    """Structured values as JSON, text as text unless it is an object or an array of JSON, bytes and infinities as text."""
    attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "t", "gen_ai.tool.call.result": value}
    found = event(Recorded(name="execute_tool t", attributes=attributes, expected={}), encoding)
    assert found["data"] == {"response": kept}


@pytest.mark.parametrize(
    ("status", "attributes", "events", "outcome"),
    [
        (StatusCode.UNSET, {}, [], "success"),
        (StatusCode.OK, {"error.type": "retried"}, [], "success"),
        (StatusCode.ERROR, {}, [], "failed"),
        (StatusCode.UNSET, {"error.type": "timeout"}, [], "failed"),
        (StatusCode.UNSET, {}, [("exception", {"exception.type": "E"})], "success"),
        (StatusCode.UNSET, {}, [("exception", {"exception.type": "E", "exception.escaped": "True"})], "failed"),
    ],
)
def test_what_failed_is_told_from_what_did_not(status, attributes, events, outcome):
    """The span's status first, then `error.type`; an exception that was caught is no failure."""
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "t"}
    recorded = Recorded(name="x", attributes=tool | attributes, events=events, status=Status(status), expected={})
    found = event(recorded)
    assert found["status"] == outcome
    assert ("error" in found) == (outcome == "failed")


def test_what_has_no_member_of_its_own_is_kept_as_metadata():
    """Attributes nobody maps, a second spelling that says something else, and the trace of an exception."""
    found = event(GENAI)
    assert found["metadata"]["otel"]["attributes"] == {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.type": "function"}
    attributes = {**GENAI.attributes, "input.value": "said otherwise", "my.own": 1}
    kept = event(Recorded(name="x", attributes=attributes, expected={}))["metadata"]["otel"]["attributes"]
    assert (kept["input.value"], kept["my.own"]) == ("said otherwise", 1)
    assert event(GENAI_FAILED)["metadata"]["otel"]["exception_stacktrace"] == "at pay()"


def test_a_message_too_long_is_cut_and_an_event_too_large_loses_attributes_first():
    """A producer cannot help how long an exception's text is; what is still too large is refused by itself."""
    long = Recorded(
        name="x",
        attributes={"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "t", "noise": "n" * 2_000_000},
        status=Status(StatusCode.ERROR, "m" * 100_000),
        expected={},
    )
    found = event(long)
    assert len(found["error"]["message"]) == 16_384
    assert "attributes" not in found["metadata"]["otel"]
    huge = Recorded(name="x", attributes={**GENAI.attributes, "gen_ai.tool.call.result": "r" * 2_000_000}, expected={})
    exported = export(huge, GENAI)
    accepted_ms = spans_of(GENAI)[0].end_time // 1_000_000
    admission = with_broken(exported, admit(items_of(exported), project_id="p", accepted_ms=accepted_ms))
    assert len(admission.ids) == 1
    assert [one.code for one in admission.rejected] == ["event_too_large"]
    assert "1048576" in told(admission.rejected)


@pytest.mark.parametrize(("member", "told"), [("startTimeUnixNano", "no start"), ("endTimeUnixNano", "no end")])
@pytest.mark.parametrize("value", ["0", 0, None, "-5"])
def test_a_span_without_a_time_is_told_which(member, told, value):
    """Not that its duration, counted from 1970, is too long."""
    request = json.loads(json_of(spans_of(GENAI)))
    request["resourceSpans"][0]["scopeSpans"][0]["spans"][0][member] = value
    (broken,) = take_apart(json.dumps(request).encode(), "json", events_max=1).broken
    assert told in broken.message


def test_a_number_of_more_than_64_bits_takes_no_other_span_with_it():
    request = json.loads(json_of(spans_of(GENAI, GENAI, GENAI)))
    first, second, _ = request["resourceSpans"][0]["scopeSpans"][0]["spans"]
    first["endTimeUnixNano"] = 10**400
    second["attributes"].append({"key": "x", "value": {"intValue": str(2**64)}})
    found = take_apart(json.dumps(request).encode(), "json", events_max=10)
    assert len(found.events) == 1
    assert [one.message for one in found.broken] == ["a whole number has more than 64 bits"] * 2


@pytest.mark.parametrize("encoding", ENCODERS)
def test_zero_is_a_user_and_a_session_too(encoding):
    found = event(
        Recorded(name="x", attributes={**GENAI.attributes, "user.id": 0, "gen_ai.conversation.id": 0}, expected={}), encoding
    )
    assert (found["user_id"], found["session_id"]) == ("0", "0")


def test_half_a_surrogate_pair_takes_no_span_with_it():
    """SDKs that cut texts by UTF-16 write such halves; the span says the rest, and its neighbours all of theirs."""
    request = json.loads(json_of(spans_of(GENAI, GENAI_FAILED)))
    request["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"] += "\ud83d"
    found = take_apart(json.dumps(request).encode(), "json", events_max=10)
    assert (len(found.events), list(found.broken)) == (2, [])
    assert json.loads(found.events[0])["metadata"]["otel"]["span_name"].endswith("\ufffd")


def members_of(value, path=()):
    """Give the path of every member of an object, however deep."""
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if isinstance(value, dict):
            yield (*path, name)
        yield from members_of(inner, (*path, name))


def test_a_null_says_the_same_as_nothing():
    """As everywhere in protobuf's JSON, for every member that a request may have."""
    plain = json_of(spans_of(GENAI_FAILED, OTHERS[0]))
    outcomes = set()
    for path in members_of(json.loads(plain)):
        told = []
        for leave_out in (True, False):
            request = json.loads(plain)
            holder = request
            for step in path[:-1]:
                holder = holder[step]
            if leave_out:
                del holder[path[-1]]
            else:
                holder[path[-1]] = None
            found = take_apart(json.dumps(request).encode(), "json", events_max=10)
            told.append((found.events, [broken.message for broken in found.broken], found.ignored))
        assert told[0] == told[1], path
        outcomes.add((len(told[0][0]), len(told[0][1])))
    assert outcomes >= {(1, 0), (0, 1), (0, 0)}


def test_content_types_are_those_of_otlp():
    """With parameters, in any case; nothing else."""
    assert encoding_of("application/x-protobuf") == "protobuf"
    assert encoding_of("Application/JSON; charset=utf-8") == "json"
    assert encoding_of("text/plain") is None
    assert encoding_of("") is None
