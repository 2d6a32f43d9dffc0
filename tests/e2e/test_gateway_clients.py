"""The official clients, unmodified, pointed at us: they run a tool at an upstream and find its log by the returned id."""

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import official_clients
from tests.support.client_api import Api
from tests.support.official_clients import Client
from tests.support.pipeline import eventually
from tests.support.stack import Stack
from tests.support.tool_upstream import Request, ToolUpstream, answer, tool_upstream_in_thread

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

UPSTREAM_KEY = "ak_of_the_upstream"
SESSION = {
    "session_id": "trs_1",
    "mcp": {"type": "http", "url": "http://127.0.0.1:1/mcp"},
    "tool_router_tools": [],
    "config": {
        "user_id": "user_1",
        "instant": False,
        "preload": {"tools": []},
        "search": {"enable": True},
        "execute": {"enable_multi_execute": True},
    },
    "config_version": 1,
    "experimental": None,
}
TOOL = {
    "slug": "GMAIL_SEND_EMAIL",
    "name": "Send",
    "description": "",
    "toolkit": {"slug": "gmail", "name": "Gmail", "logo": ""},
}
SCHEMA = {"type": "object", "properties": {}}


class Vendor:
    """Answers as the vendor does: with a `log_id`, which can be left out."""

    def __init__(self) -> None:
        self.with_log_id = True
        self.executions = 0

    async def __call__(self, request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status, body = self._answer(request) if request.header("x-api-key") == UPSTREAM_KEY else ("401 Unauthorized", {})
        writer.write(answer(json.dumps(body).encode(), status))
        await writer.drain()

    def _answer(self, request: Request) -> tuple[str, dict[str, Any]]:
        path = request.target.partition("?")[0]
        if request.method == "GET":
            return "200 OK", TOOL | {"input_parameters": SCHEMA, "output_parameters": SCHEMA, "version": "v1", "tags": []}
        if path.endswith("/tool_router/session"):
            return "201 Created", SESSION
        self.executions += 1
        named = {"log_id": f"log_vendor_{self.executions:04d}"} if self.with_log_id else {}
        failed = request.json().get("arguments", {}).get("fail")
        told = {"data": {"echo": request.json().get("arguments")}, "error": "Invalid recipient" if failed else None, **named}
        if "/tool_router/" in path:
            return "200 OK", {"result_type": "failed" if failed else "completed", **told}
        return "200 OK", {"successful": not failed, **told}


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture(scope="module")
def upstream(vendor: Vendor) -> Iterator[ToolUpstream]:
    with tool_upstream_in_thread(vendor) as running:
        yield running


@pytest.fixture(scope="module")
def stack(upstream: ToolUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    env = {"TOOLLEDGER_UPSTREAM": upstream.url, "TOOLLEDGER_UPSTREAM_API_KEY": UPSTREAM_KEY}
    made = Stack(tmp_path_factory.mktemp("gateway"), env=env)
    made.start()
    try:
        made.key = made.create_key("acme")
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Client]]:
    if os.environ.get(official_clients.SKIP) == "no":
        pytest.skip(f"not run: {official_clients.HOW}")
    try:
        commands = official_clients.commands()
    except official_clients.RegistryUnreachable:
        pytest.skip(f"not run: {official_clients.HOW}")
    folder = tmp_path_factory.mktemp("clients")
    made = {name: Client(command, folder) for name, (command, _) in commands.items()}
    made["js"] = Client(*commands["js"])
    yield made
    for client in made.values():
        client.end()


# How each client runs a tool, alone and in a session; what it calls the arguments is the same.
RUNS: dict[str, tuple[str, str]] = {
    "rc22": ("tools.execute", "tool_router.session.execute"),
    "rc22-strict": ("tools.execute", "tool_router.session.execute"),
    "rc22-async": ("tools.execute", "tool_router.session.execute"),
    "sdk": ("client.tools.execute", "client.tool_router.session.execute"),
    "js": ("tools.execute", "toolRouter.session.execute"),
    "old": ("tools.execute", "tool_router.session.execute"),
}


