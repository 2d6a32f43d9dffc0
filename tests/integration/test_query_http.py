"""The edge: status codes, the Error body, headers, limits, and no answer of 500 to anything."""

import asyncio
import json
import signal
import socket
import subprocess
import sys

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from query_api.openapi.document import ADDRESS, api
from query_api.openapi.page import POLICY
from tests.support import rows
from tests.support.query_service import KEY_A, KEY_INGEST, KEY_ORG, query_service

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

LOGS = "/api/v3.1/logs/tool_execution"
SUMMARY = "/api/v3.1/project/usage/summary"
CALLS = "/api/v3.1/project/usage/tool_calls"
many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(clickhouse_url):
    with rows.fresh_database(clickhouse_url) as url:
        async with query_service(url) as running:
            yield running


def check_error(reply, status):
    """The Error body, its four required members of the right kind, and the request id in both places."""
    assert reply.status == status, reply.body
    error = reply.body["error"]
    assert isinstance(error["message"], str)
    assert isinstance(error["slug"], str)
    assert (error["status"], error["code"]) == (status, 10_000 + status)
    assert error["request_id"] == reply.headers["x-request-id"]
    assert "Traceback" not in str(reply.body)
    return error


@pytest.mark.parametrize(
    ("path", "body", "member"),
    [
        (LOGS, {"limit": 0}, "limit"),
        (LOGS, {"limit": 101}, "limit"),
        (LOGS, {"limit": 2.5}, "limit"),
        (LOGS, {"limit": "20"}, "limit"),
        (LOGS, {"limit": True}, "limit"),
        (LOGS, {"filters": {}}, "filters"),
        (LOGS, {"filters": [1]}, "filters.0"),
        (LOGS, {"filters": [{"field": "nonsense", "operator": "==", "value": ""}]}, "filters.0.field"),
        (LOGS, {"filters": [{"field": "status", "operator": "like", "value": ""}]}, "filters.0.operator"),
        (LOGS, {"filters": [{"field": "status", "operator": "==", "value": 1}]}, "filters.0.value"),
        (LOGS, {"filters": [{"field": "status", "operator": "=="}]}, "filters.0.value"),
        (LOGS, {"filters": [{"field": "status", "operator": "==", "value": "x"}] * 51}, "filters"),
        (LOGS, {"time_range": {"from": 1}}, "time_range.to"),
        (LOGS, {"time_range": {"from": "1", "to": 2}}, "time_range.from"),
        (LOGS, {"time_range": {"from": 3, "to": 2}}, "time_range"),
        (LOGS, {"time_range": [1, 2]}, "time_range"),
        (SUMMARY, {"from": 2, "to": 1}, "from"),
        (SUMMARY, {"from": 0, "to": 367 * 86_400_000}, "from"),
        (SUMMARY, {"time_range": {"from": 2, "to": 1}}, "from"),
        (SUMMARY, {"from": 1, "to": 2, "time_range": {"from": 1, "to": {}}}, "time_range.to"),
        (SUMMARY, {"entity_types": ["nonsense"]}, "entity_types"),
        (SUMMARY, {"filters": {"user_id": 5}}, "filters.user_id"),
        (SUMMARY, {"filters": {"user_id": ["a", None]}}, "filters.user_id.1"),
        (CALLS, {"group_by": "status"}, "group_by"),
        (CALLS, {"group_by": "project_id"}, "group_by"),
        (CALLS, {"order_by": "calls"}, "order_by"),
        (CALLS, {"order_direction": "up"}, "order_direction"),
        (CALLS, {"limit": 1001}, "limit"),
        ("/api/v3.1/project/usage/sessions", {"group_by": "tool_slug"}, "group_by"),
        ("/api/v3.1/project/usage/toolkit", {"group_by": "user_id"}, "group_by"),
        ("/api/v3.1/project/usage/nonsense", {}, "entity_type"),
    ],
)
async def test_each_fault_is_named_with_its_place(service, path, body, member):
    """400 with a line for the member."""
    error = check_error(await service.post(path, body), 400)
    assert any(line.startswith(f"Error in payload.{member}: ") for line in error["errors"]), error


@pytest.mark.parametrize(
    ("parameters", "member"),
    [
        ({"nonsense": "1"}, "nonsense"),
        ({"from": "yesterday"}, "from"),
        ({"from": "5", "to": "4"}, "from"),
        ({"from": "0", "to": str(400 * 86_400_000)}, "from"),
        ({"interval": "week"}, "interval"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"limit": "0"}, "limit"),
        ({"limit": "10001"}, "limit"),
        ({"limit": "2.5"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"group_by": "tool_slug,user_id,status"}, "group_by"),
        ({"group_by": "tool_slug,tool_slug"}, "group_by"),
        ({"group_by": "project_id"}, "group_by"),
        ({"order_by": "start"}, "order_by"),
        ({"order_direction": "up"}, "order_direction"),
        ({"interval": "minute", "from": "0", "to": str(366 * 86_400_000)}, "interval"),
        ([("limit", "1"), ("limit", "2")], "limit"),
    ],
)
async def test_each_fault_of_v1_usage_is_named(service, parameters, member):
    """400 with a line for the parameter; an unknown one is not passed over."""
    error = check_error(await service.get("/v1/usage", parameters), 400)
    assert any(line.startswith(f"Error in query.{member}: ") for line in error["errors"]), error


