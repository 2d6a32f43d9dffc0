"""Corrections over HTTP: sums of the rows of a project, page after page, and each moment answered once."""

import random
from collections import defaultdict
from contextlib import closing

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.contract.store import client as open_client
from tests.support import rows
from tests.support.query_service import KEY_A, KEY_A2, KEY_B, KEY_INGEST, KEY_ORG, query_service

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

PATH = "/v1/usage/corrections"
HOUR_MS = 3_600_000
T0 = 1_776_384_000_000  # 2026-04-17T00:00:00Z
COMPLETE_MS = T0 + 10 * HOUR_MS
COLUMNS = ("tool_slug", "toolkit_slug", "user_id", "session_id", "status", "failure_class")
NAMES = ("project_id", "window_start", "newest_record_ms", "kafka_partition", "first_offset", "connected_account_id", *COLUMNS)
many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def make_corrections():
    """Some hundred of two projects, in a few windows, at moments on both sides of what is complete."""
    chance = random.Random(11)
    made = []
    for index in range(400):
        failed = chance.random() < 0.4
        tool = chance.choice(["GMAIL_A", "GITHUB_C", "ü'x"])
        made.append(
            {
                "project_id": chance.choice(["proj_a", "proj_a", "proj_b"]),
                "window_start": T0 + chance.randrange(6) * HOUR_MS,
                "newest_record_ms": COMPLETE_MS + chance.choice([-7 * HOUR_MS, -HOUR_MS, -1, 0, 1, -chance.randrange(HOUR_MS)]),
                "kafka_partition": chance.randrange(3),
                "first_offset": index,
                "connected_account_id": chance.choice(["", "ca"]),
                "tool_slug": tool,
                "toolkit_slug": tool.split("_")[0].lower(),
                "user_id": chance.choice(["", "u1", "u2", "ü"]),
                "session_id": chance.choice(["", *(f"s{number}" for number in range(9))]),
                "status": "failed" if failed else "success",
                "failure_class": chance.choice(["timeout", "other"]) if failed else "",
                "calls": chance.randrange(1, 4),
            }
        )
    return made


def insert(client, corrections):
    """Insert rows of kind `correction`, and beside each a row of another kind that must not be seen."""
    names = [*NAMES, "calls", "kind", "batch_month", "incarnation"]
    lines = []
    for one in corrections:
        line = [one[name] for name in (*NAMES, "calls")]
        line[1] = one["window_start"] // 1000
        lines += [[*line, kind, 202604, "one"] for kind in ("correction", "session_hour")]
    client.insert("usage_windows", lines, column_names=names)


