"""Logs over HTTP: paging gives each log once, filters find what a plain comparison finds, nobody sees another's rows."""

import random

import orjson
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.contract.store import client as open_client
from query_api.filters import FIELDS, OPERATORS
from tests.support import rows
from tests.support.query_service import KEY_A, KEY_A2, KEY_B, KEY_READ, query_service

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

T0 = 1_776_384_000_000
PATH = "/api/v3.1/logs/tool_execution"
many = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# What filters trip over: wildcards of LIKE, quotes, escapes, and letters that change their length with their case.
AWKWARD = (
    "",
    "user_1",
    "USER_1",
    "100%",
    "a_b",
    "axb",
    "back\\slash",
    "it's",
    '"quoted"',
    "tab\there",
    "line\nbreak",
    "nul\0byte",
    "Straße",
    "STRASSE",
    "ΟΔΟΣ",
    "οδος",
    "İstanbul",
    "istanbul",
    "ﬁsh",
    "Éa",
    "e\u0301a",
    "K",
    "𐐀x",
    "\\N",
    "NULL",
    "{f0:String}",
    "%41",
    "a+b&c=d#e",
    " ",
)
COLUMNS = {field: "id" if field == "log_id" else field for field in FIELDS}
# As long as a value of a text may be.
LONG = "é𐐀" * 500


LETTERS = ("", "Z", "z", "é", "𐐀", "\uffee")


def make_events():
    chance, said = random.Random(3), random.Random(4)
    events = []
    for index in range(600):
        failed = chance.random() < 0.3
        project = chance.choice(["proj_a", "proj_a", "proj_b"])
        events.append(
            {
                # Equal ids in both projects, and ids that sort otherwise as text than as bytes.
                "id": f"log_{chance.choice(LETTERS)}{index if project == 'proj_a' else index // 2}",
                "project_id": project,
                # Hundreds share one millisecond.
                "timestamp": T0 + chance.choice([0, 1, chance.randrange(10_000), chance.randrange(9) * 86_400_000]),
                "tool_slug": chance.choice(["GMAIL_SEND_EMAIL", "GITHUB_CREATE", *AWKWARD[1:6]]),
                "toolkit_slug": chance.choice(["gmail", "github", ""]),
                "user_id": chance.choice(AWKWARD),
                "session_id": chance.choice(["", "ses_1", "ses_2", *AWKWARD[-4:]]),
                "connected_account_id": chance.choice(["", "ca_1"]),
                "auth_config_id": chance.choice(["", "ac_1"]),
                "sandbox_id": chance.choice(["", "sb_%"]),
                "request_id": chance.choice(AWKWARD[12:22]),
                "status": "failed" if failed else "success",
                "duration_ms": chance.random() * 1000,
                "kafka_partition": chance.randrange(3),
                "message": said.choice([f"secret of {project}", *AWKWARD, LONG]),
                "error_message": said.choice(["", "", *AWKWARD, "No such user: 17", LONG]),
                "error_code": said.choice(["", "404", "it's"]),
                "error_type": said.choice(["", "HttpError", "%"]),
                "failure_class": said.choice(["timeout", "other"]) if failed else "",
                "trace_id": said.choice(["", "4bf92f3577b34da6a3ce929d0e0e4736", "%_"]),
                "parent_log_id": said.choice(["", "log_1", "log_\\"]),
                "parent_tool_slug": said.choice(["", "COMPOSIO_MULTI_EXECUTE_TOOL"]),
                "data": '{"request": {"n": 1.00, "s": "\\u00e9\\/"}, "of": "' + project + '"}',
            }
        )
    return events