@pytest.mark.parametrize("fails", [False, True], ids=["success", "failure"])
@pytest.mark.parametrize("with_log_id", [True, False], ids=["vendors-id", "id-of-ours"])
@pytest.mark.parametrize("kind", RUNS)
def test_a_tool_is_run_and_its_log_found_by_the_returned_id(
    stack: Stack, vendor: Vendor, clients: dict[str, Client], kind: str, with_log_id: bool, fails: bool
) -> None:
    """Whoever gives the id, alone and in a session: the client's own log call has request, answer, user, session and status."""
    vendor.with_log_id = with_log_id
    assert stack.up is not None
    api = Api(kind, clients[kind.partition("-")[0]], url=stack.up.ready["url"], key=stack.key)
    alone, in_session = RUNS[kind]
    arguments = {"to": "a@b.c", "fail": fails}
    ran = {
        "alone": api.raw(alone, "GMAIL_SEND_EMAIL", body={"user_id": "user_1", "arguments": arguments}),
        "session": api.raw(in_session, "trs_1", body={"tool_slug": "GMAIL_SEND_EMAIL", "arguments": arguments}),
    }
    for how, said in ran.items():
        assert "error" not in said, said
        log_id = said["result"]["log_id"]
        assert log_id.startswith("log_vendor_") == with_log_id
        log = eventually("the log is there", lambda api=api, log_id=log_id: _log(stack, api, log_id))
        assert (log["id"], log["status"]) == (log_id, "failed" if fails else "success")
        assert log["metadata"]["tool_slug"] == "GMAIL_SEND_EMAIL"
        assert log["data"]["request"]["arguments"] == arguments
        assert log["data"]["response"]["data"] == {"echo": arguments}
        assert log["metadata"].get("user_id" if how == "alone" else "session_id") == ("user_1" if how == "alone" else "trs_1")
        if fails:
            assert log["message"] == "GMAIL_SEND_EMAIL failed: Invalid recipient"


def _log(stack: Stack, api: Api, log_id: str) -> dict[str, Any] | None:
    """Ask with the client where it has the call, else over HTTP as its users do."""
    if not api.names.detail:
        reply = stack.get(f"/api/v3.1/logs/tool_execution/{log_id}")
        return dict(reply.json()) if reply.status_code == 200 else None
    said = api.raw(api.names.detail, log_id)
    return dict(said["result"]) if "result" in said else None


def test_the_sdk_as_its_documentation_uses_it(stack: Stack, vendor: Vendor, clients: dict[str, Client]) -> None:
    """`composio.tools.execute` asks for the tool's schema first, which passes through; a session made through us has a user."""
    vendor.with_log_id = True
    assert stack.up is not None
    api = Api("sdk", clients["sdk"], url=stack.up.ready["url"], key=stack.key)
    body = {
        "slug": "GMAIL_SEND_EMAIL",
        "arguments": {"to": "a@b.c"},
        "user_id": "user_1",
        "dangerously_skip_version_check": True,
    }
    said = api.raw("tools.execute", body=body)
    assert said["result"] == {"data": {"echo": {"to": "a@b.c"}}, "error": None, "successful": True}
    body = {"tool_slug": "GMAIL_SEND_EMAIL", "arguments": {"to": "s@b.c"}}
    ran = api.raw("execute", body=body, through={"call": "create", "kwargs": {"user_id": "user_1"}}, peek=["log_id"])
    assert "error" not in ran, ran
    ((_, log_id),) = ran["peeked"]
    log = eventually("the log is there", lambda: _log(stack, api, log_id))
    assert (log["metadata"]["user_id"], log["metadata"]["session_id"]) == ("user_1", "trs_1")
    assert log["source"]["host"] == "sdk"
    assert log["source"]["language"] == "python"
    assert stack.proved().proved


def test_calls_with_one_idempotency_key_or_one_id_count_once(stack: Stack, vendor: Vendor) -> None:
    """Each is run, because only the upstream can tell that it need not; usage and logs have one."""
    path = "/api/v3/tools/execute/ONCE_AND_AGAIN"
    vendor.with_log_id, before = False, vendor.executions
    ids = {stack.post(path, {"user_id": "once"}, **{"idempotency-key": "k"}).json()["log_id"] for _ in range(3)}
    vendor.with_log_id = True
    for _ in range(2):
        vendor.executions = 9000
        ids.add(stack.post(path, {"user_id": "once"}).json()["log_id"])
    vendor.executions = before
    assert stack.proved().proved
    asked = {"filters": [{"field": "user_id", "operator": "==", "value": "once"}]}
    found = stack.post("/api/v3.1/logs/tool_execution", asked).json()["logs"]
    assert len(ids) == 2
    assert {log["id"] for log in found} == ids
    assert len(found) == 2
    assert stack.get("/v1/usage", tool_slug="ONCE_AND_AGAIN").json()["totals"]["calls"] == 2
