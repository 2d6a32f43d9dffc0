"""Official MCP clients and servers, unmodified, with `toolledger mcp` between them; what `toolledger logs` then shows."""

import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import official_clients
from tests.support.mcp import Ledger, Proxied
from tests.support.ports import free_port
from tests.support.stack import ROOT, Stack

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

CLIENTS = Path(__file__).parents[1] / "clients"


@pytest.fixture(scope="module")
def programs() -> tuple[dict[str, Path], list[str]]:
    if os.environ.get(official_clients.SKIP) == "no":
        pytest.skip(f"not run: {official_clients.HOW}")
    try:
        return official_clients.mcp_programs()
    except official_clients.RegistryUnreachable:
        pytest.skip(f"not run: {official_clients.HOW}")


@pytest.fixture(scope="module")
def stack(programs: object, shared_stack: Stack) -> Stack:
    shared_stack.key = shared_stack.create_key("mcp")
    return shared_stack


def wrapper(session: str, *options: str) -> list[str]:
    return [str(ROOT / ".venv" / "bin" / "toolledger"), "mcp", "--user", "user_1", "--session", session, *options]


def ask(stack: Stack, python: Path, **scenario: Any) -> dict[str, Any]:
    """Run the SDK's client and return what it says."""
    assert stack.up is not None
    ours = {"TOOLLEDGER_URL": stack.up.ready["url"], "TOOLLEDGER_API_KEY": stack.key}
    done = subprocess.run(
        [str(python), str(CLIENTS / "mcp_client.py"), json.dumps(scenario)],
        env={**{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}, **ours},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def logged(stack: Stack, session: str, count: int) -> list[dict[str, Any]]:
    """Wait until `toolledger logs` shows so many calls of a session, and return them, oldest first, in full."""
    deadline = time.monotonic() + 60
    key = {"TOOLLEDGER_API_KEY": stack.key}
    while True:
        shown = stack.toolledger("logs", "--session", session, "--json", env=key).splitlines()
        if len(shown) >= count or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    logs = [json.loads(stack.toolledger("log", json.loads(line)["id"], "--json", env=key)) for line in reversed(shown)]
    assert len(logs) == count, logs
    return logs


CALLS = [
    {"tool": "add", "arguments": {"a": 1, "b": 2}},
    {"tool": "fail", "arguments": {"why": "invalid recipient"}},
    {"tool": "no_such_tool"},
    {"tool": "wait", "arguments": {"steps": 5}},
    {"tool": "wait", "arguments": {"steps": 2_000}, "cancel_after_s": 0.5},
    {"tool": "add", "arguments": {"a": 3, "b": 4}},
]


def check(client: str, answers: list[dict[str, Any]], logs: list[dict[str, Any]]) -> None:
    """Hold what the client got against what was recorded."""
    tools = ("ADD", "FAIL", "NO_SUCH_TOOL", "WAIT", "WAIT", "ADD")
    assert [log["metadata"]["tool_slug"] for log in logs] == [f"WEATHER_DESK_{tool}" for tool in tools]
    assert [log["status"] for log in logs] == ["success", "failed", "failed", "success", "failed", "success"]
    for answer, log in zip(answers, logs, strict=True):
        if not answer.get("cancelled"):
            assert log["data"]["response"]["content"] == answer["content"]
    assert answers[3]["progress"] == logs[3]["metadata"]["mcp.progress.count"] == 5
    assert logs[0]["data"]["request"] == {"a": 1, "b": 2}
    assert logs[2]["message"] == "WEATHER_DESK_NO_SUCH_TOOL failed: Unknown tool: no_such_tool"
    # The first generation does not tell the server that it has stopped waiting.
    why = "connection closed: the" if client == "mcp-1" else "cancelled by the client"
    assert f"failed: {why}" in logs[4]["message"]
    assert {log["metadata"]["mcp.server.name"] for log in logs} == {"Weather-Desk"}


@pytest.mark.parametrize(
    ("client", "server", "handshake"),
    [("mcp", "mcp", True), ("mcp", "mcp", False), ("mcp-1", "mcp-1", True), ("mcp-1", "mcp", True), ("mcp", "mcp-1", True)],
)
def test_over_stdio(
    stack: Stack, programs: tuple[dict[str, Path], list[str]], client: str, server: str, handshake: bool
) -> None:
    """Both generations of client and server, with and without the handshake; at last the server ends within a call."""
    session = f"ses_{uuid.uuid4().hex[:12]}"
    command = [*wrapper(session), "--", str(programs[0][server]), str(CLIENTS / "mcp_server.py"), "stdio"]
    calls = [*CALLS, {"tool": "leave"}]
    said = ask(stack, programs[0][client], command=command, calls=calls, handshake=handshake)
    *answers, left = said["answers"]
    assert "raised" in left
    *logs, last = logged(stack, session, len(calls))
    check(client, answers, logs)
    assert last["message"].endswith("connection closed: the server exited with code 7 before it answered")
    assert handshake or said["version"] == logs[0]["metadata"]["mcp.protocol.version"] >= "2026-07-28"


@contextmanager
def http_server(*command: str, port: int, env: dict[str, str] | None = None) -> Iterator[None]:
    process = subprocess.Popen(command, env={**os.environ, **(env or {})}, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert process.poll() is None, f"{command} ended"
                assert time.monotonic() < deadline, f"{command} does not listen"
                time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("client", "server", "handshake"),
    [("mcp", "mcp", True), ("mcp", "mcp", False), ("mcp-1", "mcp-1", True), ("mcp-1", "mcp", True)],
)
def test_over_http(
    stack: Stack, programs: tuple[dict[str, Path], list[str]], client: str, server: str, handshake: bool
) -> None:
    """Sessions, progress over event streams, and both ways to cancel."""
    session = f"ses_{uuid.uuid4().hex[:12]}"
    port = free_port()
    assert stack.up is not None
    ledger = Ledger(kafka="", url=stack.up.ready["url"], key=stack.key, since={})
    with (
        http_server(str(programs[0][server]), str(CLIENTS / "mcp_server.py"), "http", str(port), port=port),
        Proxied(ledger, f"http://127.0.0.1:{port}/mcp", "--session", session) as proxied,
    ):
        said = ask(stack, programs[0][client], url=proxied.url, calls=CALLS, handshake=handshake)
        check(client, said["answers"], logged(stack, session, len(CALLS)))


def test_official_servers_over_stdio(stack: Stack, programs: tuple[dict[str, Path], list[str]], tmp_path: Path) -> None:
    """`mcp-server-time` and `mcp-server-sqlite`, as their users start them."""
    session = f"ses_{uuid.uuid4().hex[:12]}"
    pythons = programs[0]
    clock = [*wrapper(session), "--", str(pythons["mcp"]), "-m", "mcp_server_time", "--local-timezone", "Europe/Berlin"]
    calls: list[dict[str, Any]] = [
        {"tool": "get_current_time", "arguments": {"timezone": "Asia/Tokyo"}},
        {"tool": "get_current_time", "arguments": {"timezone": "Nowhere/At_All"}},
    ]
    told = ask(stack, pythons["mcp"], command=clock, calls=calls)["answers"]
    base = str(pythons["mcp-1"].with_name("mcp-server-sqlite"))
    store = [*wrapper(session, "--toolkit", "sqlite"), "--", base, "--db-path", str(tmp_path / "test.db")]
    queries = [{"tool": "read_query", "arguments": {"query": "SELECT 40 + 2 AS answer"}}]
    told += ask(stack, pythons["mcp-1"], command=store, calls=queries)["answers"]
    logs = logged(stack, session, 3)
    assert [log["metadata"]["tool_slug"] for log in logs] == [
        *("MCP_TIME_GET_CURRENT_TIME", "MCP_TIME_GET_CURRENT_TIME", "SQLITE_READ_QUERY")
    ]
    assert [log["status"] for log in logs] == ["success", "failed", "success"]
    for answer, log in zip(told, logs, strict=True):
        assert "raised" in answer or log["data"]["response"]["content"] == answer["content"]
    assert "42" in json.dumps(logs[2]["data"]["response"])


EVERYTHING: list[dict[str, Any]] = [
    {"tool": "echo", "arguments": {"message": "good morning"}},
    {"tool": "get-sum", "arguments": {"a": 2, "b": 3}},
    {"tool": "trigger-long-running-operation", "arguments": {"duration": 1, "steps": 3}},
    {"tool": "get-tiny-image"},
    {"tool": "get-sum", "arguments": {"a": "two"}},
]


@pytest.mark.parametrize("transport", ["stdio", "streamableHttp"])
def test_the_server_that_does_everything(stack: Stack, programs: tuple[dict[str, Path], list[str]], transport: str) -> None:
    """The official reference server for Node, over both transports; over HTTP it can take streams up again."""
    session = f"ses_{uuid.uuid4().hex[:12]}"
    pythons, everything = programs
    if transport == "stdio":
        told = ask(stack, pythons["mcp"], command=[*wrapper(session), "--", *everything, "stdio"], calls=EVERYTHING)["answers"]
        logs = logged(stack, session, len(EVERYTHING))
    else:
        port = free_port()
        assert stack.up is not None
        ledger = Ledger(kafka="", url=stack.up.ready["url"], key=stack.key, since={})
        with (
            http_server(*everything, transport, port=port, env={"PORT": str(port)}),
            Proxied(ledger, f"http://127.0.0.1:{port}/mcp", "--session", session) as proxied,
        ):
            told = ask(stack, pythons["mcp"], url=proxied.url, calls=EVERYTHING)["answers"]
            logs = logged(stack, session, len(EVERYTHING))
    assert [log["status"] for log in logs] == [*["success"] * 4, "failed"]
    for answer, log in zip(told, logs, strict=True):
        assert "raised" in answer or log["data"]["response"]["content"] == answer["content"]
    assert logs[2]["metadata"]["mcp.progress.count"] == told[2]["progress"] > 0


def test_the_counts_agree(stack: Stack) -> None:
    """After all of them: logs = usage = receipts."""
    assert stack.proved().proved