EVENTS = make_events()
OF_KEY = {
    key: [event for event in EVENTS if event["project_id"] == project]
    for key, project in ((KEY_A, "proj_a"), (KEY_B, "proj_b"), (KEY_READ, "proj_a"))
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(clickhouse_url):
    with rows.fresh_database(clickhouse_url) as url:
        client = open_client(url)
        rows.insert(client, EVENTS, batches=6)
        # An id may be there twice, at two times.
        stored = "SELECT project_id, id, toUnixTimestamp64Milli(timestamp), failure_pattern FROM tool_executions"
        patterns = {tuple(key): pattern for *key, pattern in client.query(stored).result_rows}
        for event in EVENTS:
            event["failure_pattern"] = patterns[event["project_id"], event["id"], event["timestamp"]]
        rows.report_progress(client, complete_until_ms=[T0 + 5, T0 + 3])
        async with query_service(url) as running:
            yield running


def holds(event, given_filter):
    """Decide a filter the plain way."""
    field, wanted = given_filter["field"], given_filter["value"]
    texts = [event["message"], event["error_message"]] if field == "text" else [event[COLUMNS[field]]]
    present = [text for text in texts if text]
    equal = wanted in present if wanted else not present
    contained = any(wanted.casefold() in text.casefold() for text in texts)
    return {"==": equal, "!=": not equal, "contains": contained, "not_contains": not contained}[given_filter["operator"]]


def newest_first(events):
    return sorted(events, key=lambda event: (event["timestamp"], event["id"].encode()), reverse=True)


async def all_pages(service, body, *, key=KEY_A):
    found, cursor = [], None
    while True:
        reply = await service.logs(body | {"cursor": cursor}, key=key)
        assert reply.status == 200, reply.body
        found += [log["id"] for log in reply.body["logs"]]
        cursor = reply.body["next_cursor"]
        if cursor is None:
            return found
        assert len(reply.body["logs"]) == body.get("limit", 20)


fragments = st.sampled_from(AWKWARD).flatmap(
    lambda text: st.sampled_from([text, text.upper(), text.lower(), text.swapcase(), text[1:3], text[-2:]])
)
filters = st.lists(
    st.fixed_dictionaries(
        {"field": st.sampled_from(FIELDS), "operator": st.sampled_from(OPERATORS)},
    ).flatmap(
        lambda chosen: st.one_of(
            fragments,
            st.integers(0, len(EVENTS) - 1).map(
                lambda index: EVENTS[index][{"text": "error_message"}.get(chosen["field"], COLUMNS[chosen["field"]])]
            ),
            st.text(st.characters(exclude_categories=("Cs",)), max_size=3),
        ).map(lambda value: chosen | {"value": value})
    ),
    max_size=3,
)


@many
@given(key=st.sampled_from([KEY_A, KEY_B, KEY_READ]), filters=filters)
async def test_filters_find_what_a_plain_comparison_finds(service, key, filters):
    """All fields, all four operators, any text taken literally; absent is empty; all filters must hold."""
    found = await all_pages(service, {"filters": filters, "limit": 100}, key=key)
    matching = [event for event in OF_KEY[key] if all(holds(event, one) for one in filters)]
    assert found == [event["id"] for event in newest_first(matching)]


async def test_a_part_of_a_text_is_found_and_a_longer_one_refused(service):
    """As many characters as are taken are found in any case; one more is 400 and says what to do."""
    for field in ("text", "message", "error_message"):
        body = {"limit": 100, "filters": [{"field": field, "operator": "contains", "value": LONG.swapcase()}]}
        assert await all_pages(service, body)
        # All fifty as long as they may be, and no two the same.
        body["filters"] = [{"field": field, "operator": "contains", "value": LONG[number:]} for number in range(50)]
        assert await all_pages(service, body)
        body["filters"][0] = {"field": field, "operator": "==", "value": LONG + "é"}
        refused = await service.logs(body)
        assert refused.status == 400
        assert "filters.0.value: has 1001 characters" in refused.body["error"]["errors"][0]
    body = {"filters": [{"field": "user_id", "operator": "==", "value": LONG + LONG}]}
    assert (await service.logs(body)).body == {"logs": [], "next_cursor": None}


async def test_failures_of_each_user(service):
    """A user's failures, for which an index of their own is asked, are those that a plain comparison finds."""
    found = {}
    for user in AWKWARD:
        filters = [
            {"field": "user_id", "operator": "==", "value": user},
            {"field": "status", "operator": "==", "value": "failed"},
        ]
        expected = [event["id"] for event in newest_first(OF_KEY[KEY_A]) if all(holds(event, one) for one in filters)]
        found[user] = await all_pages(service, {"filters": filters, "limit": 100})
        assert found[user] == expected
    assert sum(map(bool, found.values())) > len(AWKWARD) / 2


@pytest.mark.parametrize("limit", [1, 7, 20, 99, 100])
async def test_paging_is_the_sorted_list(service, limit):
    """Whatever the limit, each log once, newest first, also where hundreds share a millisecond."""
    expected = [event["id"] for event in newest_first(OF_KEY[KEY_A])]
    if limit == 1:
        # One page a log: the crowded millisecond is enough.
        expected = [event["id"] for event in newest_first(OF_KEY[KEY_A]) if event["timestamp"] == T0]
        assert len(expected) > 50
        assert await all_pages(service, {"limit": 1, "time_range": {"from": T0, "to": T0 + 1}}) == expected
    else:
        assert await all_pages(service, {"limit": limit}) == expected


@many
@given(key=st.sampled_from([KEY_A, KEY_B]), bounds=st.tuples(*[st.integers(T0 - 2, T0 + 12_000)] * 2).map(sorted))
async def test_a_range_is_half_open_in_ms(service, key, bounds):
    """`from` inclusive, `to` exclusive; equal bounds are empty."""
    found = await all_pages(service, {"limit": 100, "time_range": {"from": bounds[0], "to": bounds[1]}}, key=key)
    expected = [event for event in OF_KEY[key] if bounds[0] <= event["timestamp"] < bounds[1]]
    assert found == [event["id"] for event in newest_first(expected)]


async def test_each_log_in_full(service):
    """Detail has what search has, and the payload byte for byte."""
    for event in OF_KEY[KEY_A][::20]:
        listed = await service.logs({"filters": [{"field": "log_id", "operator": "==", "value": event["id"]}]})
        got = await service.get(f"{PATH}/{event['id']}")
        assert got.status == 200
        assert len(listed.body["logs"]) == 1
        assert {name: got.body[name] for name in listed.body["logs"][0]} == listed.body["logs"][0]
        assert b'"data":' + event["data"].encode() in got.raw
        assert got.body["metrics"]["duration_ms"] == event["duration_ms"]
        assert got.body["timings"]["start_time"] == event["timestamp"]
        assert "data" not in listed.body["logs"][0]


async def test_another_projects_log_is_as_unknown_as_none(service):
    """Same status, same body but for the request id, whether the id exists elsewhere or nowhere."""
    mine = {event["id"] for event in OF_KEY[KEY_A]}
    foreign = next(event["id"] for event in OF_KEY[KEY_B] if event["id"] not in mine)
    replies = [await service.get(f"{PATH}/{log_id}") for log_id in (foreign, "log_of_nobody", "log%2Fa%20b%3Fc", "%00", "'")]
    for reply in replies:
        assert reply.status == 404
        assert reply.body["error"].pop("request_id") == reply.headers["x-request-id"]
        assert reply.body == replies[0].body


@many
@given(filters=filters, key=st.sampled_from([KEY_A, KEY_B]), limit=st.integers(1, 100))
async def test_no_answer_holds_a_foreign_row(service, filters, key, limit):
    """Whatever is asked, what comes back is the key's own."""
    reply = await service.logs({"filters": filters, "limit": limit}, key=key)
    other = b"proj_b" if key == KEY_A else b"proj_a"
    assert other not in orjson.dumps(reply.body["logs"])


async def test_cursors_belong_to_one_question_of_one_key(service):
    """Another key, even of the same project, another filter or range: 400. The limit may change. A tampered one: 400."""
    body = {
        "limit": 5,
        "filters": [{"field": "status", "operator": "==", "value": "failed"}],
        "time_range": {"from": 0, "to": T0 * 2},
    }
    cursor = (await service.logs(body)).body["next_cursor"]
    assert (await service.logs(body | {"cursor": cursor, "limit": 9})).status == 200
    for changed, key in (
        (body, KEY_B),
        (body, KEY_A2),
        (body | {"filters": []}, KEY_A),
        (body | {"time_range": {"from": 0, "to": T0}}, KEY_A),
        ({"limit": 5}, KEY_A),
    ):
        reply = await service.logs(changed | {"cursor": cursor}, key=key)
        assert reply.status == 400
        assert "payload.cursor" in reply.body["error"]["errors"][0]
    for tampered in (cursor[:-1], cursor + "A", "A" + cursor[1:], "eyJwYWdlIjoyfQ==", "\0", "é", "x" * 5000, 5, []):
        assert (await service.logs(body | {"cursor": tampered})).status == 400
    assert (await service.logs(body | {"cursor": ""})).status == 200


async def test_events_that_arrive_while_paging_move_nothing(service):
    """A page goes on below its cursor, whatever came in above or between."""
    client = open_client(service.services.settings.clickhouse.get_secret_value())
    body = {"limit": 30, "filters": [{"field": "user_id", "operator": "==", "value": "paging"}]}
    first = [{"id": f"log_{number:03}", "timestamp": T0 + number % 7, "user_id": "paging"} for number in range(60)]
    rows.insert(client, first)
    page = (await service.logs(body)).body
    rows.insert(client, [{"id": f"log_new_{number}", "timestamp": T0 + 100, "user_id": "paging"} for number in range(40)])
    rest = (await service.logs(body | {"cursor": page["next_cursor"]})).body
    assert [log["id"] for log in page["logs"] + rest["logs"]] == [event["id"] for event in newest_first(first)]
    assert rest["next_cursor"] is None


async def test_answers_tell_until_when_they_are_complete(service):
    """The slowest partition's time, on pages, details, and on a log that is not there."""
    expected = "2026-04-17T00:00:00.003Z"
    assert (await service.logs()).headers["x-complete-until"] == expected
    assert (await service.get(f"{PATH}/log_of_nobody")).headers["x-complete-until"] == expected
    assert (await service.get("/v1/usage")).body["complete_until"] == expected
    fresh = (await service.get("/v1/freshness")).body
    assert fresh["complete_until"] == expected
    assert fresh["complete_until_ms"] == T0 + 3
    assert fresh["lag_ms"] > 0
    assert fresh["partitions"] == [
        {"partition": number, "next_offset": 5, "end_offset": 7, "lag_records": 2, "complete_until_ms": until}
        for number, until in enumerate((T0 + 5, T0 + 3))
    ]
