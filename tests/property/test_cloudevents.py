"""Any envelope around any data: an event named by its pair, or a refusal with a reason; alike in every mode."""

import contextlib
import json
from typing import Any

from cloudevents.core.bindings import http
from hypothesis import given
from hypothesis import strategies as st

from ingest.admission import admit
from ingest.cloudevents import mode_of, take_apart
from ingest.contract.cloudevents import event_id, of_record, of_structured
from ingest.contract.errors import InvalidEvent
from ingest.contract.event import decode_event
from tests.support.cloud_events import cloud_event, execution

NOW_MS = 1_795_000_000_000

# What the standard allows in a text: no control characters.
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
words = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=3, max_size=10).filter(
    lambda name: name not in ("data", "time", "source", "type", "specversion", "dataschema")
)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
executions = st.fixed_dictionaries(
    {},
    optional={
        "id": texts,
        "timestamp": st.integers(1_500_000_000_000, NOW_MS),
        "metadata": st.dictionaries(st.text(max_size=5), any_json, max_size=3) | st.none(),
        "context": st.just({"request_id": "r"}) | st.none(),
        "data": st.dictionaries(st.text(max_size=5), any_json, max_size=3),
    },
).map(lambda members: execution(**members))


@given(source=texts, name=texts, data=executions, extensions=st.dictionaries(words, texts, max_size=3))
def test_structured_and_binary_make_the_same_event(source: str, name: str, data: Any, extensions: dict[str, str]) -> None:
    """The SDK writes both; the data's members stay, the pair makes the id, and all attributes are kept."""
    event = cloud_event(data, source=source, id=name, **extensions)
    made = []
    for message in (http.to_structured_event(event), http.to_binary_event(event)):
        headers = {header.lower().encode(): value.encode() for header, value in message.headers.items()}
        mode = mode_of(headers)
        assert mode is not None
        enveloped = take_apart(bytes(message.body), mode, headers, items_max=1)
        admission = enveloped.complete(admit(enveloped.items, project_id="p", accepted_ms=NOW_MS))
        assert not admission.rejected
        made.append(json.loads(bytes(admission.raws[0])))
    assert made[0] == made[1]
    assert made[0]["id"] == event_id(source, name)
    kept = made[0]["metadata"]["cloudevent"]
    assert (kept["source"], kept["id"]) == (source, name)
    assert kept.items() >= extensions.items()
    assert made[0].items() >= {member: data[member] for member in data if member not in ("id", "metadata", "context")}.items()
    for member, value in (data.get("metadata") or {}).items():
        assert member == "cloudevent" or made[0]["metadata"][member] == value


@given(source=texts, name=texts, other_source=texts, other_name=texts)
def test_ids_differ_as_pairs_do(source: str, name: str, other_source: str, other_name: str) -> None:
    """No two pairs run into each other where one ends and the other begins."""
    same = (source, name) == (other_source, other_name)
    assert (event_id(source, name) == event_id(other_source, other_name)) == same


envelopes = st.dictionaries(
    st.sampled_from(["specversion", "id", "source", "type", "time", "data", "data_base64", "datacontenttype", "ext"]),
    any_json | executions | st.sampled_from(["1.0", "application/json", "e30="]),
)


@given(envelopes | any_json)
def test_any_json_is_an_event_or_a_refusal(value: Any) -> None:
    """Never anything else; what comes out is one JSON object with an id."""
    with contextlib.suppress(InvalidEvent):
        assert json.loads(of_structured(json.dumps(value).encode()))["id"].startswith("ce_")


@given(
    st.binary(max_size=200),
    st.dictionaries(st.sampled_from(["ce_id", "ce_source", "ce_specversion", "content-type"]), st.binary(max_size=20)),
)
def test_any_record_is_an_event_or_a_refusal(value: bytes, headers: dict[str, bytes]) -> None:
    """Whatever stands in headers and value."""
    usual = {"ce_id": b"1", "ce_source": b"/s", "ce_type": b"t", "ce_specversion": b"1.0"}
    for given_headers in (headers, usual | headers):
        with contextlib.suppress(InvalidEvent):
            assert decode_event(of_record(list(given_headers.items()), value)).id
