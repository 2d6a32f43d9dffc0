"""The older listing of logs: its number cursor gives each log once, its conditions find what a plain comparison finds."""

import random

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.contract.store import client as open_client
from query_api.internal_logs import EXTRA_ROWS
from tests.integration.test_query_logs import AWKWARD, EVENTS, OF_KEY, newest_first
from tests.support import rows
from tests.support.query_service import KEY_A, KEY_B, KEY_INGEST, KEY_ORG, query_service

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

T0 = 1_776_384_000_000
LOGS = "/api/v3.1/internal/action_execution/logs"
LOG = "/api/v3.1/internal/action_execution/log/"
TRIGGERS = "/api/v3.1/internal/trigger/logs"
many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

FIELDS = {
    "action_key": "tool_slug",
    "toolkit_key": "toolkit_slug",
    "connected_account_id": "connected_account_id",
    "auth_config_id": "auth_config_id",
    "execution_status": "status",
    "user_id": "user_id",
    "log_id": "id",
    "tool_router_session_id": "session_id",
    "session_id": "session_id",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(clickhouse_url):
    with rows.fresh_database(clickhouse_url) as url:
        rows.insert(open_client(url), EVENTS, batches=6)
        async with query_service(url) as running:
            yield running


def holds(event, conditions, case_sensitive):
    """Decide conditions the plain way: `==` of one field are any of, everything else must hold."""
    wanted = {}
    for one in conditions:
        column, operation, text = FIELDS[one["field"]], one.get("operation", "=="), one["value"]
        value = event[column]
        exact = case_sensitive if case_sensitive is not None else operation in ("==", "!=")
        exact = exact or (column, operation) == ("id", "==")
        if not exact:
            value, text = value.casefold(), text.casefold()
        if operation == "==":
            wanted[column] = wanted.get(column, False) or value == text
        elif not {"!=": value != text, "contains": text in value, "not_contains": text not in value}[operation]:
            return False
    return all(wanted.values())


async def pages(service, body, *, key=KEY_A):
    """Follow the cursors; check that each is a whole number that every client can hold, and each page's size."""
    found, cursor, limit = [], 0, body.get("limit", 30)
    while cursor is not None:
        reply = await service.post(LOGS, body | {"cursor": cursor}, key=key)
        assert reply.status == 200, reply.body
        page, following = reply.body["data"], reply.body["nextCursor"]
        found.append(page)
        if following is not None:
            assert isinstance(following, int)
            assert 0 < following < 2**53
            assert limit <= len(page) <= limit + EXTRA_ROWS
            # As clients of either language hand it back.
            following = random.choice([following, float(following)])
        cursor = following
    return found


conditions = st.lists(
    st.fixed_dictionaries(
        {"field": st.sampled_from(list(FIELDS))},
        optional={"operation": st.sampled_from(["==", "==", "!=", "contains", "not_contains"])},
    ).flatmap(
        lambda chosen: st.one_of(
            st.sampled_from(AWKWARD),
            st.sampled_from([event[FIELDS[chosen["field"]]] for event in EVENTS]),
            st.sampled_from([event[FIELDS[chosen["field"]]].swapcase() for event in EVENTS]),
        ).map(lambda value: chosen | {"value": value})
    ),
    max_size=4,
)


# Several of one field and operation, which are one condition to ClickHouse: letters, and pieces of what is there.
pieces = st.sampled_from(["", "a", "E", "_", "ß", "%"]) | st.builds(
    lambda event, start, length: event["user_id"][start : start + length],
    st.sampled_from(EVENTS), st.integers(0, 4), st.integers(0, 3),
)  # fmt: skip
of_one = st.tuples(
    st.sampled_from(["user_id", "action_key", "execution_status", "log_id"]),
    st.sampled_from(["!=", "contains", "not_contains"]),
    st.lists(pieces, max_size=5),
).map(lambda chosen: [{"field": chosen[0], "operation": chosen[1], "value": value} for value in chosen[2]])


@many
@given(
    key=st.sampled_from([KEY_A, KEY_B]),
    search_params=conditions | of_one,
    case_sensitive=st.sampled_from([None, True, False]),
    limit=st.sampled_from([1, 2, 7, 30, 100.0, 1000]),
    span=st.none() | st.tuples(st.integers(T0 - 5, T0 + 10_005), st.integers(T0 - 5, T0 + 10_005)).map(sorted),
)
async def test_every_log_that_matches_comes_once_and_in_order(service, key, search_params, case_sensitive, limit, span):
    """For any conditions, case, range and page size, newest first by timestamp, then by id."""
    low, high = (T0 - 10**9, T0 + 10**10) if span is None else span
    matching = [
        event for event in OF_KEY[key] if low <= event["timestamp"] < high and holds(event, search_params, case_sensitive)
    ]
    # Small pages where little is found, so that none takes a hundred requests.
    body = {"search_params": search_params, "case_sensitive": case_sensitive, "limit": max(limit, len(matching) // 5)}
    if span is not None:
        body |= {"from": low, "to": float(high)}
    found = [item["id"] for page in await pages(service, body, key=key) for item in page]
    assert found == [event["id"] for event in newest_first(matching)]


async def test_as_many_conditions_as_are_taken_are_answered(service):
    """A thousand of each operation: no question is too long for ClickHouse, and all of them count."""
    (some, *_) = [event for event in OF_KEY[KEY_A] if event["user_id"].isascii() and len(event["user_id"]) > 2]
    long = [f"no{number}".ljust(200, "x") for number in range(1000)]
    parts = [some["user_id"], some["user_id"][:2], ""] * 300
    for operation, values in (
        ("contains", parts),
        ("not_contains", long),
        ("!=", long),
    ):
        asked = [{"field": "user_id", "operation": operation, "value": value} for value in values]
        found = [item["id"] for page in await pages(service, {"search_params": asked, "limit": 1000}) for item in page]
        matching = [event for event in OF_KEY[KEY_A] if holds(event, asked, None)]
        assert some in matching
        assert found == [event["id"] for event in newest_first(matching)]
    different = [{"field": "connected_account_id", "operation": "contains", "value": value} for value in long]
    assert (await service.post(LOGS, {"search_params": different})).body["data"] == []


async def test_thousands_in_one_millisecond_come_once_while_more_arrive(clickhouse_url):
    """What was there comes once and in order, though rows arrive before, behind and within the same millisecond."""
    chance = random.Random(2)
    events = [{"id": f"log_{chance.randrange(10**12):x}", "timestamp": T0 + index % 3 // 2} for index in range(4_000)]
    with rows.fresh_database(clickhouse_url) as url:
        client = open_client(url)
        rows.insert(client, events)
        async with query_service(url) as service:
            seen, cursor = [], None
            while seen[-1:] != [None]:
                reply = await service.post(LOGS, {"cursor": cursor, "limit": 250})
                seen += [(item["createdAt"], item["id"]) for item in reply.body["data"]]
                cursor = reply.body["nextCursor"]
                if cursor is None:
                    break
                late = [{"id": f"log_{chance.randrange(10**12):x}", "timestamp": T0 + n % 4} for n in range(40)]
                rows.insert(client, late, batches=1)
    assert len(set(seen)) == len(seen)
    assert seen == sorted(seen, key=lambda one: (one[0], one[1].encode()), reverse=True)
    assert {(event["timestamp"], event["id"]) for event in events} <= set(seen)


async def test_what_a_number_cannot_tell_apart_is_refused(clickhouse_url):
    """Too many in one millisecond: 400 that says where to go, never a gap; conditions that leave few are answered."""
    with rows.fresh_database(clickhouse_url) as url:
        client = open_client(url)
        client.command(
            "INSERT INTO tool_executions (project_id, timestamp, id, user_id, tool_slug, status)"
            f" SELECT 'proj_a', fromUnixTimestamp64Milli({T0}), 'log_' || toString(number), toString(number % 100), 'T',"
            " 'success' FROM numbers(100000)"
        )
        async with query_service(url) as service:
            reply = await service.post(LOGS, {"cursor": 0, "limit": 5})
            assert (reply.status, reply.body["error"]["slug"]) == (400, "Query_TooLarge")
            assert "/api/v3.1/logs/tool_execution" in reply.body["error"]["suggested_fix"]
            narrow = {"limit": 300, "search_params": [{"field": "user_id", "operation": "==", "value": "7"}]}
            assert sum(len(page) for page in await pages(service, narrow)) == 1000


async def test_a_landmark_that_is_gone_gives_its_millisecond_again(clickhouse_url):
    """Retention may take away the very row a cursor names: rows may repeat, none is left out."""
    events = [{"id": f"log_{index}", "timestamp": T0 + index // 6} for index in range(12)]
    with rows.fresh_database(clickhouse_url) as url:
        client = open_client(url)
        rows.insert(client, events)
        async with query_service(url) as service:
            first = (await service.post(LOGS, {"limit": 8})).body
            last = first["data"][-1]["id"]
            client.command(f"ALTER TABLE tool_executions DELETE WHERE id = '{last}' SETTINGS mutations_sync = 1")
            second = (await service.post(LOGS, {"limit": 8, "cursor": first["nextCursor"]})).body
    ids = {item["id"] for item in first["data"] + second["data"]}
    assert ids == {event["id"] for event in events}
    assert second["nextCursor"] is None


@pytest.mark.parametrize(
    ("body", "member"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"cursor": "5"}, "cursor"),
        ({"cursor": True}, "cursor"),
        ({"cursor": 1}, "cursor"),
        ({"cursor": -5}, "cursor"),
        ({"cursor": T0}, "cursor"),
        ({"cursor": 2**53}, "cursor"),
        ({"cursor": 1e300}, "cursor"),
        ({"cursor": 3e15 + 0.5}, "cursor"),
        ({"case_sensitive": "no"}, "case_sensitive"),
        ({"search_params": {}}, "search_params"),
        ({"search_params": [1]}, "search_params.0"),
        ({"search_params": [{"field": "nonsense", "operation": "==", "value": ""}]}, "search_params.0.field"),
        ({"search_params": [{"value": "x"}]}, "search_params.0.field"),
        ({"search_params": [{"field": "user_id", "operation": "like", "value": ""}]}, "search_params.0.operation"),
        ({"search_params": [{"field": "user_id", "value": 1}]}, "search_params.0.value"),
        ({"search_params": [{"field": "user_id"}] * 1001}, "search_params"),
        ({"from": 2, "to": 1}, "from"),
        ({"from": "1"}, "from"),
    ],
)
async def test_each_fault_is_named_with_its_place(service, body, member):
    """400 with a line for the member."""
    reply = await service.post(LOGS, body)
    assert reply.status == 400, reply.body
    assert any(line.startswith(f"Error in payload.{member}: ") for line in reply.body["error"]["errors"]), reply.body


async def test_an_item_and_its_detail_say_what_the_log_says(service):
    """Both shapes hold the values of the row; another project's log is as unknown as none."""
    event = next(event for event in EVENTS if event["project_id"] == "proj_a" and event["status"] == "failed")
    ids = [{"field": "log_id", "operation": "eq", "value": event["id"]}]
    (item,) = (await service.post(LOGS, {"search_params": ids})).body["data"]
    metadata = item.pop("metadata")
    assert metadata["tool"] == {"slug": event["tool_slug"]}
    assert item == {
        "id": event["id"],
        "actionKey": event["tool_slug"],
        "appKey": event["toolkit_slug"],
        "app": {"icon": "", "name": event["toolkit_slug"]},
        "connectedAccountId": event["connected_account_id"],
        "entityId": event["user_id"],
        "status": "failed",
        "executionTime": event["duration_ms"],
        "minimalResponse": event["message"],
        "createdAt": event["timestamp"],
    }
    reply = await service.get(LOG + event["id"].replace("%", "%25"))
    detail = reply.body
    assert b'"payloadReceived":{"n": 1.00, "s": "\\u00e9\\/"}' in reply.raw
    assert detail["actionLogId"] == event["id"]
    assert (detail["status"], detail["steps"][0]["status"]) == ("error", "failure")
    assert (detail["startTime"], detail["endTime"]) == (event["timestamp"], event["timestamp"] + event["duration_ms"])
    assert float(detail["totalDuration"]) == pytest.approx(event["duration_ms"])
    assert detail["connection"] == {"id": event["connected_account_id"], "entity": event["user_id"]}
    foreign = next(one["id"] for one in OF_KEY[KEY_B] if one["id"] not in {event["id"] for event in OF_KEY[KEY_A]})
    assert (await service.get(LOG + foreign)).status == 404
    assert (await service.get(LOG + foreign, key=KEY_B)).status == 200


async def test_every_field_that_is_named_can_be_searched(service):
    """What `fields` lists is taken by a search, with its display name and type."""
    ((group, known),) = (await service.get("/api/v3.1/internal/action_execution/fields")).body["fields"].items()
    assert group == "action_execution"
    assert set(FIELDS) - {"tool_router_session_id"} <= {one["id"] for one in known}
    for one in known:
        assert one["displayName"]
        asked = {"search_params": [{"field": one["id"], "operation": "==", "value": "nope"}]}
        assert (await service.post(LOGS, asked)).body == {"data": [], "nextCursor": None}


async def test_there_are_no_trigger_logs(service):
    """An empty list that says there is no more, a 404, and a fault for a wrong question; keys as everywhere."""
    asked = {"time": "1d", "status": "all", "limit": None, "cursor": None, "include_payload": True}
    assert (await service.post(TRIGGERS, asked)).body == {"data": []}
    assert (await service.post(TRIGGERS, {"time": "2d"})).status == 400
    assert (await service.post(TRIGGERS, {"status": "failed"})).status == 400
    assert (await service.get("/api/v3.1/internal/trigger/log/x%2Fy")).status == 404
    for path in (LOGS, TRIGGERS):
        assert (await service.post(path, {}, key=None)).status == 401
        assert (await service.post(path, {}, key=KEY_INGEST)).status == 403
        assert (await service.post(path, {}, key=KEY_ORG)).status == 403
