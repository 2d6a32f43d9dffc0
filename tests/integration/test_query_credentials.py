"""Credentials on every operation of the query service: right, wrong, revoked, several, of another kind, or no text at all."""

import asyncio

import pytest
import pytest_asyncio

from query_api.http.app import OPERATIONS
from tests.support import rows
from tests.support.query_service import (
    KEY_A,
    KEY_A2,
    KEY_INGEST,
    KEY_ORG,
    KEY_ORG_EMPTY,
    KEY_READ,
    KEY_REVOKED,
    query_service,
)

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

# A key nobody has; long enough that what is masked of it cannot hold the rest.
SECRET = "ak_SecretOfSomebodyThatMustNotBeShown"
LONG = "ak_" + "Secret" * 9000
ALL = [(one.method, one.path, one.key) for one in OPERATIONS]
own = {"project": ("x-api-key", KEY_A), "org": ("x-org-api-key", KEY_ORG)}
other = {"project": ("x-org-api-key", KEY_ORG), "org": ("x-api-key", KEY_A)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(clickhouse_url):
    with rows.fresh_database(clickhouse_url) as url:
        async with query_service(url, kafka="127.0.0.1:1", query_replay_timeout_s=0.01) as running:
            yield running


def cases(kind):
    """(headers, status) for an operation that takes a key of a kind."""
    name, key = own[kind]
    yield from (
        ([], 401),
        ([(name, "")], 401),
        ([(name, " ")], 401),
        ([(name, SECRET)], 401),
        ([(name, key + "x")], 401),
        ([(name, key[:-1])], 401),
        ([(name, key.upper())], 401),
        ([(name, f'"{key}"')], 401),
        ([(name, f"Bearer {key}")], 401),
        ([(name, LONG)], 401),
        ([(name, "ak_" + "\u00fc\u00df" * 20)], 401),
        ([(name, "ak_\u7530\u4e2d-\U0001f511")], 401),
        ([("x-api-key", KEY_REVOKED)], 401),
        ([("x-api-key", "u" + SECRET)], 401),
        ([("x-api-key", KEY_ORG)], 401),
        ([("x-user-api-key", SECRET)], 401),
        ([("authorization", f"Bearer {key}")], 401),
        ([("cookie", f"session={key}; x-api-key={key}")], 401),
        # Two of whatever kind, even where each alone is good: which one was meant cannot be known.
        ([(name, key), (name, key)], 401),
        ([(name, key), (name, KEY_A2)], 401),
        ([own["project"], own["org"]], 401),
        ([(name, key), ("authorization", f"Bearer {key}")], 401),
        ([(name, key), ("x-user-api-key", SECRET)], 401),
        # Good keys of another kind.
        ([other[kind]], 403),
        ([("x-api-key", KEY_INGEST)], 403),
    )


@pytest.mark.parametrize(("method", "path", "kind"), ALL, ids=[f"{method} {path}" for method, path, _ in ALL])
async def test_only_one_good_key_of_the_right_kind_gets_in(service, method, path, kind):
    """401 or 403 before anything is said about the request itself, and no answer holds more of a key than its masked head."""
    target = path.replace("{entity_type}", "tool_calls").replace("{id:path}", "log_x").replace("{id}", "x")
    for headers, status in cases(kind):
        # Wrong in every other way too: that must not be told to somebody without a key.
        reply = await service.request(
            method, target, key=None, headers=headers, params={"limit": "x", "api_key": own[kind][1]}, data=b"{"
        )
        assert reply.status == status, (headers, reply.body)
        assert reply.body["error"]["slug"] == {401: "HTTP_Unauthorized", 403: "HTTP_Forbidden"}[status]
        assert reply.body["error"]["code"] == 10_000 + status
        shown = reply.raw.decode() + str(reply.headers)
        for _, value in headers:
            for secret in value.split():
                assert len(secret) < 12 or secret[8:] not in shown
    assert len(service.services.rate_limit) == 0


@pytest.mark.parametrize(("method", "path", "kind"), ALL, ids=[f"{method} {path}" for method, path, _ in ALL])
async def test_a_good_key_gets_in(service, method, path, kind):
    """With other headers beside it that are no credentials; a key that may only read is told so by what sends events alone."""
    target = path.replace("{entity_type}", "tool_calls").replace("{id:path}", "log_x").replace("{id}", "x")
    name, key = own[kind]
    beside = [("authorization", "Basic dTpw"), ("cookie", "x-api-key=nonsense"), ("x-project-id", ""), ("x-api-keys", "y")]
    # Of what has no end, only a question that is refused for another reason ends by itself.
    sent, statuses = ({"params": {"limit": "x"}}, (400,)) if target.endswith("/stream") else ({}, (200, 404))
    for headers in ([(name, key)], [(name.upper(), f"  {key}  ")], [(name, key), *beside]):
        reply = await service.request(method, target, key=None, headers=headers, **sent)
        assert reply.status in statuses, reply.body
    keys = {"project": [("x-api-key", KEY_READ)], "org": [("x-org-api-key", KEY_ORG_EMPTY)]}[kind]
    reply = await service.request(method, target, key=None, headers=keys, **sent)
    assert reply.status == 403 if path.endswith("/replay") else reply.status in statuses


@pytest.mark.parametrize(("path", "status"), [("/v1/usage", 400), ("/api/v3.1/logs/tool_execution", 200)])
async def test_a_key_in_the_url_is_no_credential(service, path, status):
    """It neither lets in nor counts beside the one in the header; and what is said of it does not repeat it."""
    method = "GET" if status == 400 else "POST"
    for name in ("api_key", "x-api-key", "apikey", "key", "access_token"):
        reply = await service.request(method, path, key=None, params={name: KEY_A})
        assert reply.status == 401
        reply = await service.request(method, path, key=KEY_READ, params={name: SECRET})
        assert reply.status == status
        assert SECRET[3:] not in reply.raw.decode() + str(reply.headers)


@pytest.mark.parametrize("value", [b"ak_\x00secret", b"ak_\x7fsecret", b"ak_\nsecret", b"ak_\x1b[31m"])
async def test_control_bytes_in_a_key_are_no_http(service, value):
    """400 with the Error body, or 401 where the line ends early; the connection then ends, and nobody is let in."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(service.url.rpartition(":")[2]))
    writer.write(b"GET /v1/freshness HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: " + value + b"\r\n\r\n")
    head, _, body = (await asyncio.wait_for(reader.read(), 60)).partition(b"\r\n\r\n")
    writer.close()
    assert head.split()[1] in (b"400", b"401")
    assert b"secret" not in body
