"""Whoever asks, whatever they ask: nothing of another project can be seen, counted, or told from what never was.

The same request goes to the world that holds all projects, and to one that holds nothing but the caller's. The answers must be
the same to the byte. So a foreign row cannot have had a part in one, neither as a row nor in a count, a cursor, an order, an
error or its absence. Beside that, what a project's rows are marked with must not turn up in anybody else's answer.
"""

import base64
import contextlib
import re

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.contract.access import Key, hash_key, key_record
from ingest.contract.store import READ_INDEXES
from ingest.contract.store import client as open_client
from ingest.contract.tables import OWN
from query_api.failures import groups
from query_api.filters import Filter
from query_api.http.app import OPERATIONS
from query_api.internal_logs import Listing, page_statement
from query_api.letters import letter_statement
from query_api.logs import Search, detail_statement, search_statement
from query_api.tenant import Tenant
from tests.support import rows, worlds
from tests.support.query_service import KEY_A, KEY_B, KEY_ORG, KEY_READ, query_service
from tests.support.questions import PAGED, QUESTIONS, TAIL, Question

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

KEY_ORG_C = "oak_test_key_of_the_organization_of_c"
SEES = {
    KEY_A: ("proj_a",),
    KEY_B: ("proj_b",),
    KEY_READ: ("proj_a",),
    KEY_ORG: ("proj_a", "proj_b"),
    KEY_ORG_C: ("proj_c",),
}
# The clock's part of an answer.
_LAG = re.compile(rb'"lag_ms":\d+')
_EVENT_ID = re.compile(r"^id: (.+)$", re.MULTILINE)
many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(clickhouse_url):
    """Services by the projects of their world, all with the same keys; Kafka is away, so that a replay goes as far as that."""
    async with contextlib.AsyncExitStack() as stack:
        made = {}
        for projects in (worlds.PROJECTS, *dict.fromkeys(SEES.values())):
            url = stack.enter_context(rows.fresh_database(clickhouse_url))
            with contextlib.closing(open_client(url)) as store:
                worlds.fill(store, projects)
            service = await stack.enter_async_context(query_service(url, kafka="127.0.0.1:1", query_replay_timeout_s=60))
            for key, project in ((KEY_ORG_C, ""), ("ak_key_of_project_c", "proj_c")):
                record = key_record(Key(id="id_" + key, key_hash=hash_key(key), project_id=project, org_id="org_3"))
                service.services.control.access.apply(*record)
            made[projects] = service
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cursors(services):
    """Cursors that were given to each key."""
    found = []
    for key in SEES:
        for method, question in PAGED:
            reply = await ask(services[worlds.PROJECTS], method, question, key=key, cursors=[])
            if reply.status == 200 and question.path == TAIL:
                found += _EVENT_ID.findall(reply.raw.decode())[-1:]
            elif reply.status == 200:
                found.append(reply.body.get("next_cursor") or reply.body.get("nextCursor"))
    assert len(found) == 21
    assert all(found)
    return found


async def ask(service, method, question, *, key, cursors):
    """Send a question as it is, always under the same request id."""
    body, parameters, headers = question.body, list(question.parameters), {"x-request-id": "the-same"}
    if question.cursor is not None:
        cursor = cursors[question.cursor % len(cursors)]
        if question.path == TAIL:
            headers["last-event-id"] = str(cursor)
        elif method == "POST":
            body = {**body, "cursor": cursor}
        else:
            parameters.append(("cursor", str(cursor)))
    sent = {"params": parameters} if parameters else {}
    if method == "POST" and body is not None:
        sent["json"] = body
    return await service.request(method, question.path, key=key, headers=headers, **sent)


def shown(reply):
    """All that a caller gets to see, the time of day apart."""
    headers = {name.lower(): value for name, value in reply.headers.items() if name.lower() not in ("date", "content-length")}
    return reply.status, headers, _LAG.sub(b"", reply.raw)


def marks(reply):
    """The projects whose marks an answer holds, in its body, its headers, or in what is packed into its cursor."""
    text = reply.raw + str(dict(reply.headers)).encode()
    cursor = reply.body.get("next_cursor") if isinstance(reply.body, dict) else None
    if cursor:
        text += base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    return {project for project, mark in worlds.MARKERS.items() if mark.lower() in text.decode("latin-1").lower()}


async def test_every_operation_has_its_questions():
    """A new route is asked too, or this fails: write a strategy for it in tests/support/questions.py."""
    assert {(one.method, one.path) for one in OPERATIONS} == set(QUESTIONS)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
@many
@given(data=st.data())
async def test_other_projects_have_no_part_in_an_answer(services, cursors, operation, data):
    """The world with all projects answers as the one with the caller's alone."""
    question = data.draw(QUESTIONS[operation.method, operation.path], label="question")
    # Mostly keys of the right kind; the others are to be refused alike.
    right = [key for key in SEES if key.startswith("oak_") == (operation.key == "org")]
    key = data.draw(st.sampled_from([*right, *right, *right, *SEES]), label="key")
    here = await ask(services[worlds.PROJECTS], operation.method, question, key=key, cursors=cursors)
    alone = await ask(services[SEES[key]], operation.method, question, key=key, cursors=cursors)
    assert shown(here) == shown(alone)
    assert here.status < 500 or here.status == 503, here.body
    if not any(mark.lower() in str(question).lower() for mark in worlds.MARKERS.values()):
        assert marks(here) <= set(SEES[key])