async def test_times_may_be_spelled_either_way(service):
    """Epoch ms, with a fraction or an exponent, or ISO 8601 with or without a zone; a plus lost to the URL is put back."""
    instant = 1_776_421_500_000
    for spelling in (str(instant), f"{instant}.9", "2026-04-17T10:25:00Z", "2026-04-17T10:25:00", "2026-04-17T12:25:00+02:00"):
        reply = await service.get("/v1/usage", {"from": spelling, "to": spelling})
        assert (reply.body["from"], reply.body["to"]) == (instant, instant)
    reply = await service.request("GET", "/v1/usage?from=2026-04-17T12:25:00+02:00&to=1.7764215e12", key=KEY_A)
    assert (reply.body["from"], reply.body["to"]) == (instant, instant)


async def test_unknown_members_and_nulls_are_passed_over_on_the_incumbents_routes(service):
    """An empty body, a body of nulls, and members of newer clients are all the same question."""
    nulls = {"limit": None, "cursor": None, "filters": None, "time_range": None, "from": None, "start_time": 5, "status": "x"}
    for path in (LOGS, SUMMARY, CALLS):
        for body in (b"", b"{}", b" \n", nulls):
            assert (await service.post(path, body)).status == 200
    assert (await service.post(LOGS, {"limit": 100.0})).status == 200


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'"x"', b"null", b"1", b"\xff\xfe", b'{"limit": NaN}', b'{"cursor": "\\ud800"}', b"[" * 9000]
)
async def test_what_is_no_json_object_is_400(service, body):
    """Not an error of ours."""
    check_error(await service.post(LOGS, body), 400)


async def test_a_body_beyond_the_limit_is_413(service):
    """The message holds the limit."""
    error = check_error(await service.post(LOGS, b" " * (1024 * 1024 + 1)), 413)
    assert "1048576" in error["message"]


async def test_routes_and_methods_that_are_not(service):
    """404 and 405 are Error bodies too; keys are asked for before anything else is said about a route that is."""
    check_error(await service.get("/nope", key=None), 404)
    assert check_error(await service.get(LOGS), 405) is not None
    check_error(await service.post(LOGS, {}, key=None), 401)
    check_error(await service.post(LOGS, {}, key=KEY_INGEST), 403)
    check_error(await service.post("/api/v3.1/org/usage/summary", {}), 403)
    error = check_error(await service.post(LOGS, {}, key="ak_wrong_key_of_somebody"), 401)
    assert error["slug"] == "HTTP_Unauthorized"
    assert error["message"] == "Invalid API key: ak_wrong*****"


async def test_every_answer_has_its_headers(service):
    """Request id (the caller's where it is sane), rate-limit headers, freshness."""
    reply = await service.post(LOGS, {}, headers={"x-request-id": "req_of_mine"})
    assert reply.headers["x-request-id"] == "req_of_mine"
    assert reply.headers["X-RateLimit-Window-Size"] == "60s"
    assert reply.headers["X-RateLimit"] == reply.headers["X-RateLimit-Remaining"] == "10000"
    # Nothing has reported yet, so nothing is claimed.
    assert reply.headers["x-complete-until"] == "1970-01-01T00:00:00.000Z"
    refused = await service.post(LOGS, {"limit": 0}, headers={"x-request-id": "bad id\twith spaces"})
    assert refused.headers["x-request-id"].startswith("req_")
    assert "X-RateLimit" in refused.headers


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = ["limit", "cursor", "filters", "time_range", "from", "to", "entity_types", "group_by", "order_by", "order_direction"]
bodies = st.dictionaries(st.sampled_from(names), json_values, max_size=4) | json_values


@many
@given(path=st.sampled_from([LOGS, SUMMARY, CALLS, "/api/v3.1/project/usage/sessions"]), body=bodies)
async def test_no_body_makes_a_500(service, path, body):
    """Any JSON, also of the right names and the wrong kinds, is answered or refused."""
    reply = await service.post(path, body)
    assert reply.status in (200, 400), reply.body
    if reply.status == 400:
        check_error(reply, 400)


@many
@given(
    parameters=st.dictionaries(
        st.sampled_from(["from", "to", "interval", "timezone", "limit", "order_by", "group_by", "tool_slug", "user_id", "x"]),
        st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | st.integers().map(str) | st.floats().map(str),
        max_size=4,
    )
)
async def test_no_query_makes_a_500(service, parameters):
    """Nor does any query string."""
    reply = await service.get("/v1/usage", parameters)
    assert reply.status in (200, 400), reply.body


