"""What ingest adds to an event never touches what was sent, and what it accepts the worker accepts too."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ingest.admission import admit, retry_ids, splice
from ingest.contract.event import check_timestamp, decode_event, timestamp_ms
from ingest.contract.redact import COMMON
from ingest.formats import split

NOW_MS = 1_800_000_000_000

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(texts, children, max_size=3),
    max_leaves=8,
)
good_events = st.fixed_dictionaries(
    {
        "tool_slug": st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        "status": st.sampled_from(["success", "failed"]),
    }
    | {"duration_ms": st.floats(0, 1e6) | st.integers(0, 10**6)},
    optional={
        "id": texts | st.none(),
        "timestamp": st.integers(1_500_000_000_000, NOW_MS) | st.none() | st.just("") | st.just("2026-04-17T10:25:00Z"),
        "project_id": st.sampled_from(["proj", "", None]),
        "data": st.dictionaries(texts, values, max_size=3) | st.none(),
        "metadata": st.dictionaries(texts, values, max_size=3) | st.none(),
        "anything": values,
    },
)
bad_events = st.sampled_from(
    [
        {"status": "success", "duration_ms": 1},
        {"tool_slug": "A", "status": "odd", "duration_ms": 1, "id": "known"},
        {"tool_slug": "A", "status": "success", "duration_ms": -1},
        {"tool_slug": "A", "status": "success", "duration_ms": 1, "project_id": "another"},
        {"tool_slug": "A", "status": "success", "duration_ms": 1, "timestamp": 1_800_000_000},
        {"tool_slug": "A", "status": "success", "duration_ms": 1, "data": []},
        [],
        5,
        None,
    ]
)


def spell(event: Any, ascii_only: bool, indent: int | None) -> bytes:
    return json.dumps(event, ensure_ascii=ascii_only, indent=indent).encode()


@given(
    st.lists(
        st.tuples(st.booleans(), good_events | bad_events, st.booleans(), st.sampled_from([None, 1])), min_size=1, max_size=12
    )
)
def test_every_item_is_either_accepted_with_its_bytes_or_refused_and_no_neighbour_is_lost(
    parts: list[tuple[bool, Any, bool, int | None]],
) -> None:
    sent = [spell(event, ascii_only, indent) for _, event, ascii_only, indent in parts]
    admission = admit(split(b"[" + b",".join(sent) + b"]", "json", items_max=100), project_id="proj", accepted_ms=NOW_MS)

    refused = {item.index for item in admission.rejected}
    assert sorted(refused) == [item.index for item in admission.rejected]
    kept = [raw for index, raw in enumerate(sent) if index not in refused]
    assert len(admission.ids) == len(admission.raws) == len(kept)
    for raw, passed_on, event_id in zip(kept, map(bytes, admission.raws), admission.ids, strict=True):
        # Byte for byte up to the closing brace, but for secrets; what follows was added.
        assert passed_on.startswith(COMMON.event(raw)[:-1])
        again = decode_event(passed_on)
        assert again.id == event_id != ""
        assert again.data == decode_event(COMMON.event(raw)).data
        assert again.metadata == decode_event(COMMON.event(raw)).metadata
        assert again.timestamp is not None
        check_timestamp(timestamp_ms(again.timestamp), accepted_ms=NOW_MS)
        before = decode_event(raw)
        assert event_id == (before.id or event_id)
        assert again.timestamp == (before.timestamp or NOW_MS)


@given(good_events, st.booleans())
def test_good_events_are_all_accepted(event: dict[str, Any], ascii_only: bool) -> None:
    admission = admit(split(spell(event, ascii_only, None), "json", items_max=1), project_id="proj", accepted_ms=NOW_MS)
    assert not admission.rejected


@given(good_events, texts, st.integers(0, NOW_MS), st.sampled_from([b"", b" ", b"\r\n", b" \t\n"]))
def test_a_spliced_event_is_the_same_event_with_the_new_members_in_force(
    event: dict[str, Any], event_id: str, timestamp: int, tail: bytes
) -> None:
    spliced = splice(spell(event, True, None) + tail, event_id=event_id, timestamp=timestamp)
    assert json.loads(spliced) == {**event, "id": event_id, "timestamp": timestamp}
    assert splice(spliced) == spliced


@given(texts, st.lists(st.integers(0, 10_000), unique=True, max_size=30))
def test_ids_for_retries_depend_on_project_key_and_place_alone(key: str, indexes: list[int]) -> None:
    ids = retry_ids("proj", key)(indexes)
    assert ids == [retry_ids("proj", key)([index])[0] for index in indexes]
    assert len(set(ids)) == len(indexes)
    assert not set(ids) & set(retry_ids("other", key)(indexes))
    assert all(len(event_id) == 16 and event_id.startswith("log_") for event_id in ids)
    assert msgspec.json.decode(msgspec.json.encode(ids)) == ids
