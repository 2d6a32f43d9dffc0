"""A CloudEvent becomes the event in its data, named by `source` and `id`, in every content mode alike."""

import base64
import hashlib
import json

import pytest
from cloudevents.core.bindings import http, kafka

from ingest.admission import admit
from ingest.cloudevents import mode_of, take_apart
from ingest.contract.cloudevents import event_id, of_record, of_structured
from ingest.contract.errors import InvalidEvent
from ingest.formats import FormatError
from tests.support.cloud_events import FORMAT, TIME, TRACEPARENT, cloud_event, execution

NOW_MS = 1_795_000_000_000


def admitted(body: bytes, headers: dict):
    """What ingest makes of a request."""
    raw = {name.lower().encode(): value.encode() for name, value in headers.items()}
    enveloped = take_apart(body, mode_of(raw), raw, items_max=10)
    return enveloped.complete(admit(enveloped.items, project_id="p", accepted_ms=NOW_MS))


def only(body: bytes, headers: dict) -> dict:
    admission = admitted(body, headers)
    assert not admission.rejected, admission.rejected
    (raw,) = admission.raws
    assert json.loads(raw)["id"] == admission.ids[0]
    return json.loads(raw)


def structured(event) -> tuple[bytes, dict]:
    message = http.to_structured_event(event)
    return message.body, message.headers


def binary(event) -> tuple[bytes, dict]:
    message = http.to_binary_event(event)
    return message.body, message.headers


def record(make):
    def made(event) -> dict:
        message = make(event, FORMAT)
        return json.loads(of_record(list(message.headers.items()), message.value))

    return made


MODES = {
    "structured": lambda event: only(*structured(event)),
    "binary": lambda event: only(*binary(event)),
    "kafka-structured": record(kafka.to_structured),
    "kafka-binary": record(kafka.to_binary),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_the_same_event(mode):
    """The pair's id, the time where the data has none, the trace, and all attributes with the log."""
    made = MODES[mode](cloud_event(subject="user ü", traceparent=TRACEPARENT, tenant="a%20b"))
    assert made == {
        **execution(),
        "id": event_id("/agents/mia", "a-1"),
        "timestamp": "2026-04-17T10:25:00Z",
        "context": {"trace_id": "0af7651916cd43dd8448eb211c80319c"},
        "metadata": {
            "cloudevent": {
                "id": "a-1",
                "source": "/agents/mia",
                "type": "tool.executed",
                "time": "2026-04-17T10:25:00Z",
                "subject": "user ü",
                "traceparent": TRACEPARENT,
                "tenant": "a%20b",
            }
        },
    }


@pytest.mark.parametrize("mode", MODES)
def test_what_the_data_says_itself_wins_but_for_the_id(mode):
    """Its time, its context and its metadata stay; its own id is kept beside the pair."""
    data = execution(id="mine", timestamp=1776421500000, context={"request_id": "r"}, metadata={"attempt": 2})
    made = MODES[mode](cloud_event(data, traceparent=TRACEPARENT))
    assert made["id"] == event_id("/agents/mia", "a-1")
    assert (made["timestamp"], made["context"]) == (1776421500000, {"request_id": "r"})
    assert made["metadata"]["attempt"] == 2
    assert made["metadata"]["cloudevent"]["data_id"] == "mine"


def test_an_event_is_one_by_source_and_id_together():
    """The same id of another source is another event; type, time and data make no difference. The formula is the one told."""
    ids = {
        of: only(*structured(cloud_event(source=source, id=name)))["id"]
        for of, (source, name) in {1: ("/a", "b"), 2: ("/a", "c"), 3: ("/b", "b"), 4: ("/ab", "")}.items()
        if name
    }
    assert len(set(ids.values())) == 3
    assert only(*structured(cloud_event(source="/a", id="b", type="other", subject="s")))["id"] == ids[1]
    assert ids[1] == "ce_" + hashlib.sha256(b"/a\nb").hexdigest()[:32]


def test_data_stays_byte_for_byte():
    """`1.50` stays, and so does the order of members."""
    envelope = b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data": %b }'
    data = b'{"status":"success", "duration_ms":1.50,"tool_slug":"T","data":{"request":{"n":1e2}}}'
    assert of_structured(envelope % data).startswith(data[:-1])


def test_data_in_base64_is_read_as_what_it_is_said_to_be():
    """JSON if it is said to be; of no type, it may be anything."""
    body = base64.b64encode(json.dumps(execution()).encode()).decode()
    envelope = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data_base64": body}
    made = json.loads(of_structured(json.dumps(envelope | {"datacontenttype": "application/vnd.tool+json"}).encode()))
    assert made["tool_slug"] == "GMAIL_SEND_EMAIL"
    for broken in (
        envelope,
        envelope | {"datacontenttype": "application/json", "data": {}},
        envelope | {"datacontenttype": "application/json", "data_base64": "§"},
        envelope | {"datacontenttype": "application/json", "data_base64": 5},
    ):
        with pytest.raises(InvalidEvent):
            of_structured(json.dumps(broken).encode())


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("%e2%82%ac", "€"),
        ("a%2520b", "a%20b"),
        ('"two words"', "two words"),
        (r'"a \"quoted\" b\\c"', r'a "quoted" b\c'),
        ("100%", "100%"),
        ("%41", "A"),
    ],
)
def test_header_values_are_decoded_once_as_the_binding_says(sent, value):
    """Quotes of older versions first, then one round of percent-decoding."""
    body, headers = binary(cloud_event())
    assert only(body, headers | {"ce-subject": sent})["metadata"]["cloudevent"]["subject"] == value


