"""Usage answers equal a count over the raw events: every range in ms, filter, grouping, interval and zone."""

import os
import random
from datetime import UTC, datetime

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.contract.store import client as open_client
from query_api.tenant import Tenant
from query_api.usage import sql
from query_api.usage.answer import answer
from query_api.usage.question import ALL_METRICS, Order, Question
from tests.support import rows, usage_oracle
from tests.support.query_service import KEY_A, KEY_B, KEY_ORG, KEY_ORG_EMPTY, query_service

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
COLUMNS = ("tool_slug", "toolkit_slug", "user_id", "session_id", "status", "failure_class")
METRICS = ("calls", "failed", "error_rate", "p50_ms", "p95_ms", "p99_ms", "active_users", "active_sessions", "sessions")
# Of each random test of this file; thousands are run with this setting.
EXAMPLES = int(os.environ.get("TOOLLEDGER_TEST_EXAMPLES", "100"))


def utc(*parts):
    return int(datetime(*parts, tzinfo=UTC).timestamp()) * 1000


# Events lie around changes of the clock, all within a year, so that one question can hold them all: back and forth by an hour
# in Europe and North America, by half an hour on Lord Howe, over midnight in Havana, Beirut, Cairo and Santiago.
CHANGES = (
    utc(2025, 10, 26, 1),
    utc(2025, 11, 2, 6),
    utc(2026, 3, 8, 5),
    utc(2026, 3, 28, 22),
    utc(2026, 4, 4, 15),
    utc(2026, 4, 23, 22),
    utc(2026, 9, 6, 4),
)
ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "America/St_Johns", "America/Havana", "Asia/Beirut", "Africa/Cairo"),
    *("America/Santiago", "Australia/Lord_Howe", "Pacific/Chatham", "Asia/Kolkata", "Asia/Kathmandu", "Pacific/Kiritimati"),
)
T0, T1 = CHANGES[0] - 2 * DAY_MS, CHANGES[-1] + 2 * DAY_MS
# Keys that sort otherwise as bytes than as text, differ in case or composition alone, or look like something else.
AWKWARD = (
    *("u1", "U1", "ü", "u\u0308", "\U0001f600", "\uffee", "nul\0", "\\N", "it's", "%", "_", " ", "\n", "NULL"),
    *("x" * 256, "é" * 256),
)
SESSIONS = ("", "", "s1", "u1", *(f"s{number}" for number in range(60)))


def make_events():
    """Some hundred events with much in common, many of them at one instant or on the borders of minutes, hours and days."""
    chance = random.Random(7)
    events = []
    for index in range(1200):
        tool = chance.choice(["GMAIL_A", "GMAIL_B", "GITHUB_C", "ü'x", "GMAIL_A\0"])
        failed = chance.random() < 0.3
        change = chance.choice(CHANGES)
        border = change + chance.randrange(-40, 40) * HOUR_MS // 2 + chance.choice([0, 0, 0, -1, 1, 59_999, 60_000])
        anywhere = change + chance.randrange(-40 * HOUR_MS, 40 * HOUR_MS)
        crowded = change + chance.randrange(5) * 60_000
        events.append(
            {
                "id": f"log_{chance.choice(['', 'z', 'é', '𐐀'])}{chance.randrange(10**9)}_{index}",
                "project_id": chance.choice(["proj_a", "proj_a", "proj_b"]),
                "timestamp": chance.choice([anywhere, border, crowded]),
                "tool_slug": tool,
                "toolkit_slug": tool.split("_")[0].lower(),
                "status": "failed" if failed else "success",
                "failure_class": chance.choice(["timeout", "other", "rate_limited"]) if failed else "",
                "user_id": chance.choice(["", "", "u2", "u3", chance.choice(AWKWARD)]),
                "session_id": chance.choice([*SESSIONS, chance.choice(AWKWARD)]),
                "connected_account_id": chance.choice(["", "ca", "Ca"]),
                "duration_ms": chance.choice([0, 1e-9, 0.0001, 1, 3.25, chance.lognormvariate(4, 2), 31 * DAY_MS]),
                "kafka_partition": chance.randrange(3),
            }
        )
    return events


