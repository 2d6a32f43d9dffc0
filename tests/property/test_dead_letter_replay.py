"""Whatever bytes are on the topic, good events go on; and what is replayed is what the worker takes, the same every time."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.contract.errors import InvalidEvent
from ingest.contract.event import EVENT_BYTES_MAX
from ingest.contract.partitioning import event_key, home_partition
from ingest.contract.pieces import is_whole_record
from ingest.contract.replay import Letter, ReplayRecord, parse_letter_id, replay
from processors.batch import Batch, Prepared, read, settle
from processors.decode import Decoded, Record, decode
from processors.dedupe import SeenFilter

INCARNATION = "0123456789abcdef" * 2
START_MS = 1_776_421_500_000
PARTITIONS = 4
slow = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))

GOOD = {"tool_slug": "GMAIL_SEND_EMAIL", "status": "success", "duration_ms": 5, "timestamp": START_MS - 1000}

members = st.fixed_dictionaries(
    {},
    optional={
        "tool_slug": st.sampled_from(["X", "", 7]),
        "status": st.sampled_from(["success", "failed", "odd"]),
        "duration_ms": st.sampled_from([1, -1, "1", 1.5, 1e300]),
        "timestamp": st.sampled_from([START_MS, 5, "now", "", None, "2026-01-01T00:00:00Z", START_MS + 10**10]),
        "id": st.sampled_from(["own", "", None, 3, "x" * 300]),
        "data": st.sampled_from([{}, [], "text", None]),
        "project_id": st.sampled_from(["other", "", None, "a b", "a\n"]),
    },
)
pieces = st.binary(max_size=40) | members.map(lambda event: json.dumps(event).encode()) | st.just(json.dumps(GOOD).encode())
rubbish = (
    st.none()
    | st.binary(max_size=80)
    | pieces
    | st.lists(pieces, max_size=4).map(lambda some: b"[" + b",".join(some) + b"]")
    | st.lists(pieces, max_size=4).map(b"\n".join)
    | st.recursive(st.binary(max_size=8), lambda inner: inner.map(lambda raw: b"[" + raw), max_leaves=5)
    | st.sampled_from([b'{"a":"\\ud800"}', b"[NaN]", b"\xff\xfe", b"[" * 3000, b'{"a":' * 3000, b"[]", b"[[]]", b"\x00" * 9])
)
headers = st.lists(
    st.tuples(
        st.sampled_from(["project_id", "first_accepted_ms", "forwarded_among", "replay_of", "other"]),
        st.sampled_from([b"", b"demo", b"\xff", b"4", b"99999999999999999", b"a/b", b"demo\n", b"x" * 500]),
    ),
    max_size=3,
)
mended_events = st.lists(
    st.fixed_dictionaries(
        {"tool_slug": st.just("X"), "status": st.just("failed"), "duration_ms": st.integers(0, 9)},
        optional={
            "id": st.sampled_from(["e1", "e2", "", None]),
            "timestamp": st.sampled_from([START_MS - 5, "2026-04-01T00:00:00Z", "", None]),
            "data": st.just({"a": "ä"}),
        },
    ),
    min_size=1,
    max_size=4,
)


def taken(records: Sequence[Record], *, partition: int = 0, partitions: int = PARTITIONS) -> Decoded:
    return decode(records, incarnation=INCARNATION, partition=partition, partitions=partitions)


def letters_of(found: Decoded, *, partition: int = 0) -> list[Letter]:
    return [
        Letter(
            incarnation=INCARNATION,
            partition=partition,
            offset=letter.offset,
            index=letter.index,
            project_id=letter.project_id,
            accepted_ms=letter.accepted_ms,
            reason=letter.reason,
            payload=letter.payload,
        )
        for letter in found.dead_letters
    ]


def arrived(sent: Sequence[ReplayRecord], *, offset: int = 1000, at_ms: int = START_MS + 10**9) -> list[Record]:
    return [
        Record(offset=offset + n, timestamp_ms=at_ms, key=one.key, value=one.value, headers=one.headers)
        for n, one in enumerate(sent)
    ]


@slow
@given(values=st.lists(st.tuples(rubbish, headers), max_size=8), data=st.data())
def test_any_bytes_beside_good_events_cost_nothing_but_themselves(
    values: list[tuple[bytes | None, Any]], data: st.DataObject
) -> None:
    """Good events of another tenant all come out; every piece of rubbish is an event or a dead letter with its own bytes."""
    records: list[Record] = []
    good = []
    for value, given_headers in values:
        offset = len(records)
        records.append(Record(offset=offset, timestamp_ms=START_MS, key=None, value=value, headers=given_headers))
        event = {**GOOD, "id": f"good{offset}"}
        good.append(event["id"])
        records.append(
            Record(
                offset=offset + 1,
                timestamp_ms=START_MS,
                key=None,
                value=json.dumps(event).encode(),
                headers=[("project_id", b"tenant")],
            )
        )
    found = taken(records)
    assert [one for one, project in zip(found.ids, found.project_ids, strict=True) if project == "tenant"] == good
    places = {(letter.offset, letter.index) for letter in found.dead_letters}
    assert len(places) == len(found.dead_letters)
    for letter in found.dead_letters:
        assert letter.payload in (records[letter.offset].value or b"")
        assert letter.reason
        assert letter.message
    for offset, (value, _) in zip(range(0, len(records), 2), values, strict=True):
        came = found.offsets.count(offset) + sum(letter.offset == offset for letter in found.dead_letters)
        assert came or (value or b"").strip() == b"[]"


@slow
@given(value=rubbish, given_headers=headers)
def test_a_replay_of_the_same_bytes_is_judged_as_the_worker_judged_them(value: bytes | None, given_headers: Any) -> None:
    """Nothing was mended and nobody was named: what the worker refused is refused, for the same reason."""
    record = Record(offset=3, timestamp_ms=START_MS, key=None, value=value, headers=given_headers)
    for letter in letters_of(taken([record])):
        with pytest.raises(InvalidEvent) as refused:
            replay(letter, incarnation=INCARNATION, partitions=PARTITIONS)
        # An invalid project in the header is gone with it; only that nobody is named is left.
        assert letter.reason in (refused.value.reason, "project_invalid")


@slow
@given(value=rubbish, given_headers=headers, events=mended_events, lines=st.booleans(), own=st.booleans())
def test_mended_events_become_exactly_those_events(
    value: bytes | None, given_headers: Any, events: list[dict[str, Any]], lines: bool, own: bool
) -> None:
    """What the worker makes of the records is what was mended: one event each, at home, at the letter's time if it has none."""
    first = Record(offset=3, timestamp_ms=START_MS, key=None, value=value, headers=given_headers)
    raws = [json.dumps(event).encode() for event in events]
    mended = raws[0] if len(raws) == 1 else b"\n".join(raws) if lines else b"[" + b",".join(raws) + b"]"
    incarnation = INCARNATION if own else "f" * 32
    for letter in letters_of(taken([first], partition=2), partition=2):
        sent = replay(letter, incarnation=incarnation, partitions=PARTITIONS, mended=mended, project_id="assigned")
        assert sent == replay(letter, incarnation=incarnation, partitions=PARTITIONS, mended=mended, project_id="assigned")
        assert len(sent) == len(events)
        given_ids = [event["id"] for event in events if event.get("id")]
        made_ids = [one.event_id for one, event in zip(sent, events, strict=True) if not event.get("id")]
        assert [one.event_id for one, event in zip(sent, events, strict=True) if event.get("id")] == given_ids
        assert len(set(made_ids)) == len(made_ids)
        assert not set(made_ids) & set(given_ids)
        for one, record, event in zip(sent, arrived(sent), events, strict=True):
            found = decode([record], incarnation=incarnation, partition=one.partition, partitions=PARTITIONS)
            assert found.dead_letters == []
            assert found.ids == [one.event_id]
            assert found.project_ids == [letter.project_id or "assigned"]
            assert found.accepted_ms == [letter.accepted_ms]
            assert found.replays == {0: letter.id}
            if not event.get("timestamp"):
                assert found.timestamps_ms == [letter.accepted_ms]
            if event.get("id") or not own:
                assert one.partition == home_partition(event_key(one.project_id, one.event_id), PARTITIONS)
            else:
                # A made id is where it was made, also when there are more partitions by the time it is read.
                assert one.partition == 2
                assert decode([record], incarnation=incarnation, partition=2, partitions=64).stays == [True]


