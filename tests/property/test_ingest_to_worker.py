"""What ingest takes becomes a row: whatever is sent, it is refused with a reason, or is no dead letter in the worker."""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.admission import Admission, admit
from ingest.contract.event import EVENT_BYTES_MAX, MESSAGE_CHARS_MAX
from ingest.formats import FormatError, split
from ingest.packing import pack
from processors.batch import Batch, Prepared, read, settle
from processors.decode import Record
from processors.dedupe import SeenFilter
from tests.support.bad_events import bodies

NOW_MS = 1_800_000_000_000
PROJECT = "proj"


@contextlib.contextmanager
def deeper() -> Iterator[None]:
    """As the worker's composition root does, so that it is never stricter about nesting."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(2 * before)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def taken(body: bytes, *, keeps_payload: bool = True) -> Admission | None:
    try:
        items = split(body, "json", items_max=100)
    except FormatError:
        return None
    return admit(items, project_id=PROJECT, accepted_ms=NOW_MS, keeps_payload=keeps_payload)


def worked(admission: Admission, *, pack_bytes: int) -> Prepared:
    """Take what was accepted through the worker, as one partition."""
    records = pack(PROJECT, admission.ids, admission.raws, partitions=1, pack_bytes=pack_bytes)
    batch = Batch(
        incarnation="i",
        partition=0,
        partitions=1,
        first_offset=0,
        next_offset=len(records),
        records=[
            # The broker's clock may be behind that of ingest, and the event is judged by it.
            Record(
                offset=offset, timestamp_ms=NOW_MS - 1000, key=record.key, value=record.value, headers=[("project_id", b"proj")]
            )
            for offset, record in enumerate(records)
        ],
    )
    with deeper():
        candidates = read(batch, seen=SeenFilter(budget_bytes=1 << 16))
        return settle(candidates, known={}, stores_payload=lambda _: True, window_close_ms=300_000)


@settings(max_examples=200)
@given(body=bodies, pack_bytes=st.sampled_from([1024, 1 << 19]), keeps_payload=st.booleans())
@example(
    body=b'{"tool_slug":"A","status":"failed","duration_ms":1,"data":null,"data":{"x":1e400}}',
    pack_bytes=1024,
    keeps_payload=False,
)
def test_what_is_accepted_is_never_a_dead_letter(body: bytes, pack_bytes: int, keeps_payload: bool) -> None:
    """One row for each id that was answered, and nothing else."""
    admission = taken(body, keeps_payload=keeps_payload)
    if admission is None:
        return
    for refusal in admission.rejected:
        assert refusal.code
        assert refusal.message
    if not admission.ids:
        return
    prepared = worked(admission, pack_bytes=pack_bytes)
    assert [letter.message for letter in prepared.dead_letters] == []
    assert set(prepared.executions["id"]) == set(admission.ids)
    stored = "".join(prepared.executions["data"]) + "".join(prepared.executions["message"])
    assert "hunter2" not in stored
    if not keeps_payload:
        assert set(prepared.executions["data"]) == {""}


def test_a_message_that_grows_beyond_its_limit_without_its_secret_is_refused_and_says_so() -> None:
    """`[redacted]` may be longer than what it stands for."""
    event: dict[str, Any] = {"tool_slug": "A", "status": "failed", "duration_ms": 1}
    short = "password=a1 "
    admission = taken(json.dumps([event | {"id": "long", "message": short + "x" * (MESSAGE_CHARS_MAX - len(short))},
                                  event | {"id": "fits", "message": short}, event | {"id": "plain"}]).encode())  # fmt: skip
    assert admission is not None
    assert admission.ids == ["fits", "plain"]
    (refusal,) = admission.rejected
    assert (refusal.index, refusal.id, refusal.code) == (0, "long", "invalid_member")
    assert "secrets replaced" in refusal.message
    assert str(MESSAGE_CHARS_MAX) in refusal.message


def test_an_event_that_grows_beyond_the_limit_is_refused() -> None:
    """The worker holds the same limit."""
    event: dict[str, Any] = {"tool_slug": "A", "status": "failed", "duration_ms": 1, "data": {"api_key": "1", "x": ""}}
    event["data"]["x"] = "x" * (EVENT_BYTES_MAX - len(json.dumps(event)) - 60)
    admission = taken(json.dumps(event).encode())
    assert admission is not None
    assert len(worked(admission, pack_bytes=1024).executions) == 1
    event["data"]["x"] += "x" * 55
    admission = taken(json.dumps(event | {"id": "i", "timestamp": NOW_MS}).encode())
    assert admission is not None
    assert [refusal.code for refusal in admission.rejected] == ["event_too_large"]