EVENTS = make_events()
OF_PROJECT = {name: [event for event in EVENTS if event["project_id"] == name] for name in ("proj_a", "proj_b")}
OF_KEY = {KEY_A: OF_PROJECT["proj_a"], KEY_B: OF_PROJECT["proj_b"]}
VALUES = {column: sorted({event[column] for event in EVENTS}) for column in (*COLUMNS, "connected_account_id")}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(clickhouse_url):
    with rows.fresh_database(clickhouse_url) as url:
        rows.insert(open_client(url), EVENTS, batches=5)
        async with query_service(url, query_time_s_max=300) as running:
            yield running


moments = st.one_of(
    st.integers(T0, T1),
    st.tuples(st.sampled_from(CHANGES), st.integers(-2 * DAY_MS, 2 * DAY_MS)).map(sum),
    st.tuples(st.sampled_from(CHANGES), st.integers(-96, 96)).map(lambda drawn: drawn[0] + drawn[1] * HOUR_MS // 2),
    st.tuples(st.sampled_from(CHANGES), st.integers(-90, 90)).map(lambda drawn: drawn[0] + drawn[1] * 60_000),
    st.tuples(st.sampled_from([event["timestamp"] for event in EVENTS]), st.integers(-1, 1)).map(sum),
)
# Most around one change of the clock, where the events are dense; others over up to a year, and beyond all data.
ranges = st.one_of(
    st.tuples(moments, st.integers(0, 2 * DAY_MS)).map(lambda drawn: (drawn[0], drawn[0] + drawn[1])),
    st.tuples(moments, moments).map(lambda drawn: tuple(sorted(drawn))),
    st.sampled_from([(T0 - 30 * DAY_MS, T1), (T1, T1 + 366 * DAY_MS), (T0 - 366 * DAY_MS, T0), (T0, T0 + 366 * DAY_MS)]),
)
zones = st.sampled_from(ZONES)
some_filters = st.lists(st.sampled_from(COLUMNS), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries(
        {name: st.lists(st.sampled_from([*VALUES[name], "nope"]), min_size=1, max_size=4, unique=True) for name in names}
    )
)
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def counted(key, from_ms, to_ms, *, group_by=(), filters=None, starts=None):
    """Count by hand what a key may see."""
    question = Question(
        from_ms=from_ms,
        to_ms=to_ms,
        metrics=ALL_METRICS,
        order=Order(by="calls", descending=True),
        limit=10_000,
        group_by=tuple(group_by),
        filters={name: tuple(values) for name, values in (filters or {}).items()},
    )
    events = OF_PROJECT["proj_a"] + OF_PROJECT["proj_b"] if key == KEY_ORG else OF_KEY[key]
    return usage_oracle.count(events, question, starts)


@many
@given(
    key=st.sampled_from([KEY_A, KEY_B]),
    span=ranges,
    group_by=st.lists(st.sampled_from(COLUMNS), max_size=2, unique=True),
    commas=st.booleans(),
    filters=some_filters,
    unit=st.sampled_from([None, "minute", "hour", "day"]),
    timezone=zones,
    order_by=st.sampled_from([None, "key", *METRICS]),
    direction=st.sampled_from([None, "asc", "desc"]),
    limit=st.sampled_from([1, 2, 3, 5, 20, 10_000]),
    named=st.lists(st.sampled_from(METRICS), min_size=1, max_size=3, unique=True),
)
async def test_v1_usage_is_a_count_over_the_events(
    service, key, span, group_by, commas, filters, unit, timezone, order_by, direction, limit, named
):
    """All metrics of all rows and of the totals, their order, and what a limit leaves, for any question."""
    from_ms, to_ms = span
    if unit == "minute":
        to_ms = min(to_ms, from_ms + 5 * HOUR_MS)
    elif unit == "hour":
        to_ms = min(to_ms, from_ms + 40 * DAY_MS)
    asked = [("from", from_ms), ("to", to_ms), ("timezone", timezone)]
    asked += [("group_by", ",".join(group_by))] if commas else [("group_by", name) for name in group_by]
    asked += [(name, value) for name, values in filters.items() for value in values]
    given_order = (("interval", unit), ("order_by", order_by), ("order_direction", direction))
    asked += [(name, value) for name, value in given_order if value is not None]
    asked = [(name, str(value)) for name, value in asked]
    whole = await service.get("/v1/usage", [*asked, ("limit", "10000")], key=key)
    assert whole.status == 200, whole.body
    starts = usage_oracle.starts(unit, timezone, from_ms, to_ms) if unit else None
    expected, totals = counted(key, from_ms, to_ms, group_by=group_by, filters=filters, starts=starts)
    assert usage_oracle.same(whole.body["totals"], totals)
    found = {}
    for row in whole.body["rows"]:
        found[(row.get("start"), *(row[name] for name in group_by))] = {name: row[name] for name in METRICS}
    assert len(found) == len(whole.body["rows"])
    if not group_by:
        # Every interval has a row; without one, the one row is the totals.
        empty = usage_oracle.count([], Question(**EMPTY), None)[1]
        expected = {(start,): expected.get((start,), empty) for start in (starts if unit else [None])}
    assert set(found) == set(expected)
    for group, metrics in found.items():
        assert usage_oracle.same(metrics, expected[group]), group
    assert list(found) == usage_oracle.ordered(found, order_by, direction)
    assert whole.body["truncated"] is False
    part = await service.get("/v1/usage", [*asked, ("limit", str(limit))], key=key)
    assert part.body["rows"] == whole.body["rows"][:limit]
    assert (part.body["totals"], part.body["truncated"]) == (whole.body["totals"], len(found) > limit)
    few = await service.get("/v1/usage", [*asked, ("limit", "10000"), ("metrics", ",".join(named))], key=key)
    assert few.status == 200, few.body
    assert few.body["totals"] == {name: whole.body["totals"][name] for name in METRICS if name in named}
    others = set(METRICS) - set(named)
    assert few.body["rows"] == [{name: row[name] for name in row if name not in others} for row in whole.body["rows"]]


EMPTY = {"from_ms": 0, "to_ms": 0, "metrics": ALL_METRICS, "order": Order(by="calls", descending=True), "limit": 1}


@many
@given(
    span=ranges,
    projects=st.sampled_from([("proj_a",), ("proj_b",), ("proj_a", "proj_b")]),
    group_by=st.sampled_from([(), ("project_id",), ("connected_account_id",), ("user_id", "connected_account_id")]),
    metrics=st.sampled_from([("calls",), ("sessions",), ("calls", "sessions"), ("calls", "active_users", "active_sessions")]),
    account=st.sampled_from([(), ("",), ("ca",)]),
    sparing=st.booleans(),
)
async def test_the_planner_is_right_for_every_subset_of_metrics(service, span, projects, group_by, metrics, account, sparing):
    """What routes do not ask for yet is right as well: connected accounts, several projects, single metrics, sparing."""
    if len(projects) > 1:
        metrics = tuple(name for name in metrics if not name.startswith("active"))
    by = "calls" if "calls" in metrics else "sessions"
    question = Question(
        from_ms=span[0],
        to_ms=span[1],
        metrics=frozenset(metrics),
        order=Order(by=by, descending=True),
        limit=10_000,
        group_by=group_by,
        filters={"connected_account_id": account} if account else {},
    )
    tenant = Tenant(projects=projects, key_hash="h")
    got = answer(question, await service.services.reader.rows(sql.statement(tenant, question, sparing=sparing)))
    expected, totals = usage_oracle.count([event for name in projects for event in OF_PROJECT[name]], question, None)
    assert usage_oracle.same(got.totals, totals)
    if group_by:
        expected = {group: found for group, found in expected.items() if found[by]}
        assert {(None, *group.key): group.metrics for group in got.groups}.keys() == expected.keys()
        assert all(usage_oracle.same(group.metrics, expected[(None, *group.key)]) for group in got.groups)


@many
@given(
    key=st.sampled_from([KEY_A, KEY_B, KEY_ORG]),
    span=ranges,
    entity=st.sampled_from(["tool_calls", "sessions", "tool", "toolkit", "user", "session"]),
    users=st.lists(st.sampled_from(VALUES["user_id"]), max_size=2, unique=True),
    sessions=st.lists(st.sampled_from(VALUES["session_id"]), max_size=2, unique=True),
    order_by=st.sampled_from(["key", "total_quantity", "event_count"]),
    direction=st.sampled_from(["asc", "desc"]),
    limit=st.sampled_from([1, 3, 1000]),
    nested=st.booleans(),
    data=st.data(),
)
async def test_breakdowns_are_counts_over_the_events(
    service, key, span, entity, users, sessions, order_by, direction, limit, nested, data
):
    """Both spellings of the range, every entity, grouping, order and limit; the totals are of everything."""
    aliases = {"tool": "tool_slug", "toolkit": "toolkit_slug", "user": "user_id", "session": "session_id"}
    groups = {
        "tool_calls": ["tool_slug", "toolkit_slug", "connected_account_id", "user_id", "session_id"],
        "sessions": ["user_id"],
    }
    allowed = [aliases[entity]] if entity in aliases else groups[entity] + (["project_id"] if key == KEY_ORG else [])
    group = data.draw(st.sampled_from(allowed))
    between = {"from": span[0], "to": span[1]}
    body = {"time_range": between} if nested else dict(between)
    body |= {"group_by": group, "order_by": order_by, "order_direction": direction, "limit": limit}
    body["filters"] = {"user_id": users, "session_id": sessions[0] if len(sessions) == 1 else sessions}
    area = "org" if key == KEY_ORG else "project"
    reply = await service.post(f"/api/v3.1/{area}/usage/{entity}", body, key=key)
    assert reply.status == 200, reply.body
    filters = {name: values for name, values in (("user_id", users), ("session_id", sessions)) if values}
    expected, totals = counted(key, *span, group_by=[group], filters=filters)
    name = "sessions" if entity == "sessions" else "calls"
    quantities = {found[1]: metrics[name] for found, metrics in expected.items() if metrics[name]}
    assert reply.body["entity_type"] == entity
    assert reply.body["unit"] == "count"
    assert (reply.body["total_quantity"], reply.body["event_count"]) == (str(totals[name]), totals[name])
    assert sum(quantities.values()) == totals[name]
    ranked = sorted(quantities.items(), key=lambda pair: pair[0].encode())
    if order_by == "key":
        ranked = ranked[::-1] if direction == "desc" else ranked
    else:
        ranked.sort(key=lambda pair: -pair[1] if direction == "desc" else pair[1])
    expected_groups = [{"key": found, "total_quantity": str(count), "event_count": count} for found, count in ranked]
    assert reply.body["groups"] == expected_groups[:limit]


@many
@given(
    key=st.sampled_from([KEY_A, KEY_B, KEY_ORG]), span=ranges, users=st.lists(st.sampled_from(VALUES["user_id"]), max_size=2)
)
async def test_summaries_are_counts_over_the_events(service, key, span, users):
    """Both entities, zeros included."""
    body = {"from": float(span[0]), "to": span[1], "filters": {"user_id": users, "session_id": None, "project_id": None}}
    reply = await service.post(f"/api/v3.1/{'org' if key == KEY_ORG else 'project'}/usage/summary", body, key=key)
    assert reply.status == 200, reply.body
    _, totals = counted(key, *span, filters={"user_id": users} if users else {})
    expected = {
        name: {"unit": "count", "total_quantity": str(count), "event_count": count}
        for name, count in (("tool_calls", totals["calls"]), ("sessions", totals["sessions"]))
    }
    assert reply.body == {"entities": expected, "instant_charge": "0"}


async def test_sessions_add_up_over_days_and_users(service):
    """A session belongs to its first call, so parts of the time and of the users sum to the whole."""
    asked = [("from", str(T0)), ("to", str(T1))]
    whole = (await service.get("/v1/usage", asked)).body["totals"]["sessions"]
    for more in ([("interval", "day")], [("group_by", "user_id")], [("group_by", "tool_slug,status"), ("interval", "hour")]):
        body = (await service.get("/v1/usage", [*asked, *more, ("limit", "10000")])).body
        assert sum(row["sessions"] for row in body["rows"]) == whole > 0


async def test_orders_limits_and_nulls_of_v1_usage(service):
    """`order_by` alone is descending, ties go by key, nulls are last both ways, `truncated` tells of more."""
    asked = {"from": T0 - DAY_MS, "to": T1, "limit": 10_000}
    for metric in ("calls", "failed", "error_rate", "p50_ms", "p95_ms", "active_users", "active_sessions", "sessions"):
        for direction in ("asc", "desc"):
            for more in ({"group_by": "user_id,tool_slug"}, {"interval": "hour"}, {"interval": "day", "group_by": "status"}):
                parameters = asked | more | {"order_by": metric, "order_direction": direction}
                found = (await service.get("/v1/usage", parameters)).body["rows"]
                values = [row[metric] for row in found]
                present = [value for value in values if value is not None]
                assert values[: len(present)] == present
                assert present == sorted(present, reverse=direction == "desc")
    named = (await service.get("/v1/usage", asked | {"group_by": "user_id", "order_by": "key"})).body["rows"]
    assert [row["user_id"] for row in named] == sorted(VALUES["user_id"], key=str.encode, reverse=True)
    whole = (await service.get("/v1/usage", asked | {"group_by": "user_id", "limit": 100})).body
    part = (await service.get("/v1/usage", asked | {"group_by": "user_id", "limit": "2.0"})).body
    assert (whole["truncated"], part["truncated"]) == (False, True)
    assert part["rows"] == whole["rows"][:2]
    assert part["totals"] == whole["totals"]
    hours = (await service.get("/v1/usage", asked | {"interval": "hour", "limit": 5})).body
    assert hours["truncated"]
    assert [row["start"] for row in hours["rows"]] == [T0 - DAY_MS + hour * HOUR_MS for hour in range(5)]
    last = (await service.get("/v1/usage", asked | {"interval": "hour", "limit": 2, "order_direction": "desc"})).body
    assert [row["start"] for row in last["rows"]] == [T1 - hour * HOUR_MS for hour in (1, 2)]


async def test_a_limit_never_makes_an_interval_look_empty(service):
    """Of hours with and without calls, in the order of any metric both ways, the first are the first of all."""
    asked = {"from": CHANGES[0] - 6 * HOUR_MS, "to": CHANGES[0] + 6 * HOUR_MS, "interval": "hour"}
    for metric in METRICS:
        for direction in ("asc", "desc"):
            ordered = asked | {"order_by": metric, "order_direction": direction}
            whole = (await service.get("/v1/usage", ordered)).body["rows"]
            for limit in (1, 4):
                assert (await service.get("/v1/usage", ordered | {"limit": limit})).body["rows"] == whole[:limit]


async def test_an_empty_range_and_an_organisation_without_projects_count_nothing(service):
    """Zeros and nulls, not errors."""
    body = (await service.get("/v1/usage", {"from": T0, "to": T0, "interval": "hour"})).body
    assert body["rows"] == []
    assert body["totals"]["calls"] == 0
    assert body["totals"]["p95_ms"] is None
    empty = await service.post("/api/v3.1/org/usage/summary", {}, key=KEY_ORG_EMPTY)
    assert empty.body["entities"]["tool_calls"] == {"unit": "count", "total_quantity": "0", "event_count": 0}
    found = await service.post("/api/v3.1/org/usage/tool_calls", {"filters": {"project_id": "proj_b"}, "to": T0}, key=KEY_ORG)
    assert found.status == 200
    assert (await service.post("/api/v3.1/org/usage/summary", {"filters": {"project_id": ["x"]}}, key=KEY_ORG)).status == 404