@slow
@given(value=rubbish, given_headers=headers, events=mended_events)
def test_no_made_id_is_one_that_the_worker_makes_for_something_else(
    value: bytes | None, given_headers: Any, events: list[dict[str, Any]]
) -> None:
    """The ids of a mended letter's events are none of those that its neighbours in the record got."""
    first = Record(offset=3, timestamp_ms=START_MS, key=None, value=value, headers=given_headers)
    found = taken([first])
    mended = json.dumps([{**event, "id": None} for event in events]).encode()
    for letter in letters_of(found):
        sent = replay(letter, incarnation=INCARNATION, partitions=PARTITIONS, mended=mended, project_id="assigned")
        others = {one.id for one in letters_of(found) if one.id != letter.id}
        assert not {one.event_id for one in sent} & (set(found.ids) | others)
        assert parse_letter_id(letter.id) == (INCARNATION, 0, letter.offset, letter.index)


@pytest.mark.parametrize("fixed", [b'[{"x":1}, {"y":2},', b'[{"a":1}\n{"b":2}]'])
def test_a_whole_record_gets_the_ids_a_worker_would_give_that_can_read_it(fixed: bytes) -> None:
    """So a record that is read again after a fix, and its replay, are the same events in the same partition."""
    letter = letters_of(taken([Record(offset=9, timestamp_ms=START_MS, key=None, value=fixed)], partition=1), partition=1)[0]
    assert is_whole_record(index=letter.index, reason=letter.reason, payload=letter.payload)
    mended = json.dumps([GOOD, GOOD, GOOD]).encode()
    sent = replay(letter, incarnation=INCARNATION, partitions=PARTITIONS, mended=mended, project_id="p")
    again = taken(
        [Record(offset=9, timestamp_ms=START_MS, key=None, value=mended, headers=[("project_id", b"p")])], partition=1
    )
    assert [one.event_id for one in sent] == again.ids
    assert {one.partition for one in sent} == {1}


