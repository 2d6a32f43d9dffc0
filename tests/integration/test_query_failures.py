"""`GET /v1/failures` over HTTP: every count is one over the raw events, and a group's logs are found by its filters."""

import asyncio
import json
import random
import re
import shlex
import time
from collections import defaultdict

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.cli.main import main
from ingest.contract.store import client as open_client
from query_api.failures.causes import cause_of
from query_api.http.v1 import FILTERS
from query_api.log_items import iso
from tests.support import rows
from tests.support.query_service import KEY_A, KEY_B, KEY_INGEST, KEY_ORG, query_service

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

DAY_MS = 86_400_000
# The command line shows from a moment until now, and a question may span 366 days.
T0 = (time.time_ns() // 10**6 // DAY_MS - 100) * DAY_MS
SPAN_MS = 3 * DAY_MS
PATH = "/v1/failures"
# What a group says -> what its calls say.
SAID = {
    "No such user: <*>": "No such user: u{0}",
    "No such channel: <*>": "No such channel: c{0}",
    "Request <*> timed out after <*> ms": "Request {1:032x} timed out after {0} ms",
    "401 Unauthorized": "401 Unauthorized",
    "größer als <*>: % \\ it's": "größer als {0}: % \\ it's",
}


def make_events():
    chance = random.Random(11)
    events = []
    for index in range(900):
        failed = chance.random() < 0.6
        pattern = chance.choice(list(SAID))
        events.append(
            {
                "id": f"log_{chance.choice(['a', 'Z', 'é'])}{index}",
                "project_id": chance.choice(["proj_a", "proj_a", "proj_b"]),
                "timestamp": T0 + chance.choice([0, 1, chance.randrange(5_000), chance.randrange(SPAN_MS)]),
                "tool_slug": chance.choice(["GMAIL_A", "GMAIL_B", "ü'x"]),
                "toolkit_slug": chance.choice(["gmail", ""]),
                "user_id": chance.choice(["", "u1", "u2", "u3", "ü"]),
                "session_id": chance.choice(["", "s1", "s2"]),
                "status": "failed" if failed else "success",
                "failure_class": chance.choice(["timeout", "other", "unauthorized"]) if failed else "",
                # A success may say what a failure says.
                "error_message": SAID[pattern].format(chance.randrange(10**6), chance.randrange(2**127)),
                "pattern": pattern,
            }
        )
    return events


EVENTS = make_events()
OF_KEY = {
    key: [event for event in EVENTS if event["project_id"] == project]
    for key, project in ((KEY_A, "proj_a"), (KEY_B, "proj_b"))
}
VALUES = {name: sorted({event[name] for event in EVENTS}) for name in FILTERS}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(clickhouse_url):
    with rows.fresh_database(clickhouse_url) as url:
        client = open_client(url)
        stored = [{name: value for name, value in event.items() if name != "pattern"} for event in EVENTS]
        rows.insert(client, stored, batches=5)
        rows.report_progress(client, complete_until_ms=[T0 + 5, T0 + 3])
        async with query_service(url) as running:
            yield running


def counted(events, from_ms, to_ms, filters):
    """Count groups by hand, by (class, tool, message)."""
    members = defaultdict(list)
    for event in events:
        inside = from_ms <= event["timestamp"] < to_ms and event["status"] == "failed"
        if inside and all(event[name] in allowed for name, allowed in filters.items()):
            members[event["failure_class"], event["tool_slug"], event["pattern"]].append(event)
    total = sum(len(group) for group in members.values())
    return {key: summed(key, group, total) for key, group in members.items()}


def summed(key, group, total):
    newest = max(group, key=lambda event: (event["timestamp"], event["id"].encode()))
    cause = cause_of(key[0], key[2])
    return {
        "failure_class": key[0],
        "tool_slug": key[1],
        "message": key[2],
        "likely_cause": cause.likely_cause,
        "action": cause.action,
        "calls": len(group),
        "share": len(group) / total,
        "users": len({event["user_id"] for event in group} - {""}),
        "first_seen": iso(min(event["timestamp"] for event in group)),
        "last_seen": iso(newest["timestamp"]),
        "example_log_id": newest["id"],
    }


moments = st.one_of(
    st.integers(T0 - 2, T0 + 5_002), st.integers(T0, T0 + SPAN_MS), st.sampled_from([event["timestamp"] for event in EVENTS])
)
some_filters = st.lists(st.sampled_from(FILTERS), max_size=2, unique=True).flatmap(
    lambda names: st.fixed_dictionaries(
        {name: st.lists(st.sampled_from([*VALUES[name], "nope"]), min_size=1, max_size=2, unique=True) for name in names}
    )
)
many = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


@many
@given(
    key=st.sampled_from([KEY_A, KEY_B]),
    span=st.tuples(moments, moments).map(sorted),
    filters=some_filters,
    limit=st.sampled_from([1, 3, 100]),
)
async def test_groups_are_counts_over_the_events(service, key, span, filters, limit):
    """For every range in ms, filter and limit: all members of all groups, the largest first, and never another's rows."""
    asked = [("from", str(span[0])), ("to", str(span[1])), ("limit", str(limit))]
    asked += [(name, value) for name, values in filters.items() for value in values]
    reply = await service.get(PATH, asked, key=key)
    assert reply.status == 200, reply.body
    assert reply.body.keys() == {"groups", "complete_until"}
    expected = counted(OF_KEY[key], *span, filters)
    found = reply.body["groups"]
    assert len(found) == min(limit, len(expected))
    for group in found:
        assert group == expected[group["failure_class"], group["tool_slug"], group["message"]]
    order = [(-group["calls"], -moment_of(group)) for group in found]
    assert order == sorted(order)
    # None that was left out is larger than one that was not.
    left = sorted((-group["calls"], -moment_of(group)) for group in expected.values())[: len(found)]
    assert order == left


def moment_of(group):
    return next(event["timestamp"] for event in EVENTS if event["id"] == group["example_log_id"])


async def test_a_group_leads_to_its_logs(service):
    """Class, tool and message of a group, as filters of the log search, find exactly its calls."""
    for group in (await service.get(PATH, {"from": T0, "to": T0 + SPAN_MS})).body["groups"]:
        fields = {
            "status": "failed",
            "failure_class": group["failure_class"],
            "tool_slug": group["tool_slug"],
            "failure_pattern": group["message"],
        }
        filters = [{"field": field, "operator": "==", "value": value} for field, value in fields.items()]
        logs = (await service.logs({"limit": 100, "filters": filters})).body
        assert logs["next_cursor"] is None
        assert len(logs["logs"]) == group["calls"]
        assert logs["logs"][0]["id"] == group["example_log_id"]


async def test_a_smaller_limit_gives_the_first_of_a_larger_one(service):
    """The order is total: no tie is broken by chance."""
    asked = {"from": T0, "to": T0 + SPAN_MS}
    whole = (await service.get(PATH, asked)).body["groups"]
    assert len(whole) == len(counted(OF_KEY[KEY_A], T0, T0 + SPAN_MS, {})) > 20
    assert abs(sum(group["share"] for group in whole) - 1) < 1e-9
    for limit in range(1, len(whole), 5):
        assert (await service.get(PATH, asked | {"limit": limit})).body["groups"] == whole[:limit]


async def test_nothing_failed(service):
    """An empty range, a filter that nothing fits, and the default range, long after these events: no groups, no error."""
    for asked in ({"from": T0, "to": T0}, {"from": T0, "to": T0 + 5, "tool_slug": "nope"}, {"status": "success"}, {}):
        reply = await service.get(PATH, asked)
        assert (reply.status, reply.body) == (200, {"groups": [], "complete_until": iso(T0 + 3)})
        assert reply.headers["x-complete-until"] == iso(T0 + 3)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"group_by": "tool_slug"}, "group_by"),
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "2.5"}, "limit"),
        ({"from": "yesterday"}, "from"),
        ({"from": "2", "to": "1"}, "from"),
        ({"from": "0", "to": str(400 * 86_400_000)}, "from"),
        ([("from", "1"), ("from", "2")], "from"),
    ],
)
async def test_a_wrong_parameter_is_named(service, asked, named):
    """400 says which one."""
    reply = await service.get(PATH, asked)
    assert reply.status == 400
    assert reply.body["error"]["errors"][0].startswith(f"Error in query.{named}:")


