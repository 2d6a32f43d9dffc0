"""What ingest refuses of an event, and what it says."""

import re

import pytest

from ingest.admission import Rejected, admit, random_ids, retry_ids
from ingest.contract.event import EVENT_BYTES_MAX
from ingest.formats import split

NOW_MS = 1_800_000_000_000
BASE = b'"tool_slug":"A","status":"success","duration_ms":1'


def judge(body: bytes, shape: str = "json") -> tuple[list[str], list[Rejected]]:
    items = split(body, shape, items_max=100)  # type: ignore[arg-type]
    admission = admit(items, project_id="proj", accepted_ms=NOW_MS)
    return admission.ids, admission.rejected


def test_a_refusal_says_where_the_item_stood_and_which_it_was() -> None:
    body = b"\n{" + BASE + b',"id":"a"}\n\n{"tool_slug":"A","id":"b"}\nbroken\n{' + BASE + b',"id":"c"}\n'
    ids, rejected = judge(body, "ndjson")
    assert ids == ["a", "c"]
    assert [(item.index, item.line, item.id, item.code) for item in rejected] == [
        (1, 4, "b", "missing_member"),
        (2, 5, None, "invalid_json"),
    ]


@pytest.mark.parametrize(
    ("member", "code", "names"),
    [
        (b'"project_id":"other"', "project_mismatch", "`project_id`"),
        (b'"timestamp":1800000000', "timestamp_out_of_range", "seconds"),
        (b'"timestamp":"yesterday"', "timestamp_unreadable", "ISO 8601"),
        (b'"data":{"x":"\xff"}', "invalid_encoding", "UTF-8"),
        (b'"data":"text"', "invalid_member", "`data`"),
        (b'"duration_ms":1e400', "invalid_member", "`duration_ms`"),
    ],
)
def test_a_refusal_has_a_code_and_names_the_member(member: bytes, code: str, names: str) -> None:
    ids, rejected = judge(b"[{" + BASE + b"},{" + BASE + b"," + member + b"}]")
    assert len(ids) == 1
    assert [(item.index, item.code) for item in rejected] == [(1, code)]
    assert names in rejected[0].message


def test_an_absent_a_null_and_an_empty_id_are_one_thing() -> None:
    ids, rejected = judge(b'[{%b},{%b,"id":null},{%b,"id":""}]' % (BASE, BASE, BASE))
    assert not rejected
    assert all(re.fullmatch(r"log_[A-Za-z0-9_-]{12}", event_id) for event_id in ids)
    assert len(set(ids)) == 3


def test_an_event_that_no_longer_fits_with_what_ingest_adds_is_refused_here_and_not_by_the_worker() -> None:
    pad = EVENT_BYTES_MAX - len(b'{%b,"data":{"x":""}}' % BASE)
    exact = b'{%b,"data":{"x":"%b"}}' % (BASE, b"x" * pad)
    assert len(exact) == EVENT_BYTES_MAX
    ids, rejected = judge(b"[" + exact + b",{" + BASE + b',"id":"small"}]')
    assert ids == ["small"]
    assert [(item.index, item.code) for item in rejected] == [(0, "event_too_large")]
    assert str(EVENT_BYTES_MAX) in rejected[0].message


def test_an_event_of_exactly_the_limit_with_id_and_time_of_its_own_is_taken() -> None:
    head = b'{%b,"id":"a","timestamp":%d,"data":{"x":"' % (BASE, NOW_MS)
    ids, rejected = judge(b"[" + head + b"x" * (EVENT_BYTES_MAX - len(head) - 3) + b'"}},{' + BASE + b',"id":"b"}]')
    assert ids == ["a", "b"]
    assert not rejected


def test_fresh_ids_differ_and_ids_for_a_retry_do_not() -> None:
    assert not set(random_ids(range(100))) & set(random_ids(range(100)))
    assert retry_ids("p", "k")([0, 5]) == retry_ids("p", "k")([0, 5])


def test_an_event_of_a_time_that_retention_took_is_refused_at_the_door() -> None:
    """Of before a moment it is refused, as number and as text; of that moment and without a time it is taken."""
    since_ms = NOW_MS - 86_400_000
    stamps = [
        b'"timestamp":%d' % (since_ms - 1),
        b'"timestamp":"2027-01-14T07:59:59.999Z"',
        b'"timestamp":%d' % since_ms,
        b'"a":1',
    ]
    body = b"[" + b",".join(b"{" + BASE + b"," + stamp + b"}" for stamp in stamps) + b"]"
    items = split(body, "json", items_max=100)
    admission = admit(items, project_id="proj", accepted_ms=NOW_MS, kept_since_ms=since_ms)
    assert [(item.index, item.code) for item in admission.rejected] == [(0, "past_retention"), (1, "past_retention")]
    assert "before 2027-01-14" in admission.rejected[0].message
    assert len(admission.ids) == 2
