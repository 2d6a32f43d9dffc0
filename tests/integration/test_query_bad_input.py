"""Rubbish on the wire: never a 500, never a trace, always the Error body with the request id."""

import asyncio
import gzip
import json
import os
import re
from dataclasses import dataclass

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from ingest.contract.store import client as open_client
from query_api.http.app import OPERATIONS
from tests.support import api_answers, rows, schemathesis
from tests.support.query_service import KEY_A, KEY_ORG, query_service

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

LOGS = "/api/v3.1/logs/tool_execution"
SUMMARY = "/api/v3.1/project/usage/summary"
LETTERS = "/v1/dead-letters/" + "0" * 32
# Of each random test; a long run takes thousands.
EXAMPLES = int(os.environ.get("TOOLLEDGER_TEST_EXAMPLES", "60"))
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(clickhouse_url):
    with rows.fresh_database(clickhouse_url) as url:
        events = [
            {"id": f"log_{at}", "timestamp": 1_776_384_000_000 + at, "user_id": "u", "session_id": "s"} for at in range(5)
        ]
        rows.insert(open_client(url), events)
        async with query_service(url) as running:
            yield running


async def exchange(service, sent: bytes) -> Raw:
    """Send bytes and read one answer."""
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(sent)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = 0 if sent.startswith(b"HEAD ") else int(headers.get("content-length", 0))
        body = await asyncio.wait_for(reader.readexactly(length), 60)
    finally:
        writer.close()
    return Raw(status=int(first.split()[1]), headers=headers, body=body)


