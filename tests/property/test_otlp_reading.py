"""Whatever bytes come as traces: both encodings say the same, nothing but a refusal ever comes of rubbish."""

import base64
import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from ingest.admission import admit
from ingest.contract.event import decode_event
from ingest.formats import FormatError
from ingest.otlp.export import Export, items_of, take_apart, told, with_broken
from tests.support.tool_spans import GENAI, OTHERS, TOOLS, json_of, protobuf_of, spans_of

NOW_MS = 1_795_000_000_000
START_NS = NOW_MS * 1_000_000

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.sampled_from(
    [
        *("gen_ai.operation.name", "gen_ai.tool.name", "gen_ai.tool.call.arguments", "gen_ai.tool.call.result"),
        *("openinference.span.kind", "traceloop.span.kind", "mcp.method.name", "tool.name", "input.value", "session.id"),
        *("user.id", "error.type", "gen_ai.tool.status", "http.response.status_code", "server.address", "my.own"),
    ]
)
told_values = st.sampled_from(["execute_tool", "TOOL", "tool", "tools/call", "chat", "error", '{"a":1}', "[1,", "9" * 400, ""])
values = st.recursive(
    texts | told_values | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.binary(max_size=6) | st.none(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(texts, children, max_size=3),
    max_leaves=5,
)
attributes = st.dictionaries(names | texts, told_values | values, max_size=6)
tool_attributes = attributes.map(lambda found: {**found, "gen_ai.operation.name": "execute_tool"})
span_models = st.fixed_dictionaries(
    {
        "trace_id": st.binary(min_size=16, max_size=16) | st.binary(max_size=17),
        "span_id": st.binary(min_size=8, max_size=8) | st.binary(max_size=9),
        "parent_span_id": st.just(b"") | st.binary(min_size=8, max_size=8),
        "name": texts | st.just("execute_tool x"),
        "kind": st.integers(0, 5),
        "start_time_unix_nano": st.just(START_NS) | st.integers(0, 2**64 - 1),
        "end_time_unix_nano": st.just(START_NS + 1_234_567) | st.integers(0, 2**64 - 1),
        "attributes": tool_attributes | attributes,
        "events": st.lists(st.tuples(st.sampled_from(["exception", "gen_ai.choice", "x"]), attributes), max_size=2),
        "status": st.tuples(st.integers(0, 2), texts),
    }
)
requests = st.lists(st.tuples(attributes, texts, st.lists(span_models, max_size=4)), max_size=3)


def any_value(value: Any) -> AnyValue:
    if value is None:
        return AnyValue()
    kinds = {bool: "bool_value", int: "int_value", float: "double_value", str: "string_value", bytes: "bytes_value"}
    if isinstance(value, list):
        made = AnyValue()
        made.array_value.values.extend(any_value(one) for one in value)
        made.array_value.SetInParent()
        return made
    if isinstance(value, dict):
        made = AnyValue()
        made.kvlist_value.values.extend(pairs(value))
        made.kvlist_value.SetInParent()
        return made
    return AnyValue(**{kinds[type(value)]: value})


def pairs(found: dict[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=name, value=any_value(value)) for name, value in found.items()]


def as_protobuf(request: Any) -> bytes:
    made = ExportTraceServiceRequest()
    for resource, scope, spans in request:
        group = made.resource_spans.add()
        group.resource.attributes.extend(pairs(resource))
        scoped = group.scope_spans.add()
        scoped.scope.name = scope
        for model in spans:
            plain = {name: value for name, value in model.items() if name not in ("attributes", "events", "status")}
            span = scoped.spans.add(**plain)
            span.attributes.extend(pairs(model["attributes"]))
            for name, found in model["events"]:
                span.events.add(name=name, attributes=pairs(found))
            span.status.code, span.status.message = model["status"]
    return made.SerializeToString()


def json_value(value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        return {"arrayValue": {"values": [json_value(one) for one in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": json_pairs(value)}}
    if isinstance(value, float) and not math.isfinite(value):
        return {"doubleValue": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    spelled = {bytes: lambda raw: base64.b64encode(raw).decode(), int: str}.get(type(value), lambda same: same)
    kinds = {bool: "boolValue", int: "intValue", float: "doubleValue", bytes: "bytesValue", str: "stringValue"}
    return {} if value is None else {kinds[type(value)]: spelled(value)}


def json_pairs(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": json_value(value)} for name, value in found.items()]


def as_json(request: Any) -> bytes:
    def span(model: Any) -> dict[str, Any]:
        return {
            "traceId": model["trace_id"].hex().upper(),
            "spanId": model["span_id"].hex(),
            "parentSpanId": model["parent_span_id"].hex(),
            "name": model["name"],
            "kind": model["kind"],
            "startTimeUnixNano": str(model["start_time_unix_nano"]),
            "endTimeUnixNano": model["end_time_unix_nano"],
            "attributes": json_pairs(model["attributes"]),
            "events": [{"name": name, "attributes": json_pairs(found)} for name, found in model["events"]],
            "status": {"code": model["status"][0], "message": model["status"][1]},
            "droppedAttributesCount": 0,
        }

    groups = [
        {
            "resource": {"attributes": json_pairs(resource)},
            "scopeSpans": [{"scope": {"name": scope}, "spans": [span(model) for model in spans]}],
        }
        for resource, scope, spans in request
    ]
    return json.dumps({"resourceSpans": groups}).encode()


@given(requests)
def test_both_encodings_make_the_same_events(request_model: Any) -> None:
    """Whatever attributes a span has; and every span is an event, refused by itself, or passed over."""
    found = [take_apart(as_protobuf(request_model), "protobuf", events_max=100)]
    found.append(take_apart(as_json(request_model), "json", events_max=100))
    assert found[0] == found[1]
    count = sum(len(spans) for _, _, spans in request_model)
    assert len(found[0].events) + len(found[0].broken) + found[0].ignored == count


@given(requests)
def test_what_is_admitted_the_worker_takes(request_model: Any) -> None:
    """And what is not has a reason; nothing is lost between."""
    export = take_apart(as_protobuf(request_model), "protobuf", events_max=100)
    admission = with_broken(export, admit(items_of(export), project_id="p", accepted_ms=NOW_MS))
    assert len(admission.ids) + len(admission.rejected) == len(export.events) + len(export.broken)
    for raw in admission.raws:
        event = decode_event(bytes(raw))
        assert event.id is not None
        assert event.id.startswith("otel_")
    assert all(one.message for one in admission.rejected)
    assert told(admission.rejected)


PROTOBUF = protobuf_of(spans_of(*TOOLS, *OTHERS))
JSON = json_of(spans_of(GENAI, *OTHERS[:2]))


def taken(body: bytes, encoding: Any) -> Export | None:
    """Read a body; None where it is refused as a whole, and nothing else may be raised."""
    with contextlib.suppress(FormatError):
        return take_apart(body, encoding, events_max=100)
    return None


@given(st.binary(max_size=300))
@pytest.mark.parametrize("encoding", ["protobuf", "json"])
def test_rubbish_is_refused_or_holds_nothing(encoding: str, body: bytes) -> None:
    """Random bytes hold no tool's span."""
    export = taken(body, encoding)
    assert export is None or not export.events


@given(st.integers(0, len(PROTOBUF)), st.integers(0, 40), st.binary(max_size=20))
def test_damaged_protobuf_never_raises(place: int, cut: int, put: bytes) -> None:
    """Bytes taken out and put in anywhere: spans, refused spans, or a refusal."""
    taken(PROTOBUF[:place] + put + PROTOBUF[place + cut :], "protobuf")


@given(
    st.integers(0, len(JSON)),
    st.integers(0, 40),
    st.sampled_from([b"", b"{", b"]", b'"', b"\\ud800", b"\xff", b"1e999", b"null"]),
)
def test_damaged_json_never_raises(place: int, cut: int, put: bytes) -> None:
    """Also half of a surrogate pair, infinite numbers, bytes that are no text."""
    taken(JSON[:place] + put + JSON[place + cut :], "json")


@given(st.integers(0, len(PROTOBUF)))
def test_a_request_that_is_cut_off_never_counts_more_spans_than_it_had(place: int) -> None:
    """A cut at a border between messages is a shorter message; any other is refused as a whole."""
    export = taken(PROTOBUF[:place], "protobuf")
    if export is not None and place < len(PROTOBUF):
        assert not export.events


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + b"{}," * 100_000 + b"{}]}]}]}", "json"),
        (b'{"resourceSpans":[' + b"{}," * 1_000_000 + b"{}]}", "json"),
        (b"\x0a\x00" * 100_001, "protobuf"),
    ],
    ids=["json spans", "json objects", "protobuf"],
)
def test_more_spans_than_anybody_sends_are_refused_unread(body: bytes, encoding: Any) -> None:
    """Each would take its time, and two bytes can say one."""
    with pytest.raises(FormatError) as refused:
        take_apart(body, encoding, events_max=100)
    assert refused.value.status == 413


def shapes(leaf: Any) -> Any:
    """JSON of the members of the format, with values of any other type."""
    members = st.sampled_from(
        [
            *("resourceSpans", "resource", "attributes", "scopeSpans", "scope", "spans", "traceId", "name", "events"),
            *("status", "code", "key", "value", "stringValue", "intValue", "arrayValue", "values", "kvlistValue", "bytesValue"),
        ]
    )
    return st.recursive(
        leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(members, inner, max_size=4), max_leaves=20
    )


@given(shapes(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts))
def test_json_of_any_shape_never_raises(value: Any) -> None:
    """The format's members with values that are not theirs."""
    taken(json.dumps({"resourceSpans": value}).encode(), "json")
    taken(json.dumps(value).encode(), "json")


def nested(depth: int) -> AnyValue:
    value = AnyValue(string_value="x")
    for _ in range(depth):
        value = AnyValue(array_value={"values": [value]})
    return value


@pytest.mark.parametrize("depth", [10, 40, 49])
def test_deep_values_are_taken(depth: int) -> None:
    """As deep as protobuf's own readers take them."""
    span = spans_of(GENAI)[0]
    request = ExportTraceServiceRequest.FromString(protobuf_of([span]))
    request.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="deep", value=nested(depth // 2))
    export = take_apart(request.SerializeToString(), "protobuf", events_max=1)
    assert len(export.events) == 1


def test_values_too_deep_are_refused_by_themselves() -> None:
    """Their neighbours are taken, in both encodings."""
    good = spans_of(GENAI)[0]
    body = json.loads(json_of([good, good]))
    deep: Any = {"stringValue": "x"}
    for _ in range(60):
        deep = {"arrayValue": {"values": [deep]}}
    body["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"].append({"key": "deep", "value": deep})
    export = take_apart(json.dumps(body).encode(), "json", events_max=5)
    assert (len(export.events), len(export.broken)) == (1, 1)

    request = ExportTraceServiceRequest.FromString(protobuf_of([good, good]))
    deep_pair = b"\x0a\x01x\x12" + _sized(_deep_bytes(200))
    raw = request.resource_spans[0].scope_spans[0].spans[0].SerializeToString() + b"\x4a" + _sized(deep_pair)
    other = request.resource_spans[0].scope_spans[0].spans[1].SerializeToString()
    group = b"\x12" + _sized(raw) + b"\x12" + _sized(other)
    export = take_apart(b"\x0a" + _sized(b"\x12" + _sized(group)), "protobuf", events_max=5)
    assert (len(export.events), len(export.broken)) == (1, 1)


def _deep_bytes(depth: int) -> bytes:
    value = b"\x0a\x01x"
    for _ in range(depth):
        value = b"\x2a" + _sized(b"\x0a" + _sized(value))
    return value


def _sized(raw: bytes) -> bytes:
    size, head = len(raw), b""
    while size > 0x7F:
        head += bytes([size & 0x7F | 0x80])
        size >>= 7
    return head + bytes([size]) + raw