async def test_the_api_page_and_its_document_need_no_key(service):
    """The page forbids itself everything but its style, and its command lines name the address it was asked at."""
    document = await service.get("/openapi.json", key=None)
    assert document.status == 200
    assert document.body == json.loads(json.dumps(api()))
    page = await service.get("/docs", key=None)
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == POLICY
    assert page.headers["x-content-type-options"] == "nosniff"
    assert f"export TOOLLEDGER_URL={service.url}\n".encode() in page.raw
    for host in ("ledger.example.com", "[::1]:8600"):
        named = await service.get("/docs", key=None, headers={"host": host})
        assert f"export TOOLLEDGER_URL=http://{host}\n".encode() in named.raw
    for host in ("odd<script>", 'odd"b', "odd b", "odd/b", "x" * 300):
        odd = await service.get("/docs", key=None, headers={"host": host})
        assert f"export TOOLLEDGER_URL={ADDRESS}\n".encode() in odd.raw
        assert host.encode() not in odd.raw


async def test_health_routes_need_no_key(service):
    """Alive, ready, measured."""
    assert (await service.get("/healthz", key=None)).body == {"status": "ok"}
    assert (await service.get("/readyz", key=None)).status == 200
    await service.post(LOGS, {"limit": 0})
    metrics = (await service.get("/metrics", key=None)).raw.decode()
    assert f'toolledger_http_seconds_count{{route="{LOGS}",service="query",status="400"}}' in metrics


async def test_a_question_over_the_caps_says_how_to_narrow_it(clickhouse_url):
    """Too slow is 504, too large is 400; both say what to do."""
    with rows.fresh_database(clickhouse_url) as url:
        async with query_service(url, query_time_s_max=1) as running:
            reader = running.services.reader
            with pytest.raises(Exception, match=r"took too long.*shorter time range") as caught:
                await reader.system_rows("SELECT sum(sleepEachRow(0.1)) FROM numbers(100) SETTINGS max_block_size = 1")
            assert caught.value.status == 504
        async with query_service(url, query_memory_bytes_max=64 * 1024 * 1024) as running:
            reader = running.services.reader
            with pytest.raises(Exception, match=r"too much memory.*shorter time range") as caught:
                await reader.system_rows("SELECT length(groupArray(toString(number))) FROM numbers(50000000)")
            assert caught.value.status == 400
            with pytest.raises(Exception, match="log says why") as caught:
                await reader.system_rows("CREATE TABLE t (a Int8) ENGINE = Memory")
            assert caught.value.status == 500, "writing must be refused"


async def test_without_clickhouse_or_its_schema_it_is_503(clickhouse_url):
    """With Retry-After, and not ready; back as soon as ClickHouse is."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with query_service(address) as running:
            reply = await running.logs()
            check_error(reply, 503)
            assert int(reply.headers["Retry-After"]) > 0
            check_error(await running.get("/readyz", key=None), 503)
            assert (await running.get("/healthz", key=None)).status == 200
    # A server that answers, but holds no tables of ours yet.
    async with query_service(clickhouse_url) as running:
        check_error(await running.logs(), 503)
        ready = check_error(await running.get("/readyz", key=None), 503)
        assert any("toolledger migrate" in line for line in ready["errors"])
        running.services.control.caught_up.clear()
        ready = check_error(await running.get("/readyz", key=None), 503)
        assert any("control topic" in line for line in ready["errors"])
        check_error(await running.post(LOGS, {}, key="ak_not_read_yet_perhaps"), 503)


async def test_the_process_starts_without_kafka_and_stops_cleanly(clickhouse_url):
    """Exit 0 on SIGTERM; a port in use is one line and exit 2."""
    command = [sys.executable, "-m", "query_api.run"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = await asyncio.to_thread(
            subprocess.run, command, env={"TOOLLEDGER_QUERY_PORT": port}, capture_output=True, timeout=60, check=False
        )
        assert refused.returncode == 2
        assert f"cannot listen on 127.0.0.1:{port}" in refused.stderr.decode().splitlines()[-1]
    environment = {"TOOLLEDGER_QUERY_PORT": "0", "TOOLLEDGER_CLICKHOUSE": clickhouse_url, "TOOLLEDGER_KAFKA": "127.0.0.1:9"}
    process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    line = await asyncio.wait_for(process.stderr.readline(), 60)
    assert b"query_listening" in line
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_an_organisations_key_reads_its_projects(service):
    """Routes of the organisation answer over all its projects."""
    reply = await service.post("/api/v3.1/org/usage/tool_calls", {"group_by": "project_id"}, key=KEY_ORG)
    assert reply.status == 200
    assert reply.body["groups"] == []