async def test_only_a_projects_key_that_may_read_is_answered(service):
    """No key 401; a key that only sends, or an organisation's: 403."""
    for key, status in ((None, 401), (KEY_INGEST, 403), (KEY_ORG, 403)):
        assert (await service.get(PATH, key=key)).status == status


async def test_the_command_line_shows_them_for_people_and_programs(service, monkeypatch, capsys):
    """As JSON lines what the route answers; as a table all groups, below it each advice once, with an example."""
    monkeypatch.setenv("TOOLLEDGER_URL", service.url)
    monkeypatch.setenv("TOOLLEDGER_API_KEY", KEY_A)
    since = iso(T0)
    groups = (await service.get(PATH, {"from": T0, "tool_slug": "GMAIL_A"})).body["groups"]
    command = ["failures", "--since", since, "--tool", "GMAIL_A"]
    assert await asyncio.to_thread(main, [*command, "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == groups
    assert await asyncio.to_thread(main, command) == 0
    said = capsys.readouterr()
    table, *actions = re.split(r"^(?=\w+: )", said.out, flags=re.MULTILINE)
    assert table.count("GMAIL_A") == len(groups)
    for group in groups:
        assert group["message"] in table
        assert group["likely_cause"] in table
    firsts = list({group["action"]: group for group in reversed(groups)}.values())[::-1]
    advice = [
        f"{one['failure_class']}: {one['action']}\n  toolledger log {shlex.quote(one['example_log_id'])}\n"
        f"  toolledger logs --tool GMAIL_A --pattern {shlex.quote(one['message'])}\n"
        for one in firsts
    ]
    assert sorted(actions) == sorted(advice)
    assert actions[0] == advice[0]
    command_shown = shlex.split(actions[0].splitlines()[-1])[1:]
    assert await asyncio.to_thread(main, [*command_shown, "--json", "--limit", "500"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) >= groups[0]["calls"]
    assert groups[0]["example_log_id"] in {line["id"] for line in lines}
    total = sum(group["calls"] for group in groups)
    assert f"{total} failed since {since}\n" in said.err
    assert await asyncio.to_thread(main, [*command, "--limit", "1"]) == 0
    assert f"; {total - groups[0]['calls']} in groups not shown" in capsys.readouterr().err
    assert await asyncio.to_thread(main, [*command, "--user", "nobody"]) == 0
    assert capsys.readouterr().out == "nothing failed in that time\n"
    # A narrow terminal has no room for a table.
    monkeypatch.setattr("deploy.cli.failures._TABLE_COLUMNS", 10_000)
    assert await asyncio.to_thread(main, command) == 0
    narrow = capsys.readouterr().out
    for group in groups:
        assert (
            f"{group['failure_class']} GMAIL_A: {group['calls']} calls, {group['share']:.1%}, {group['users']} users" in narrow
        )
        assert f"  {group['message']}\n  {group['likely_cause']}\n" in narrow
