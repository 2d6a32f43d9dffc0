"""The statement of corrections, written out, and what becomes of its rows."""

from query_api.tenant import Tenant
from query_api.usage.corrections import Place, Question, page, statement

TENANT = Tenant(projects=("proj_a",), key_hash="h")
HOUR = 3_600_000
T0 = 1_744_243_200_000  # 2025-04-10T00:00:00Z


def test_one_row_a_window_with_totals_of_everything():
    """Moments and filters are values; the view is named through the tenant; one row more than the page is asked for."""
    asked = Question(from_ms=5, to_ms=9, limit=10, filters={"user_id": ("u'1",)})
    got = statement(TENANT, asked)
    assert got.text == (
        "SELECT 1 - part AS total, start, sum(c) AS calls, sum(f) AS failed, min(m) AS first, max(m) AS last\n"
        "FROM (SELECT toUInt8(1) AS part, toUnixTimestamp(window_start) AS start,"
        " calls AS c, if(status = 'failed', calls, 0) AS f, corrected_ms AS m"
        " FROM usage_corrections WHERE project_id = {tenant:String} AND (user_id = {v0:String})"
        " AND (corrected_ms >= {from_ms:Int64}) AND (corrected_ms < {to_ms:Int64}))\n"
        "GROUP BY GROUPING SETS ((part, start), ())\n"
        "ORDER BY total DESC, start ASC\nLIMIT 12"
    )
    assert got.values == {"v0": "u'1", "from_ms": 5, "to_ms": 9}


def test_the_next_page_begins_behind_the_last_row_and_totals_stay():
    """In either direction, by window and then by key."""
    after = Place(window_start_ms=T0, key=("a", ""))
    asked = Question(from_ms=5, to_ms=9, limit=1, group_by=("tool_slug", "user_id"), descending=True, after=after)
    got = statement(TENANT, asked)
    assert "HAVING total = 1 OR (start, k0, k1) < ({after:UInt32}, {after_k0:String}, {after_k1:String})\n" in got.text
    assert got.text.endswith("ORDER BY total DESC, start DESC, k0 DESC, k1 DESC\nLIMIT 3")
    assert got.values == {"from_ms": 5, "to_ms": 9, "after": T0 // 1000, "after_k0": "a", "after_k1": ""}


def test_windows_are_chosen_by_their_start():
    """Bounds between two seconds mean the next one; bounds beyond all windows are kept within what a window can be."""
    asked = Question(from_ms=0, to_ms=9, limit=1, window_from_ms=T0 - 1, window_to_ms=9_000_000_000_000)
    got = statement(TENANT, asked).text
    assert "(window_start >= toDateTime(1744243200, 'UTC')) AND (window_start < toDateTime(4102444800, 'UTC'))" in got


def test_nothing_beyond_what_is_complete_is_answered():
    """`to` is kept within what is complete, and `from` stays where it is, so that a reader can wait there."""
    asked = Question(from_ms=5, to_ms=9, limit=1)
    assert [asked.until(until, after=None).to_ms for until in (0, 5, 7, 9, 11)] == [5, 5, 7, 9, 9]


def test_rows_have_the_window_the_key_and_both_moments():
    """A page that is full names its last row."""
    asked = Question(from_ms=0, to_ms=9, limit=1, group_by=("user_id",))
    found = page(asked, [[1, 0, "", 7, 2, 1, 8], [0, T0 // 1000, "u", 4, 1, 1, 5], [0, T0 // 1000, "v", 3, 1, 2, 8]])
    row = {"window_start": T0, "window_end": T0 + HOUR, "user_id": "u", "calls": 4, "failed": 1}
    assert found.rows == ({**row, "first_corrected_at": 1, "last_corrected_at": 5},)
    assert found.totals == {"calls": 7, "failed": 2}
    assert found.following == Place(window_start_ms=T0, key=("u",))
    assert page(asked, []).totals == {"calls": 0, "failed": 0}
