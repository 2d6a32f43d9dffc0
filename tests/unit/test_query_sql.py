"""The planner's statements, written out: what is read for a question can be seen here."""

from query_api.tenant import OwnValues, Tenant
from query_api.usage import calendar
from query_api.usage.question import ALL_METRICS, Order, Question
from query_api.usage.sql import columns, statement

TENANT = Tenant(projects=("proj_a",), key_hash="h")
HOUR = 3_600_000
FROM = 1_744_243_200_000  # 2025-04-10T00:00:00Z


def question(**fields):
    given = {"from_ms": FROM, "to_ms": FROM + 24 * HOUR, "metrics": {"calls"}, "order": Order(by="calls", descending=True)}
    given |= {"limit": 10} | fields
    return Question(**{**given, "metrics": frozenset(given["metrics"])})


def text(**fields):
    return statement(TENANT, question(**fields)).text


def test_a_summary_of_a_whole_day_reads_windows_alone():
    """Calls of a day come from the smallest rows, without a look at raw ones."""
    assert text() == (
        "SELECT toUInt8(1) AS total, sum(b_calls) AS calls, sum(b_failed) AS failed\n"
        "FROM (\n"
        " SELECT sum(c) AS b_calls, sum(f) AS b_failed FROM (SELECT calls AS c, if(status = 'failed', calls, 0) AS f"
        " FROM usage_windows WHERE project_id = {tenant:String} AND (kind = 'tool_day'"
        " AND (window_start >= toDateTime(1744243200, 'UTC') AND window_start < toDateTime(1744329600, 'UTC'))))\n"
        ")"
    )


def test_ragged_edges_come_from_raw_rows():
    """A millisecond more than whole minutes at each end adds two spans of raw rows."""
    got = text(from_ms=FROM - 1, to_ms=FROM + HOUR + 1)
    assert "toDateTime(1744243200, 'UTC') AND window_start < toDateTime(1744246800, 'UTC')" in got
    assert (
        "FROM tool_executions WHERE project_id = {tenant:String} AND ("
        "timestamp >= fromUnixTimestamp64Milli(1744243199999, 'UTC')"
        " AND timestamp < fromUnixTimestamp64Milli(1744243200000, 'UTC') OR "
        "timestamp >= fromUnixTimestamp64Milli(1744246800000, 'UTC')"
        " AND timestamp < fromUnixTimestamp64Milli(1744246800001, 'UTC'))"
    ) in got


def test_the_smallest_rows_that_know_the_columns_are_read():
    """Tools from days, hours and minutes, users from user rows, sessions from session rows and raw rows without a session."""
    by_tool = text(group_by=("tool_slug",), filters={"status": ("failed",)}, from_ms=FROM - HOUR - 60_000)
    assert all(f"'{kind}'" in by_tool for kind in ("tool_day", "tool_hour", "tool_minute"))
    assert "'user_hour'" in text(group_by=("tool_slug",), filters={"user_id": ("u",)})
    by_session = text(group_by=("session_id",))
    assert "'session_hour'" in by_session
    assert "(session_id = '')" in by_session
    assert "tool_executions" not in text(filters={"session_id": ("s",)})


def test_who_called_is_told_by_days_unless_both_ends_cut_the_same_day():
    """Of the days at the ends the first and the last call decide, of those between nothing has to; other columns need hours."""
    got = text(metrics={"calls", "active_users"}, from_ms=FROM + 1, to_ms=FROM + 72 * HOUR - 1)
    assert "(kind = 'user_day') AND (window_start >= toDateTime(1744329600, 'UTC')" in got
    assert "AND (last_call_ms >= 1744243200001) AND (tupleElement(first_call, 1) < 1744502399999)" in got
    assert "user_hour" not in got
    within = text(metrics={"calls", "active_users"}, from_ms=FROM + 1, to_ms=FROM + 24 * HOUR - 1)
    assert "user_day" not in within
    assert "user_day" not in text(metrics={"calls", "active_users"}, filters={"status": ("failed",)})


def test_a_breakdown_is_ordered_with_ties_by_key_and_one_row_more_than_the_limit():
    """The totals are the first row, of everything."""
    got = text(group_by=("tool_slug",))
    assert "GROUP BY GROUPING SETS ((part, k0), ())" in got
    assert got.endswith("ORDER BY total DESC, calls DESC, k0 ASC\nLIMIT 12")
    got = text(group_by=("tool_slug",), order=Order(by="key", descending=True))
    assert got.endswith("ORDER BY total DESC, k0 DESC\nLIMIT 12")