def request(method, path, body=b"", *headers, key=KEY_A) -> bytes:
    """Write a request; text becomes the bytes of Latin-1."""
    name = "x-org-api-key" if key.startswith("oak_") else "x-api-key"
    lines = [f"{method} {path} HTTP/1.1", "host: ledger", f"{name}: {key}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def check(raw: Raw, *statuses) -> dict:
    """Hold an answer against what must be so whatever came; return its error."""
    assert raw.status < 500, raw
    assert not statuses or raw.status in statuses, raw
    if raw.status < 400 or not raw.body:
        return {}
    error = json.loads(raw.body)["error"]
    assert error["request_id"] == raw.headers["x-request-id"]
    assert (error["status"], error["code"]) == (raw.status, 10_000 + raw.status)
    assert b"Traceback" not in raw.body
    assert len(raw.body) < 100_000
    return error


NINES = "9" * 5000


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *(
            (f"/v1/{route}?{name}={sign}{NINES}", 400)
            for route in ("usage", "failures")
            for name in ("from",)
            for sign in ("", "+")
        ),
        (f"/v1/usage?to=-{NINES}", 200),
        (f"/v1/usage?limit={NINES}", 400),
        ("/v1/usage?from=1e400", 400),
        ("/v1/usage?limit=1e999999999999", 400),
        (f"/v1/usage/corrections?from=-{NINES}&window_to={NINES}", 200),
        (f"/v1/dead-letters?to={NINES}", 200),
        ("/v1/usage?from=%D9%A1%D9%A2", 400),
        ("/v1/usage?limit=%D9%A1", 400),
        ("/v1/usage?from=0001-01-01&to=0001-01-02", 200),
        ("/v1/usage?from=9999-12-31T23:59:59-14:00&to=9999-12-31T23:59:59-14:00", 200),
        ("/v1/usage?timezone=localtime", 400),
        ("/v1/usage?timezone=../../etc/passwd", 400),
        ("/v1/usage?timezone=%00", 400),
        ("/v1/usage?user_id=%00&tool_slug=%ff%fe", 200),
        ("/v1/usage?user_id=" + "x" * 50_000, 200),
        ("/v1/usage?=&&&=;", 400),
        ("/v1/usage?" + "%00" * 5000 + "=1", 400),
        ("/v1/usage?" + "x" * 70_000, 414),
        ("/v1/usage?from=0&to=1&interval=hour&timezone=Africa/Monrovia", 200),
        ("/v1/usage?from=8999999999999&to=9000000000000&interval=day&timezone=Pacific/Kiritimati", 200),
        ("/v1/usage/", 404),
        ("//v1/usage", 404),
        ("/v1//usage", 404),
        ("/v1/../v1/usage", 404),
        ("/v1/usage/%2e%2e/freshness", 404),
        ("/%00", 404),
        ("/%ff%zz%", 404),
        ("/" + "x" * 60_000, 404),
        (LOGS + "/%00", 404),
        (LOGS + "/%ed%a0%80", 404),
        (LOGS + "/", 404),
        (LOGS + "/" + "%00" * 5000, 404),
        (LOGS + "/" + "a" * 60_000, 404),
        (f"{LETTERS}-9999999999-1-1", 404),
        (f"{LETTERS}-1-9999999999999999999-1", 404),
        (f"{LETTERS}-1-1-9999999999", 404),
        ("/v1/usage/corrections?cursor=%00", 400),
        ("/v1/usage/corrections?cursor=" + "A" * 9000, 400),
        ("/v1/usage\xff", 400),
        ("/v1/usage?user_id=\xff", 400),
        ("http://elsewhere/v1/freshness", 200),
    ],
)
async def test_paths_and_parameters_that_nobody_means(service, path, status):
    """Numbers beyond every type, zones that are none, bytes that are no text, slashes too many: each has its answer."""
    check(await exchange(service, request("GET", path)), status)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"limit":NaN}', 400),
        (b'{"time_range":{"from":-Infinity,"to":Infinity}}', 400),
        (b'{"time_range":{"from":0,"to":1e400}}', 400),
        (b'{"limit":99999999999999999999999999}', 400),
        (b'{"time_range":{"from":-%s,"to":%s}}' % (b"9" * 300, b"9" * 300), 200),
        (b'{"limit":0,"limit":5}', 200),
        (b'{"x":' * 1000 + b"1" + b"}" * 1000, 200),
        (b'{"x":' * 100_000, 400),
        (b'{"cursor":"\xff"}', 400),
        (b'{"filters":[{"field":"user_id","operator":"==","value":"\\ud800"}]}', 400),
        (b'{"filters":[{"field":"user_id","operator":"==","value":"\\u0000"}]}', 200),
        (b"\xef\xbb\xbf{}", 200),
        ("{}".encode("utf-16"), 400),
        (json.dumps({"filters": [{"field": "user_id", "operator": "contains", "value": "x" * 1_000_000}]}).encode(), 200),
        (
            json.dumps(
                {"filters": [{"field": "text", "operator": "not_contains", "value": "\0" * (1000 - at)} for at in range(50)]}
            ).encode(),
            200,
        ),
        (json.dumps({"cursor": "A" * 100_000}).encode(), 400),
        (b" " * 5000, 200),
        (b"\0", 400),
    ],
    ids=range(18),
)
async def test_bodies_that_nobody_means(service, body, status):
    """What is no JSON is a 400, what is JSON is taken literally."""
    check(await exchange(service, request("POST", LOGS, body)), status)


async def test_a_body_that_is_packed_is_refused_by_name(service):
    """Not as broken JSON; `identity` is no packing. The content type is not looked at: curl sends one of forms."""
    packed = gzip.compress(b"{}")
    for encoding in ("gzip", "zstd", "br", "gzip, identity", "x" * 300):
        error = check(await exchange(service, request("POST", LOGS, packed, f"content-encoding: {encoding}")), 415)
        assert "content-encoding" in error["message"]
    for header in (
        "content-encoding: identity",
        "content-encoding:",
        "content-type: application/x-www-form-urlencoded",
        "content-type: \xff",
    ):
        check(await exchange(service, request("POST", LOGS, b"{}", header)), 200)
    check(await exchange(service, request("POST", "/v1/dead-letters/x/replay", packed, "content-encoding: gzip")), 415)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
