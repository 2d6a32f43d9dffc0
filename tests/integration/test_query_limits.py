"""Rate limits of the query service on the wire: who is stopped, with what answer, and what it costs."""

import asyncio

import pytest
import pytest_asyncio

from query_api.rate_limit import ANNOUNCED_UNLIMITED
from tests.support import rows
from tests.support.query_service import KEY_A, KEY_A2, KEY_B, KEY_INGEST, KEY_ORG, query_service

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

LOGS = "/api/v3.1/logs/tool_execution"
LIMIT = 5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(clickhouse_url):
    with rows.fresh_database(clickhouse_url) as url:
        yield url


@pytest_asyncio.fixture(loop_scope="module")
async def limited(database):
    async with query_service(database, rate_limit_per_minute=LIMIT) as running:
        yield running


def standing(reply):
    """What the headers say."""
    names = ("X-RateLimit", "X-RateLimit-Remaining", "X-RateLimit-Window-Size")
    return tuple(reply.headers[name] for name in names)


async def test_beyond_the_limit_it_is_429_in_the_incumbents_form_and_ours(limited):
    """Remaining counts down on every route alike; then flat message and Error body in one, with whole seconds to wait."""
    for left in range(LIMIT - 1, -1, -1):
        reply = await limited.get("/v1/freshness") if left % 2 else await limited.logs({"limit": 0 if left == 2 else 1})
        assert reply.status == (400 if left == 2 else 200)
        assert standing(reply) == (str(LIMIT), str(left), "60s")
        assert "Retry-After" not in reply.headers
    for path in ("/v1/freshness", "/v1/usage", "/v1/dead-letters", LOGS + "/log_x"):
        reply = await limited.get(path)
        assert reply.status == 429
        assert reply.body["message"] == f"Rate limit exceeded. Limit: {LIMIT} requests per 1 minutes"
        assert reply.body["error"]["message"] == reply.body["message"]
        assert reply.body["error"]["code"] == 10429
        assert reply.body["error"]["request_id"] == reply.headers["x-request-id"]
        assert standing(reply) == (str(LIMIT), "0", "60s")
        # Digits alone and below 60: else the official clients do not heed it.
        assert reply.headers["Retry-After"].isdigit()
        assert 1 <= int(reply.headers["Retry-After"]) < 60


async def test_a_flood_of_one_key_stops_before_clickhouse_and_stops_nobody_else(limited):
    """Of 200 at once as many questions reach ClickHouse as the limit has, and other keys, of the same project even, go on."""
    asked = 0
    real = limited.services.reader.rows

    async def counting(*arguments, **more):
        nonlocal asked
        asked += 1
        return await real(*arguments, **more)

    limited.services.reader.rows = counting
    try:
        await limited.logs(key=KEY_B)
        of_one, asked = asked, 0
        replies = await asyncio.gather(*(limited.logs() for _ in range(200)))
    finally:
        del limited.services.reader.rows
    assert sorted(reply.status for reply in replies) == [200] * LIMIT + [429] * (200 - LIMIT)
    assert asked == LIMIT * of_one > 0
    for key in (KEY_A2, KEY_B):
        assert (await limited.logs(key=key)).status == 200
    assert (await limited.post("/api/v3.1/org/usage/summary", {}, key=KEY_ORG)).status == 200


async def test_what_is_refused_for_its_key_is_not_counted(limited):
    """Guessed keys, no keys and keys that may not read hold no memory, and are told of no use of anybody."""
    for number in range(30):
        reply = await limited.logs(key=f"ak_guess_{number}")
        assert (reply.status, standing(reply)) == (401, (str(LIMIT), str(LIMIT), "60s"))
        assert (await limited.get("/v1/freshness", key=None)).status == 401
        assert (await limited.logs(key=KEY_INGEST)).status == 403
    assert len(limited.services.rate_limit) == 0


async def test_without_a_limit_the_headers_are_there_all_the_same(database):
    """Off by default: the same is announced with every answer, and none is refused."""
    async with query_service(database) as running:
        replies = await asyncio.gather(*(running.logs(key=KEY_A) for _ in range(50)))
    assert {reply.status for reply in replies} == {200}
    assert {standing(reply) for reply in replies} == {(str(ANNOUNCED_UNLIMITED), str(ANNOUNCED_UNLIMITED), "60s")}
