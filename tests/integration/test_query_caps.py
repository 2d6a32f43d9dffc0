"""A question over a cap is refused by ClickHouse itself, on every operation, with an answer that says how to narrow it."""

import contextlib

import pytest
import pytest_asyncio

from ingest.contract.store import client as open_client
from ingest.contract.tables import KIND_SESSION_DAY, KIND_TOOL_DAY, USAGE_WINDOWS
from query_api import store
from query_api.http.app import OPERATIONS
from tests.support import rows, worlds
from tests.support.query_service import KEY_A, KEY_ORG, query_service
from tests.support.questions import TAIL

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

RANGE = {"from": worlds.T0, "to": worlds.END_MS}
# No question that could be smaller is smaller than these; everything else of the caps stays as it is in force.
CAPS = {
    "memory": ({"max_memory_usage": 1, "max_untracked_memory": 0}, 400, "Query_TooLarge"),
    "rows": ({"max_result_rows": 1, "max_block_size": 1}, 400, "Query_TooLarge"),
    "bytes": ({"max_result_bytes": 1}, 400, "Query_TooLarge"),
    "time": ({"max_execution_time": 0.000001}, 504, "Query_TooSlow"),
}
# Operations that ask ClickHouse nothing of their own.
SILENT = (
    "/api/v3.1/internal/action_execution/fields",
    "/api/v3.1/internal/trigger/logs",
    "/api/v3.1/internal/trigger/log/{id:path}",
    "/v1/freshness",
    "/v1/key",
)
# A tail waits and tries again: there is nobody to tell of a cap once it has begun.
ASKED = [one for one in OPERATIONS if one.path != TAIL]
# Ends of operations whose questions have answers of one row; an export takes its pages as small as they have to be.
ONE_ROW = ("/{id:path}", "/{id}", "/summary", "/replay", "/export", "/verification")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(clickhouse_url):
    with rows.fresh_database(clickhouse_url) as url:
        with contextlib.closing(open_client(url)) as client:
            worlds.fill(client, ("proj_a", "proj_b"))
        async with query_service(url, kafka="127.0.0.1:1", query_replay_timeout_s=0.01, freshness_cache_s=5) as running:
            yield running


async def ask(service, operation):
    """Ask for what there is, so that there would be an answer of some rows."""
    log_id, letter_id = next(one["id"] for one in worlds.events() if one["project_id"] == "proj_a"), worlds.letter_ids()[0]
    path = operation.path.replace("{entity_type}", "tool_calls").replace("{id:path}", log_id).replace("{id}", letter_id)
    key = KEY_ORG if operation.key == "org" else KEY_A
    if operation.method == "POST":
        return await service.request("POST", path, key=key, json={} if "replay" in path else RANGE)
    takes_range = path in ("/v1/usage", "/v1/failures", "/v1/logs/export")
    parameters = {**RANGE, **({"group_by": "user_id"} if path == "/v1/usage" else {})} if takes_range else None
    return await service.request("GET", path, key=key, params=parameters)


@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize("operation", ASKED, ids=lambda one: f"{one.method} {one.path}")
async def test_each_cap_is_told_on_each_operation(service, operation, cap, monkeypatch):
    """400 for too much memory, rows or bytes, 504 for too long, both with what to do; the next question is answered."""
    added, status, slug = CAPS[cap]
    caps = service.services.reader._caps
    former = dict(caps)
    await service.services.freshness.get()
    caps.update(added)
    if cap == "bytes":
        # Pages of logs have a bound of their own, within which they are made shorter.
        monkeypatch.setattr(store, "PAGE_BYTES_MAX", added["max_result_bytes"])
    try:
        reply = await ask(service, operation)
    finally:
        caps.clear()
        caps.update(former)
        monkeypatch.undo()
    within = operation.path in SILENT or (cap == "rows" and operation.path.endswith(ONE_ROW))
    if within:
        # Kafka is away, so a replay of what was found ends there.
        assert reply.status in ((503,) if operation.path.endswith("/replay") else (200, 404))
        return
    assert (reply.status, reply.body["error"]["slug"]) == (status, slug)
    assert "shorter time range" in reply.body["error"]["message"]
    assert "shorter time range" in reply.body["error"]["suggested_fix"]
    assert "Retry-After" not in reply.headers
    assert (await ask(service, operation)).status in (200, 404, 503)


async def test_sessions_of_years_before_the_range_are_no_reason_to_refuse_it(service):
    """A short range is answered under a cap on memory that a million sessions before it would break; one of them all is not."""
    then = worlds.T0 - 30 * 24 * worlds.HOUR_MS
    with contextlib.closing(open_client(service.services.settings.clickhouse.get_secret_value())) as client:
        client.command(
            f"INSERT INTO {USAGE_WINDOWS} (kind, project_id, window_start, session_id, first_call, last_call_ms)"
            f" SELECT '{KIND_SESSION_DAY}', 'proj_a', toDateTime({then // 1000}, 'UTC'), toString(number), ({then}, ''), {then}"
            " FROM numbers(1000000)"
        )
    path = "/api/v3.1/project/usage/summary"
    before = await service.post(path, RANGE)
    caps = service.services.reader._caps
    former = dict(caps)
    caps["max_memory_usage"] = 48 * 1024 * 1024
    try:
        within = await service.post(path, RANGE)
        everything = await service.post(path, {**RANGE, "from": then})
        with contextlib.closing(open_client(service.services.settings.clickhouse.get_secret_value())) as client:
            # With the calls that those sessions would have had, what they weigh is known before they are counted.
            client.command(
                f"INSERT INTO {USAGE_WINDOWS} (kind, project_id, window_start, calls)"
                f" VALUES ('{KIND_TOOL_DAY}', 'proj_a', toDateTime({then // 1000}, 'UTC'), 1000000)"
            )
        service.services.past._kept.clear()
        known = await service.post(path, RANGE)
    finally:
        caps.clear()
        caps.update(former)
    assert (before.status, within.status, known.status) == (200, 200, 200)
    assert before.body == within.body == known.body
    assert (everything.status, everything.body["error"]["slug"]) == (400, "Query_TooLarge")