MADE = make_corrections()
OF_KEY = {KEY_A: "proj_a", KEY_B: "proj_b"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(clickhouse_url):
    with rows.fresh_database(clickhouse_url) as url, closing(open_client(url)) as client:
        insert(client, MADE)
        rows.report_progress(client, complete_until_ms=[COMPLETE_MS, COMPLETE_MS + 5])
        async with query_service(url) as running:
            yield running


def summed(corrections, group_by, *, descending):
    """Sum by hand, in the order of the answer."""
    found = defaultdict(lambda: [0, 0, 2**62, 0])
    for one in corrections:
        of = found[(one["window_start"], *(one[name] for name in group_by))]
        of[0] += one["calls"]
        of[1] += one["calls"] * (one["status"] == "failed")
        of[2], of[3] = min(of[2], one["newest_record_ms"]), max(of[3], one["newest_record_ms"])
    ordered = sorted(found, key=lambda key: (key[0], *(part.encode() for part in key[1:])), reverse=descending)
    return [
        {
            "window_start": key[0],
            "window_end": key[0] + HOUR_MS,
            **dict(zip(group_by, key[1:], strict=True)),
            **dict(zip(("calls", "failed", "first_corrected_at", "last_corrected_at"), found[key], strict=True)),
        }
        for key in ordered
    ]


async def read_all(service, asked, *, key):
    """Follow the cursors; return all rows and each page's answer."""
    pages, found, cursor = [], [], None
    while cursor is not None or not pages:
        reply = await service.get(PATH, [*asked, *([("cursor", cursor)] if cursor else [])], key=key)
        assert reply.status == 200, reply.body
        pages.append(reply.body)
        found += reply.body["rows"]
        cursor = reply.body["next_cursor"]
    return found, pages


moments = st.none() | st.sampled_from([one["newest_record_ms"] for one in MADE]) | st.integers(T0, COMPLETE_MS + HOUR_MS)
windows = st.none() | st.integers(-1, 7).map(lambda hour: T0 + hour * HOUR_MS) | st.integers(T0, T0 + 6 * HOUR_MS)
some_filters = st.lists(st.sampled_from(COLUMNS), max_size=2, unique=True).flatmap(
    lambda names: st.fixed_dictionaries(
        {
            name: st.lists(st.sampled_from(sorted({one[name] for one in MADE})), min_size=1, max_size=2, unique=True)
            for name in names
        }
    )
)


@many
@given(
    key=st.sampled_from([KEY_A, KEY_B]),
    span=st.tuples(moments, moments).filter(lambda span: None in span or span[0] <= span[1]),
    of=st.tuples(windows, windows).filter(lambda of: None in of or of[0] <= of[1]),
    group_by=st.lists(st.sampled_from(COLUMNS), max_size=2, unique=True),
    filters=some_filters,
    descending=st.booleans(),
    limit=st.sampled_from([3, 7, 1000]),
)
async def test_rows_and_totals_are_sums_over_the_corrections(service, key, span, of, group_by, filters, descending, limit):
    """For any range, windows, filter and grouping; page by page each row once; nothing at or beyond what is complete."""
    asked = {"from": span[0], "to": span[1], "window_from": of[0], "window_to": of[1]}
    asked = [(name, str(value)) for name, value in asked.items() if value is not None]
    asked += [("group_by", name) for name in group_by] + [("limit", str(limit))]
    asked += [(name, value) for name, values in filters.items() for value in values]
    asked += [("order_direction", "desc")] if descending else []
    from_ms, to_ms = span[0] or 0, min(span[1] or COMPLETE_MS, COMPLETE_MS)
    chosen = [
        one
        for one in MADE
        if one["project_id"] == OF_KEY[key]
        and from_ms <= one["newest_record_ms"] < to_ms
        and (of[0] or 0) <= one["window_start"] < (of[1] or 2**62)
        and all(one[name] in values for name, values in filters.items())
    ]
    found, pages = await read_all(service, asked, key=key)
    assert found == summed(chosen, group_by, descending=descending)
    totals = {
        "calls": sum(one["calls"] for one in chosen),
        "failed": sum(one["calls"] for one in chosen if one["status"] == "failed"),
    }
    for page in pages:
        assert page["totals"] == totals
        assert (page["from"], page["to"]) == (from_ms, max(from_ms, to_ms))
        assert page["complete_until"] == "2026-04-17T10:00:00.000Z"
        assert len(page["rows"]) == limit or page is pages[-1]


async def test_going_on_from_what_was_complete_misses_nothing_and_repeats_nothing(clickhouse_url):
    """Read while corrections land: each is answered once, by any number of readings, also across pages."""
    chance = random.Random(5)
    with rows.fresh_database(clickhouse_url) as url, closing(open_client(url)) as client:
        async with query_service(url) as service:
            waiting = [one for one in MADE if one["project_id"] == "proj_a"]
            waiting.sort(key=lambda one: one["newest_record_ms"])
            settled, from_at, until_ms, turn = [], None, T0, 0
            while until_ms <= COMPLETE_MS + 1:
                turn += 1
                # Everything before `until` has landed, as that is what complete means; some of what comes later has, too.
                until_ms += chance.randrange(2 * HOUR_MS)
                landing = [one for one in waiting if one["newest_record_ms"] < until_ms or chance.random() < 0.1]
                waiting = [one for one in waiting if one not in landing]
                if landing:
                    insert(client, landing)
                rows.report_progress(client, complete_until_ms=[until_ms], reported_ms=turn)
                asked = [("group_by", "user_id"), ("limit", "4")] + ([("from", from_at)] if from_at else [])
                found, pages = await read_all(service, asked, key=KEY_A)
                settled += found
                from_at = pages[-1]["complete_until"]
                assert pages[-1]["to"] == until_ms
            assert not waiting
    everything = summed([one for one in MADE if one["project_id"] == "proj_a"], ["user_id"], descending=False)
    for name in ("calls", "failed"):
        total = defaultdict(int)
        for row in settled:
            total[row["window_start"], row["user_id"]] += row[name]
        assert total == {(row["window_start"], row["user_id"]): row[name] for row in everything}


async def test_pages_hold_to_what_the_first_one_saw(clickhouse_url):
    """What becomes complete between two pages belongs to the next reading."""
    early = [
        {**MADE[0], "project_id": "proj_a", "window_start": T0 + hour * HOUR_MS, "newest_record_ms": T0} for hour in range(3)
    ]
    with rows.fresh_database(clickhouse_url) as url, closing(open_client(url)) as client:
        async with query_service(url) as service:
            insert(client, early)
            rows.report_progress(client, complete_until_ms=[T0 + 1])
            first = (await service.get(PATH, {"limit": "2"})).body
            insert(client, [{**one, "newest_record_ms": T0 + 2} for one in early])
            rows.report_progress(client, complete_until_ms=[T0 + 3], reported_ms=2)
            second = (await service.get(PATH, {"limit": "2", "cursor": first["next_cursor"]})).body
            third = (await service.get(PATH, {"from": second["complete_until"]})).body
    assert [row["window_start"] for row in first["rows"] + second["rows"]] == [one["window_start"] for one in early]
    assert first["complete_until"] == second["complete_until"]
    assert [(row["first_corrected_at"], row["last_corrected_at"]) for row in third["rows"]] == [(T0 + 2, T0 + 2)] * 3


async def test_before_anything_is_complete_nothing_is_answered(service):
    """A reader that is ahead of what is complete gets an empty answer that ends where it began."""
    ahead = COMPLETE_MS + HOUR_MS
    reply = await service.get(PATH, {"from": str(ahead)})
    assert (reply.body["from"], reply.body["to"], reply.body["rows"]) == (ahead, ahead, [])
    assert reply.headers["x-complete-until"] == reply.body["complete_until"]


@pytest.mark.parametrize(
    ("parameters", "member"),
    [
        ({"nonsense": "1"}, "nonsense"),
        ({"interval": "hour"}, "interval"),
        ({"from": "yesterday"}, "from"),
        ({"from": "5", "to": "4"}, "from"),
        ({"window_from": "5", "window_to": "4"}, "window_from"),
        ({"window_to": "x"}, "window_to"),
        ({"limit": "0"}, "limit"),
        ({"limit": "10001"}, "limit"),
        ({"group_by": "tool_slug,user_id,status"}, "group_by"),
        ({"group_by": "window_start"}, "group_by"),
        ({"order_direction": "up"}, "order_direction"),
        ({"cursor": "nonsense"}, "cursor"),
        ([("cursor", "a"), ("cursor", "b")], "cursor"),
    ],
)
async def test_each_fault_is_named(service, parameters, member):
    """400 with a line for the parameter; an unknown one is not passed over."""
    reply = await service.get(PATH, parameters)
    assert reply.status == 400
    assert any(line.startswith(f"Error in query.{member}: ") for line in reply.body["error"]["errors"]), reply.body


async def test_a_cursor_is_good_for_its_question_and_its_key_alone(service):
    """Another range, order, filter, grouping or key refuses it; another limit takes it."""
    asked = {"limit": "2", "group_by": "user_id", "from": "1"}
    cursor = (await service.get(PATH, asked)).body["next_cursor"]
    assert (await service.get(PATH, {**asked, "cursor": cursor, "limit": "5"})).status == 200
    others = [{"from": "2"}, {"to": "99999"}, {"order_direction": "desc"}, {"user_id": "u1"}, {"group_by": "status"}]
    others += [{"window_from": "1"}, {"window_to": "9"}]
    for other in others:
        assert (await service.get(PATH, {**asked, "cursor": cursor, **other})).status == 400, other
    for key in (KEY_A2, KEY_B):
        assert (await service.get(PATH, {**asked, "cursor": cursor}, key=key)).status == 400


async def test_long_keys_fit_a_cursor(clickhouse_url):
    """The longest identifiers there can be, of the widest characters."""
    wide = [{**MADE[0], "project_id": "proj_a", "newest_record_ms": T0, "user_id": f"{'𐐀' * 255}{number}",
             "toolkit_slug": "ﬃ" * 768} for number in range(3)]  # fmt: skip
    with rows.fresh_database(clickhouse_url) as url, closing(open_client(url)) as client:
        async with query_service(url) as service:
            insert(client, wide)
            rows.report_progress(client, complete_until_ms=[COMPLETE_MS])
            found, _ = await read_all(service, [("limit", "1"), ("group_by", "user_id,toolkit_slug")], key=KEY_A)
    assert [row["user_id"][-1] for row in found] == ["0", "1", "2"]


async def test_who_may_not_read_is_refused(service):
    """A project's reading key is needed."""
    assert (await service.get(PATH, key=None)).status == 401
    assert (await service.get(PATH, key=KEY_INGEST)).status == 403
    assert (await service.get(PATH, key=KEY_ORG)).status == 403
