"""One tenant's heavy questions leave room for another's, and what nobody waits for any more is stopped in ClickHouse."""

import asyncio
import contextlib

import aiohttp
import pytest
import pytest_asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from ingest.contract.errors import StoreUnavailable
from ingest.contract.store import client as open_client
from query_api.http.edge import Answer, endpoint, read_body
from query_api.tenant import Statement, Tenant
from tests.support import rows
from tests.support.ingest_service import eventually
from tests.support.query_service import KEY_A, query_service

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

A = Tenant(projects=("proj_a",), key_hash="a")
B = Tenant(projects=("proj_b",), key_hash="b")
# Told apart from all other questions by this name; ends by itself only after minutes.
_ENDLESS = "SELECT sum(sleepEachRow(0.2)) AS endless_{name} FROM numbers(3000) SETTINGS max_block_size = 1"


def slow(tenant):
    """A question of a third of a second."""
    return Statement(tenant=tenant, text="SELECT sleep(0.3)", values={})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(clickhouse_url):
    with rows.fresh_database(clickhouse_url) as url:
        yield url


@pytest.fixture(scope="module")
def running(database):
    """Tells which endless questions the engine is working on."""
    with contextlib.closing(open_client(database)) as store:

        def names():
            found = store.query("SELECT extract(query, 'endless_(\\\\w+)') FROM system.processes WHERE query LIKE '%endless_%'")
            return {name for (name,) in found.result_rows} - {"", "w"}

        yield names


@pytest.mark.parametrize("own_max", [2, 8])
async def test_a_light_question_goes_before_the_heavy_ones_of_another(database, own_max):
    """With 24 of A's asked before it, B's is answered after a handful of them, whether turns are left over for it or not."""
    async with query_service(database, query_in_flight_max=3, query_in_flight_per_project_max=own_max) as service:
        reader = service.services.reader
        heavy = [asyncio.create_task(reader.rows(slow(A))) for _ in range(24)]
        await eventually(_true_when(lambda: reader.queue.turns.waiting() >= 21))
        await reader.rows(Statement(tenant=B, text="SELECT 1", values={}))
        await reader.system_rows("SELECT 1")
        assert sum(task.done() for task in heavy) <= 6
        assert all(rows == [[0]] for rows in await asyncio.gather(*heavy))
        assert reader.queue.turns.tenants() == 0
        metrics = (await service.get("/metrics", key=None)).raw.decode()
        assert 'toolledger_query_questions{state="going"} 0.0' in metrics
        assert 'toolledger_query_questions{state="waiting"} 0.0' in metrics


async def test_readiness_keeps_no_answer_from_its_freshness(database):
    """Asked by anybody without a key, however often, it waits in a line of its own."""
    async with query_service(database, query_in_flight_max=2, query_in_flight_per_project_max=1) as service:
        reader = service.services.reader
        asked = [asyncio.create_task(reader.system_rows("SELECT sleep(0.3)", line="readiness")) for _ in range(12)]
        await eventually(_true_when(lambda: reader.queue.turns.waiting() == 11))
        assert (await service.get("/v1/freshness")).status == 200
        assert sum(task.done() for task in asked) <= 4
        await asyncio.gather(*asked)


async def test_too_much_at_once_is_429_over_http_and_the_others_do_not_notice(database):
    """With no room to wait, what is beyond the project's own turns is refused with a time; another project is served."""
    async with query_service(database, query_in_flight_per_project_max=1, query_waiting_per_project_max=0) as service:
        slow_one = asyncio.create_task(service.services.reader.rows(slow(A)))
        await eventually(_true_when(lambda: service.services.reader.queue.turns.going == 1))
        refused = await service.logs()
        assert refused.status == 429
        assert refused.body["error"]["slug"] == "Query_TooManyAtOnce"
        assert refused.body["message"] == refused.body["error"]["message"]
        assert int(refused.headers["Retry-After"]) < 60
        assert (await service.logs(key="ak_test_key_of_project_b")).status == 200
        assert await slow_one == [[0]]
        assert (await service.logs()).status == 200


async def test_a_cancelled_question_stops_in_clickhouse(database, running):
    """The engine lets go of it, and its turn is free again."""
    async with query_service(database, query_time_s_max=300) as service:
        reader = service.services.reader
        asking = asyncio.create_task(reader.rows(Statement(tenant=A, text=_ENDLESS.format(name="cancelled"), values={})))
        await eventually(_in_thread(lambda: "cancelled" in running()))
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        assert reader.queue.turns.going == 0
        await eventually(_in_thread(lambda: "cancelled" not in running()))


async def test_our_own_time_limit_stops_it_too(database, running, monkeypatch):
    """Where ClickHouse does not keep its time limit, ours does, and leaves nothing running."""
    monkeypatch.setattr("query_api.store._READ_SLACK_S", -298.5)
    async with query_service(database, query_time_s_max=300) as service:
        with pytest.raises(StoreUnavailable):
            await service.services.reader.rows(Statement(tenant=A, text=_ENDLESS.format(name="overdue"), values={}))
        await eventually(_in_thread(lambda: "overdue" not in running()))


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_caller_that_goes_away_stops_its_question(database, running, method):
    """However the connection ends, the question ends with it, in the service and in ClickHouse."""
    ended = asyncio.Event()

    async def handler(request, caller, services):
        if method == "POST":
            assert await read_body(request, bytes_max=1000) == b"body" * 10
        try:
            await services.reader.rows(Statement(tenant=caller.tenant(), text=_ENDLESS.format(name=method), values={}))
        finally:
            ended.set()
        return Answer(body=b"{}")

    async with query_service(database, query_time_s_max=300) as service:
        route = Route("/slow", endpoint(handler, service.services, route="/slow", key="project"), methods=[method])
        async with served(Starlette(routes=[route])) as url, aiohttp.ClientSession() as http:
            body = b"body" * 10 if method == "POST" else None
            question = asyncio.create_task(http.request(method, f"{url}/slow", data=body, headers={"x-api-key": KEY_A}))
            await eventually(_in_thread(lambda: method in running()))
            question.cancel()
            await asyncio.wait_for(ended.wait(), 60)
            await eventually(_in_thread(lambda: method not in running()))
        assert service.services.reader.queue.turns.going == 0
        assert service.services.reader.queue.turns.tenants() == 0


@contextlib.asynccontextmanager
async def served(application):
    """Serve an application for the length of the block."""
    server = uvicorn.Server(uvicorn.Config(application, port=0, lifespan="off", log_config=None, ws="none"))
    server.capture_signals = contextlib.nullcontext
    serving = asyncio.create_task(server.serve())
    await eventually(_true_when(lambda: server.started))
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


def _true_when(holds):
    async def condition():
        return holds()

    return condition


def _in_thread(holds):
    async def condition():
        return await asyncio.to_thread(holds)

    return condition