def batch_of(records: Sequence[Record], *, seen: SeenFilter, known: set[str], partition: int = 1) -> Prepared:
    batch = Batch(
        incarnation=INCARNATION,
        partition=partition,
        partitions=PARTITIONS,
        first_offset=records[0].offset,
        next_offset=records[-1].offset + 1,
        records=records,
    )
    candidates = read(batch, seen=seen)
    asked = {*candidates.suspects.by_id, *candidates.suspects.by_time}
    answers = {place: 0 for place in asked if candidates.decoded.ids[place] in known}
    return settle(candidates, known=answers, stores_payload=lambda _: True, window_close_ms=0)


def test_a_replay_is_always_asked_of_the_truth() -> None:
    """Also where the filter knows nothing of it, as after a restart or past its horizon: a second replay is a duplicate."""
    letter = letters_of(taken([Record(offset=9, timestamp_ms=START_MS, key=None, value=b"{")], partition=1), partition=1)[0]
    sent = replay(letter, incarnation=INCARNATION, partitions=PARTITIONS, mended=json.dumps(GOOD).encode(), project_id="p")
    blank = SeenFilter(budget_bytes=1 << 20)
    first = batch_of(arrived(sent), seen=blank, known=set())
    assert first.executions["id"].to_list() == [letter.id]
    assert first.executions["replay_of"].to_list() == [letter.id]
    second = batch_of(arrived(sent, offset=2000), seen=blank, known={letter.id})
    assert (second.totals["accepted"], second.totals["duplicates"]) == (0, 1)


