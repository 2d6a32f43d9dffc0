"""Searches as values: what is asked first."""

from query_api.filters import Filter
from query_api.logs import Search, newest_stretch
from query_api.paging import Place

HOUR_MS = 3_600_000
NOW_MS = 1_744_243_200_000


def test_what_is_common_is_looked_for_in_the_newest_hour_first():
    """Before now, before the range's end, or before the place where the page begins, whichever is earliest."""
    failed = Filter(field="status", operator="==", value="failed")
    search = Search(limit=20, filters=(failed,))
    assert newest_stretch(search, now_ms=NOW_MS) == Search(limit=20, filters=(failed,), from_ms=NOW_MS - HOUR_MS)
    ended = newest_stretch(Search(limit=20, to_ms=NOW_MS - 5), now_ms=NOW_MS)
    assert ended == Search(limit=20, to_ms=NOW_MS - 5, from_ms=NOW_MS - 5 - HOUR_MS)
    place = Place(timestamp_ms=NOW_MS - 9, id="log_1")
    following = newest_stretch(Search(limit=20, to_ms=NOW_MS - 5, after=place), now_ms=NOW_MS)
    assert following == Search(limit=20, to_ms=NOW_MS - 5, after=place, from_ms=NOW_MS - 9 - HOUR_MS)


def test_what_is_rare_or_lies_within_an_hour_is_asked_at_once():
    """A second question would only cost."""
    rare = Filter(field="user_id", operator="==", value="u")
    assert newest_stretch(Search(limit=20, filters=(rare,)), now_ms=NOW_MS) is None
    assert newest_stretch(Search(limit=20, from_ms=NOW_MS - HOUR_MS), now_ms=NOW_MS) is None
    part = Filter(field="user_id", operator="contains", value="u")
    assert newest_stretch(Search(limit=20, filters=(part,)), now_ms=NOW_MS) is not None