async def test_every_other_method_is_405_with_those_that_are(service, operation):
    """Also HEAD, whose answer has no body, OPTIONS and TRACE."""
    path = operation.path.replace(":path", "").replace("{entity_type}", "tool_calls").replace("{id}", "x")
    taken = {one.method for one in OPERATIONS if one.path == operation.path}
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "HEAD"):
        if method in taken or (method == "HEAD" and "GET" in taken):
            continue
        raw = await exchange(service, request(method, path))
        check(raw, 405)
        assert set(raw.headers["allow"].split(", ")) - {"HEAD"} == taken
        assert raw.headers["x-request-id"]


async def test_headers_that_nobody_means(service):
    """Two keys, empty ones, bytes, an id that could break out of a header or a log line."""
    for value in ("a" * 5000, "\xff\xfe", "a b", 'a"b', ""):
        raw = await exchange(service, request("POST", LOGS, b"{}", f"x-request-id: {value}"))
        check(raw, 200)
        assert re.fullmatch(r"req_[0-9a-f]{16}", raw.headers["x-request-id"])
    for key, status in (("", 401), (" ", 401), ("\xff", 401), ("ak_" + "x" * 9000, 401), (KEY_A + "\t", 200)):
        check(await exchange(service, request("POST", LOGS, b"{}", key=key)), status)
    check(await exchange(service, request("POST", LOGS, b"{}", "x-api-key: another")), 401)
    check(await exchange(service, request("POST", LOGS, b"{}", "expect: 200-ok")), 200)
    for broken in (
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n",
        b"FOO / HTTP/1.1\r\n\r\n",
        request("POST", LOGS, b"{}", "content-length: 3"),
        request("POST", LOGS, b"{}", "transfer-encoding: chunked"),
        request("POST", LOGS, b"{}", "x\0y: 1"),
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ):
        check(await exchange(service, broken), 400, 404)
    check(await exchange(service, b"GET /v1/usage HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n"), 431)


targets = st.sampled_from(
    [
        (one.method, one.path.replace(":path", "").replace("{entity_type}", "{id}"), KEY_ORG if one.key == "org" else KEY_A)
        for one in OPERATIONS
        if not one.path.endswith("/stream")
    ]
)
# What stands in a URL as it is, and what is percent-encoded, broken or not.
url_text = st.lists(
    st.sampled_from(
        ["%00", "%ff", "%", "%2f", "%zz", "+", "&", "=", ";", "..", "/", "a", "9", "-", ".", ":", "from", "to", "limit", "T"]
    )
    | st.characters(min_codepoint=33, max_codepoint=126).filter(lambda one: one not in "#?"),
    max_size=12,
).map("".join)


@many
@given(target=targets, segment=url_text, query=url_text, body=st.binary(max_size=40) | st.just(b"{}"))
@example(target=("GET", "/v1/usage", KEY_A), segment="", query="from=" + NINES, body=b"")
async def test_no_bytes_make_a_500(service, target, segment, query, body):
    """Any path segment, query and body, on every route: an answer that the document tells of."""
    method, path, key = target
    sent_path = path.replace("{id}", segment or "x")
    raw = await exchange(service, request(method, f"{sent_path}?{query}", body if method == "POST" else b"", key=key))
    check(raw)
    is_json = raw.headers.get("content-type", "").startswith("application/json")
    if "{id}" not in path:
        api_answers.check(method, path, raw.status, CIMultiDict(raw.headers), json.loads(raw.body) if is_json else None)


async def test_requests_made_from_the_document_are_answered_as_it_tells(service, tmp_path):
    """Whatever its schemas allow or forbid, at their borders and at random, for keys of both kinds."""
    for key, selection in (
        # The public address answers for machines, takes events and runs tools; a live tail has no end.
        (
            KEY_A,
            (
                "--exclude-path-regex",
                "/org/|/stream|/tools/execute|/tool_router/|^/v1/(events|traces)|^/(healthz|readyz|metrics)",
            ),
        ),
        (KEY_ORG, ("--include-path-regex", "/org/")),
    ):
        await schemathesis.run(service.url, key, *selection, folder=tmp_path)