def test_a_series_names_each_start_by_arithmetic():
    """Without a change of the clock one step gives every start; values never stand in the text."""
    utc = calendar.zone("UTC")
    runs = calendar.intervals("hour", utc, FROM, FROM + 24 * HOUR)
    got = text(runs=runs, filters={"user_id": ("u'1", "u2")}, order=Order(by="start", descending=False))
    assert "1744243200000 + least(intDiv(t - 1744243200000, 3600000), 23) * 3600000" in got
    assert got.endswith("ORDER BY total DESC, start ASC, calls DESC\nLIMIT 12")
    assert "u'1" not in got
    users = ("u'1", "u2")
    assert statement(TENANT, question(filters={"user_id": users})).values == {"v0": [*users], "own_user_id": OwnValues(users)}


def test_raw_rows_are_found_by_the_indexes_of_their_values():
    """A user's calls without a session, and those at ragged ends, not all calls of the range; no index has the empty user."""
    own = "if(user_id = '', '', concat(project_id, ' ', user_id)) IN {own_user_id:Array(String)}"
    fields = {"from_ms": FROM - 1, "group_by": ("session_id",)}
    raw = [part for part in text(filters={"user_id": ("u",)}, **fields).split(" UNION ALL ") if "FROM tool_executions" in part]
    assert len(raw) == 2
    assert all(own in part for part in raw)
    assert "own_user_id" not in text(filters={"user_id": ("u", "")}, **fields)


def test_columns_are_named_in_order():
    """What a row holds can be told without asking."""
    asked = question(metrics=ALL_METRICS, group_by=("tool_slug", "user_id"))
    assert columns(asked) == [
        "total",
        "k0",
        "k1",
        "calls",
        "failed",
        "p50",
        "p95",
        "p99",
        "active_users",
        "active_sessions",
        "sessions",
    ]


def test_sessions_alone_read_no_raw_rows():
    """The instant of a session's first call is in its rows, to the millisecond."""
    got = text(metrics={"sessions"}, order=Order(by="sessions", descending=True), from_ms=FROM + 1)
    assert "tool_executions" not in got
    assert "HAVING first_ms >= 1744243200001" in got


def test_borders_that_cut_hours_all_over_a_year_are_told_as_a_set():
    """Days of a zone with half hours: ClickHouse needs seconds for hundreds of spans joined by OR, before it reads a row."""
    kolkata = calendar.zone("Asia/Kolkata")
    assert kolkata is not None
    span = {"from_ms": FROM + 7, "to_ms": FROM + 366 * 24 * HOUR - 7}
    runs = calendar.intervals("day", kolkata, span["from_ms"], span["to_ms"])
    got = text(**span, runs=runs, metrics=ALL_METRICS)
    assert got.count(" OR ") < 10
    assert got.count("toStartOfHour(timestamp, 'UTC') IN (") == 2
    # The hours that are cut, and the two at the ends.
    raw = got.split("toStartOfHour(timestamp, 'UTC') IN (")[1].split(") GROUP BY")[0]
    assert raw.count("toDateTime(") == 366 + 2


def test_days_that_begin_within_a_minute_are_asked_for_too():
    """Monrovia was 44:30 behind until 1972; hundreds of its days are one question like any other's."""
    from_ms, to_ms = 31_536_000_000, 31_536_000_000 + 330 * 24 * HOUR
    runs = calendar.intervals("day", calendar.zone("Africa/Monrovia"), from_ms, to_ms)
    assert calendar.count(runs) > 300
    assert statement(TENANT, question(from_ms=from_ms, to_ms=to_ms, runs=runs)).text.count("fromUnixTimestamp64Milli") > 300


def test_many_values_of_many_projects_are_not_each_bound_with_each():
    """An organisation's question about many users is no larger for its projects: each value with each project's id would be."""
    users = tuple(f"user_{number}" for number in range(1000))
    several = Tenant(projects=tuple(f"proj_{number:03d}" for number in range(120)), key_hash="h")
    # An hour and a bit: raw rows at the end, which a project's own question finds by their index.
    asked = question(from_ms=FROM, to_ms=FROM + HOUR + 1, filters={"user_id": users})
    values = statement(several, asked).parameters()
    assert sum(len(value) for value in values.values() if isinstance(value, list)) <= len(users) + 120
    assert statement(TENANT, asked).parameters()["own_user_id"] == [f"proj_a {user}" for user in users]
    few = statement(several, question(from_ms=FROM, to_ms=FROM + HOUR + 1, filters={"user_id": users[:2]})).parameters()
    assert len(few["own_user_id"]) == 240
