"""What each answer of a server means for the batch it answers."""

import json
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest

from ingest.client.connection import Answer
from ingest.client.judging import RETRY_AFTER_S_MAX, Delivered, TooLarge, TryAgain, judge

NOW_S = 1_776_421_500.0


def judged(status: int, body: Any = b"", **headers: str) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return judge(Answer(status=status, headers=headers, body=raw), events=3, now_s=NOW_S)


def test_accepted_and_refused_events_are_counted_apart() -> None:
    """A 202 tells of each event; a 400 that names every one is an answer too."""
    refused = [{"index": 1, "id": "log_1", "code": "event_too_large", "message": "..."}]
    assert judged(202, {"accepted": 3, "ids": [], "rejected": []}) == Delivered(accepted=3)
    assert judged(202, {"accepted": 2, "rejected": refused}) == Delivered(
        accepted=2, rejected=1, codes={"event_too_large": 1}, ids=("log_1",)
    )
    assert judged(400, {"error": {"message": "none"}, "rejected": refused * 3}).rejected == 3


@pytest.mark.parametrize("status", [400, 405, 415, 422, 431])
def test_what_can_never_succeed_is_not_tried_again(status: int) -> None:
    """The request is wrong as it is."""
    assert judged(status, b"no") == Delivered(accepted=0, rejected=3, codes={f"http_{status}": 3})


def test_a_request_that_is_too_large_is_to_be_made_smaller() -> None:
    """413 is about the request, not its events."""
    assert judged(413) == TooLarge()


@pytest.mark.parametrize("status", [401, 403, 404, 200, 202, 204, 302])
def test_a_wrong_key_or_address_loses_nothing_and_is_not_hurried(status: int) -> None:
    """Somebody may mend it: also where another server than ours answers with success."""
    found = judged(status, b"<html>welcome</html>")
    assert isinstance(found, TryAgain)
    assert found.unwelcome


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_what_passes_is_tried_again(status: int) -> None:
    """Without another word after a while, else when the server says."""
    assert judged(status) == TryAgain(why=f"it answered {status}")
    assert judged(status, **{"retry-after": "7"}).retry_after_s == 7


@pytest.mark.parametrize(
    ("given", "wait_s"),
    [
        ("0", 0), ("120", 120), ("999999999", RETRY_AFTER_S_MAX), ("soon", None), ("-1", None), ("1e9", None), ("", None),
        (format_datetime(datetime.fromtimestamp(NOW_S + 30, UTC), usegmt=True), 30),
        (format_datetime(datetime.fromtimestamp(NOW_S - 30, UTC), usegmt=True), 0),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(given: str, wait_s: float | None) -> None:
    """Bounded; nonsense is as if nothing was said."""
    assert judged(503, **{"retry-after": given}).retry_after_s == wait_s