@pytest.mark.parametrize("value", [b"1\n" * 2_000_000, b"[" + b"1," * 1_999_999 + b"1]", b"[" + b"NaN," * 199_999 + b"NaN]"])
def test_megabytes_of_crumbs_are_one_dead_letter(value: bytes) -> None:
    """What cannot be a pack of events is kept whole, so that one record never becomes millions of rows."""
    (letter,) = letters_of(taken([Record(offset=9, timestamp_ms=START_MS, key=None, value=value)]))
    assert (letter.reason, letter.payload) == ("too_many_pieces", value)
    (sent,) = replay(letter, incarnation=INCARNATION, partitions=PARTITIONS, mended=json.dumps(GOOD).encode(), project_id="p")
    assert sent.event_id == letter.id


def test_the_shortest_events_are_no_crumbs() -> None:
    """As many as a record can hold are taken in."""
    shortest = b'{"tool_slug":"X","status":"failed","duration_ms":1}'
    count = 40_000
    headers = [("project_id", b"p")]
    for value in (b"[" + b",".join([shortest] * count) + b"]", b"\n".join([shortest] * count)):
        found = taken([Record(offset=9, timestamp_ms=START_MS, key=None, value=value, headers=headers)])
        assert (len(found.events), found.dead_letters) == (count, [])


def test_an_event_without_room_for_its_id_is_refused_not_sent() -> None:
    """Nothing is sent that would come back as a dead letter of its own."""
    padding = "x" * (EVENT_BYTES_MAX - len(json.dumps({**GOOD, "data": {"p": ""}})))
    mended = json.dumps({**GOOD, "data": {"p": padding}}).encode()
    letter = letters_of(taken([Record(offset=9, timestamp_ms=START_MS, key=None, value=b"{")]))[0]
    with pytest.raises(InvalidEvent) as refused:
        replay(letter, incarnation=INCARNATION, partitions=PARTITIONS, mended=mended, project_id="p")
    assert refused.value.reason == "event_too_large"


def test_a_mended_event_of_another_project_is_refused() -> None:
    """Whose a dead letter is was settled when it came; bytes cannot move it."""
    record = Record(offset=9, timestamp_ms=START_MS, key=None, value=b"{", headers=[("project_id", b"demo")])
    mended = json.dumps({**GOOD, "project_id": "other"}).encode()
    with pytest.raises(InvalidEvent) as refused:
        replay(letters_of(taken([record]))[0], incarnation=INCARNATION, partitions=PARTITIONS, mended=mended)
    assert refused.value.reason == "project_mismatch"


def test_a_mended_event_may_begin_with_a_byte_order_mark() -> None:
    letter = letters_of(taken([Record(offset=9, timestamp_ms=START_MS, key=None, value=b"{")]))[0]
    mended = json.dumps(GOOD).encode()
    made = [
        replay(letter, incarnation=INCARNATION, partitions=PARTITIONS, mended=mark + mended, project_id="p")
        for mark in (b"", b"\xef\xbb\xbf")
    ]
    assert made[0] == made[1]


def test_a_letter_whose_bytes_are_past_retention_says_so_and_can_be_mended() -> None:
    letter = replace(letters_of(taken([Record(offset=9, timestamp_ms=START_MS, key=None, value=b"{")]))[0], payload=b"")
    with pytest.raises(InvalidEvent, match="past retention"):
        replay(letter, incarnation=INCARNATION, partitions=PARTITIONS, project_id="p")
    mended = json.dumps(GOOD).encode()
    assert len(replay(letter, incarnation=INCARNATION, partitions=PARTITIONS, mended=mended, project_id="p")) == 1


NO_IDS = ["", "x", INCARNATION, *(f"{INCARNATION}-{rest}" for rest in ("1-2", "1-2-3-4", "01-2-3", "1-2-3\n", "1-2-٣"))]


@pytest.mark.parametrize("text", [*NO_IDS, INCARNATION.upper() + "-1-2-3"])
def test_only_an_id_is_an_id(text: str) -> None:
    """Anything else is no dead letter's id."""
    assert parse_letter_id(text) is None
