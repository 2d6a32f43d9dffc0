"""Logs that are very large, nested very deep, or whose id holds a line feed: each is found, and none keeps another from it."""

import contextlib
import sys
from collections.abc import Iterator
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio

from ingest.contract.store import client as open_client
from query_api.run import read_whatever_is_stored
from tests.support import rows
from tests.support.query_service import KEY_A, query_service

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

T0 = 1_777_000_000_000
LOGS = "/api/v3.1/logs/tool_execution"
LISTING = "/api/v3.1/internal/action_execution"
NAMES = ("nl1", "nl1\n", "only\n", "in\nside", "\nlead", "a/b\n/c")
LARGE, LARGE_BYTES = 40, 900_000
# As deep as a worker ever took, from before it held to a limit.
DEEP = 1_900


def deep(levels: int) -> str:
    return '{"a":' + "[" * (levels - 1) + "]" * (levels - 1) + "}"


EVENTS = [
    *({"id": name, "timestamp": T0 + index, "user_id": "named"} for index, name in enumerate(NAMES)),
    *(
        {
            "id": f"large_{index}",
            "timestamp": T0 + 10_000 + index,
            "user_id": "large",
            "metadata": f'{{"x":"{"y" * LARGE_BYTES}"}}',
        }
        for index in range(LARGE)
    ),
    {"id": "deep", "timestamp": T0 + 20_000, "user_id": "deep", "metadata": deep(DEEP), "data": deep(DEEP)},
    {"id": "beside", "timestamp": T0 + 20_001, "user_id": "deep"},
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(clickhouse_url):
    with rows.fresh_database(clickhouse_url) as url:
        with contextlib.closing(open_client(url)) as store:
            rows.insert(store, EVENTS, batches=1)
        async with query_service(url) as running:
            yield running


@pytest.fixture
def _as_the_service_runs() -> Iterator[None]:
    limit = sys.getrecursionlimit()
    read_whatever_is_stored()
    yield
    sys.setrecursionlimit(limit)


async def raw(service, method, path, **more):
    """Ask without reading the answer as JSON, which readers refuse where it is nested so deep."""
    async with aiohttp.ClientSession() as session:
        asked = session.request(method, service.url + path, headers={"x-api-key": KEY_A}, **more)
        async with asked as response:
            return response.status, await response.read()


@pytest.mark.parametrize("name", NAMES, ids=repr)
async def test_an_id_with_line_feeds_leads_to_its_own_log(service, name):
    detail = await service.get(f"{LOGS}/{quote(name, safe='')}")
    assert (detail.status, detail.body["id"]) == (200, name)
    older = await service.get(f"{LISTING}/log/{quote(name, safe='')}")
    assert (older.status, older.body["actionLogId"]) == (200, name)


@pytest.mark.parametrize("path", ["/v1/usage%0A", "/v1/key%0A", "/healthz%0A", "/healthz/%0A", "/docs%0A", "/openapi.json%0A"])
async def test_a_path_with_a_line_feed_behind_it_is_another(service, path):
    assert (await service.get(path)).status == 404


async def test_pages_of_large_logs_are_short_and_lead_on(service):
    """No answer is larger than its bound and a log, however many are asked for; all come, each once, newest first."""
    filters = [{"field": "user_id", "operator": "==", "value": "large"}]
    found, cursor, bound = [], None, 16 * 2**20 + 2 * LARGE_BYTES
    while True:
        reply = await service.logs({"limit": 100, "filters": filters, "cursor": cursor})
        assert reply.status == 200
        assert len(reply.raw) < bound
        found += [one["id"] for one in reply.body["logs"]]
        if (cursor := reply.body["next_cursor"]) is None:
            break
    assert found == [f"large_{index}" for index in reversed(range(LARGE))]

    found, cursor = [], None
    while True:
        asked = {"limit": 1000, "search_params": [{"field": "user_id", "operation": "==", "value": "large"}], "cursor": cursor}
        reply = await service.post(f"{LISTING}/logs", asked)
        assert reply.status == 200
        assert len(reply.raw) < bound
        found += [one["id"] for one in reply.body["data"]]
        if (cursor := reply.body["nextCursor"]) is None:
            break
    assert found == [f"large_{index}" for index in reversed(range(LARGE))]


@pytest.mark.usefixtures("_as_the_service_runs")
async def test_what_is_nested_deeper_than_readers_take_hides_nothing(service):
    """It is shown as it was stored, alone, on pages and in exports, and so is what stands beside it."""
    filters = [{"field": "user_id", "operator": "==", "value": "deep"}]
    asked = [
        await raw(service, "POST", LOGS, json={"filters": filters}),
        await raw(service, "POST", f"{LISTING}/logs", json={}),
        await raw(service, "GET", f"{LOGS}/deep"),
        await raw(service, "GET", f"{LISTING}/log/deep"),
        await raw(service, "GET", "/v1/logs/export?user_id=deep&data=true"),
    ]
    assert [status for status, _ in asked] == [200] * len(asked)
    assert all(b"[" * (DEEP - 1) in body for _, body in asked)
    assert all(b'"beside"' in body for _, body in (asked[0], asked[1], asked[4]))