def test_an_overlong_encoding_in_a_header_is_refused():
    """`%C0%A0` is not UTF-8."""
    body, headers = binary(cloud_event())
    (refused,) = admitted(body, headers | {"ce-subject": "%C0%A0"}).rejected
    assert (refused.code, refused.id) == ("invalid_encoding", "a-1")


def envelope(**members) -> dict:
    usual = {"specversion": "1.0", "id": "n-1", "source": "/s", "type": "t", "data": execution()}
    return {name: value for name, value in (usual | members).items() if value != "absent"}


@pytest.mark.parametrize(
    ("members", "code", "word"),
    [
        ({"specversion": "0.3"}, "invalid_cloudevent", "0.3"),
        ({"specversion": "absent"}, "invalid_cloudevent", "specversion"),
        ({"source": "absent"}, "invalid_cloudevent", "source"),
        ({"source": ""}, "invalid_cloudevent", "source"),
        ({"type": None}, "invalid_cloudevent", "type"),
        ({"id": 5}, "invalid_cloudevent", "id"),
        ({"id": "a\nb"}, "invalid_cloudevent", "control"),
        ({"subject": {"a": 1}}, "invalid_cloudevent", "subject"),
        ({"ext": 1.5}, "invalid_cloudevent", "ext"),
        ({"data": "absent"}, "invalid_cloudevent", "tool execution"),
        ({"data": None}, "invalid_cloudevent", "tool execution"),
        ({"data": "text"}, "invalid_cloudevent", "tool execution"),
        ({"data": [execution()]}, "invalid_cloudevent", "tool execution"),
        ({"data": {}}, "missing_member", "tool_slug"),
        ({"data": {"order": 7}}, "missing_member", "tool_slug"),
        ({"data": execution(metadata=[])}, "invalid_member", "metadata"),
        ({"datacontenttype": "text/xml", "data": "<a/>"}, "invalid_cloudevent", "text/xml"),
        ({"time": "yesterday"}, "timestamp_unreadable", "timestamp"),
    ],
)
def test_what_is_no_tool_execution_is_refused_with_the_reason(members, code, word):
    """By itself: its neighbours in a batch are taken, and it is named by its own id."""
    batch = [envelope(id="before"), envelope(**members), envelope(id="after")]
    admission = admitted(json.dumps(batch).encode(), {"content-type": "application/cloudevents-batch+json"})
    assert admission.ids == [event_id("/s", "before"), event_id("/s", "after")]
    (refused,) = admission.rejected
    assert (refused.index, refused.code) == (1, code)
    assert word in refused.message
    assert refused.id == (batch[1].get("id") if isinstance(batch[1].get("id"), str) else None)


def test_unset_attributes_are_as_if_they_were_not_there():
    """Null in JSON."""
    made = json.loads(of_structured(json.dumps(envelope(subject=None, time=None, data_base64=None)).encode()))
    assert made["metadata"]["cloudevent"] == {"id": "n-1", "source": "/s", "type": "t"}
    assert "timestamp" not in made


def test_batches_are_arrays_also_of_none():
    """Anything else is refused as a whole."""
    headers = {"content-type": "application/cloudevents-batch+json; charset=UTF-8"}
    assert admitted(b" [ ] ", headers).ids == []
    for body, status in ((b"{}", 400), (b"", 400), (b"[{", 400), (b"[1]", None), (b"[" + b"{}," * 11 + b"{}]", 413)):
        if status is None:
            assert [one.code for one in admitted(body, headers).rejected] == ["invalid_cloudevent"]
            continue
        with pytest.raises(FormatError) as refused:
            admitted(body, headers)
        assert refused.value.status == status


def test_the_mode_is_told_by_content_type_and_headers():
    """Other formats of CloudEvents are not understood; a header alone makes a binary one."""
    assert mode_of({b"content-type": b"application/CloudEvents+json; charset=utf-8"}) == "structured"
    assert mode_of({b"content-type": b"application/json", b"ce-id": b"1"}) == "binary"
    assert mode_of({b"content-type": b"application/json", b"ce-": b"1", b"x": b"y"}) is None
    with pytest.raises(FormatError) as refused:
        mode_of({b"content-type": b"application/cloudevents+protobuf"})
    assert refused.value.status == 415


def test_the_time_of_the_sdk_is_read_to_the_millisecond():
    """As any timestamp of an event."""
    assert only(*binary(cloud_event(time=TIME.replace(microsecond=123_000))))["timestamp"] == "2026-04-17T10:25:00.123000Z"