@pytest.mark.parametrize("key", SEES)
async def test_the_worlds_are_different(services, key):
    """The comparison above can fail: what is asked by and of others differs between these worlds, and one's own is found."""
    between = {"from": worlds.T0, "to": worlds.END_MS}
    if key.startswith("oak_"):
        method, question = "POST", Question(path="/api/v3.1/org/usage/summary", body=between)
    else:
        parameters = tuple((name, str(value)) for name, value in between.items())
        method, question = "GET", Question(path="/v1/usage", parameters=parameters)
    counted = {}
    for projects, service in services.items():
        reply = await ask(service, method, question, key=key, cursors=[])
        calls = reply.body["totals"]["calls"] if method == "GET" else reply.body["entities"]["tool_calls"]["event_count"]
        counted[projects] = calls
    expected = sum(event["project_id"] in SEES[key] for event in worlds.events())
    assert counted[worlds.PROJECTS] == counted[SEES[key]] == expected > 0
    assert len(set(counted.values())) > 1


async def test_a_cursor_is_its_keys_alone(services, cursors):
    """Handed to any other key, of the same project even, a sealed cursor is 400, and on its own question it goes on."""
    service = services[worlds.PROJECTS]
    for method, question in (PAGED[0], PAGED[4], PAGED[5], PAGED[6]):
        for number in range(len(cursors)):
            asked = Question(path=question.path, body=question.body, parameters=question.parameters, cursor=number)
            statuses = [
                (await ask(service, method, asked, key=key, cursors=cursors)).status for key in (KEY_A, KEY_B, KEY_READ)
            ]
            assert statuses.count(200) <= 1
    for index, (method, question) in enumerate(PAGED):
        asked = Question(path=question.path, body=question.body, parameters=question.parameters, cursor=index)
        assert (await ask(service, method, asked, key=KEY_A, cursors=cursors)).status == 200


# Columns by whose values a call is found, and the fields of these.
FOUND_BY = {"id": "log_id", **{column: column for column in OWN}}


async def test_what_exists_elsewhere_costs_what_nothing_costs(clickhouse_url):
    """ClickHouse reads as many rows for a value of another project as for one that nobody has: no clock can tell them apart.

    Not even where one project's rows end and the other's begin, in a granule that both share.
    """
    tenant = Tenant(projects=("proj_a",), key_hash="a")
    with rows.fresh_database(clickhouse_url) as url, contextlib.closing(open_client(url)) as store:
        # Some granules of each project, in one part, and the foreign ids in the midst of one's own.
        store.command(
            "INSERT INTO tool_executions"
            f" (batch_month, project_id, timestamp, {', '.join(FOUND_BY)}, status, incarnation, accepted_at)"
            " SELECT 202604, if(number % 2, 'proj_a', 'proj_b'),"
            " fromUnixTimestamp64Milli(toInt64(1776384000000 + number), 'UTC') AS at,"
            " concat('log_', leftPad(toString(number), 9, '0')) AS one, one, one, one, one,"
            " if(number % 3, 'success', 'failed'), 'one', at FROM numbers(100000)"
            " SETTINGS min_insert_block_size_rows = 200000, max_insert_threads = 1"
        )
        store.command(
            "INSERT INTO dead_letters (batch_month, project_id, incarnation, kafka_offset, accepted_at)"
            f" SELECT 202604, if(number % 2, 'proj_a', 'proj_b'), '{worlds.INCARNATION}', number, now64(3) FROM numbers(100000)"
            " SETTINGS min_insert_block_size_rows = 200000, max_insert_threads = 1"
        )

        def read(statement):
            # Settings as the service has them. Counted, because the embedded engine says nothing of what it read for no rows.
            settings = {"wait_end_of_query": 1, **READ_INDEXES}
            counted = f"SELECT count() FROM ({statement.text})"
            found = store.query(counted, parameters=statement.parameters(), settings=settings)
            return int(found.summary["read_rows"]), found.result_rows[0][0]

        def by_value(value):
            """Ask by an id, and by what else a call is found by, which is the same text here."""
            failed = Filter(field="status", operator="==", value="failed")
            equal = {column: Filter(field=field, operator="==", value=value) for column, field in FOUND_BY.items()}
            ranged = groups.Question(from_ms=0, to_ms=2**42, limit=1, filters={"user_id": (value, f"{value}y")})
            return [
                detail_statement(tenant, value),
                *(search_statement(tenant, Search(limit=1, filters=[one])) for one in equal.values()),
                *(page_statement(tenant, Listing(limit=1, equal={column: [value]}), None) for column in equal),
                search_statement(tenant, Search(limit=1, filters=[failed, equal["user_id"]])),
                groups.statement(tenant, ranged),
            ]

        # Every one is a failed call.
        for number in (0, 20_004, 50_004, 77_778):
            theirs, nobodys, own = (
                [read(one) for one in by_value(f"log_{value}")]
                for value in (f"{number:09d}", f"{number:09d}x", f"{number + 3:09d}")
            )
            assert theirs == nobodys
            for of_others, of_ours in zip(theirs, own, strict=True):
                assert of_others[1] == 0
                assert of_ours[1] == 1
                assert of_ours[0] > of_others[0]
            theirs = read(letter_statement(tenant, (worlds.INCARNATION, 0, number, 0)))
            assert theirs == read(letter_statement(tenant, (worlds.INCARNATION, 0, number, 1)))
            assert theirs[1] == 0
