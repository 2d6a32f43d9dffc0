"""Until when a partition is said to be complete."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from processors.progress import progress

NOW_MS = 1_795_000_000_000
DAY_MS = 86_400_000


def said(**given_: Any) -> int:
    usual = {"next_offset": 5, "end_offset": 5, "newest_record_ms": 0, "former_ms": 0, "skew_ms": 100, "held_ms": None}
    return progress(**{**usual, **given_}).complete_until_ms


@given(former_ms=st.integers(NOW_MS - DAY_MS, NOW_MS + 10 * DAY_MS), end_offset=st.integers(5, 9))
def test_no_claim_lies_in_the_future_and_none_of_the_past_is_taken_back(former_ms: int, end_offset: int) -> None:
    """A clock that was days ahead and is set right takes with it what was claimed by it."""
    until_ms = said(asked_ms=NOW_MS, former_ms=former_ms, end_offset=end_offset, newest_record_ms=NOW_MS - 5)
    assert until_ms <= NOW_MS
    if former_ms <= NOW_MS:
        assert until_ms >= former_ms
