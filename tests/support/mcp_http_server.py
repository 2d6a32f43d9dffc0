"""A small MCP server over streamable HTTP, whose answers a test releases piece by piece."""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from tests.support.ports import HOST, free_port

SESSION = "a session of the server"


@dataclass(slots=True)
class Seen:
    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass(slots=True)
class McpHttpServer:
    """What it has seen; `go` lets an event stream go on behind its first event, `left` is set when a client leaves."""

    port: int
    seen: list[Seen] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/mcp"

    @classmethod
    @contextmanager
    def start(cls) -> "Iterator[McpHttpServer]":
        server = cls(free_port())
        config = uvicorn.Config(
            server.app,
            host=HOST,
            port=server.port,
            log_config=None,
            lifespan="off",
            interface="asgi3",
            timeout_graceful_shutdown=1,
        )
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.go.set()
            running.should_exit = True
            thread.join(30)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (message := await receive()).get("more_body"):
            body += message.get("body", b"")
        body += message.get("body", b"")
        target = (scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")).decode()
        self.seen.append(Seen(scope["method"], target, list(scope["headers"]), body))
        if target.startswith("/old"):
            await answer(send, 307, b"", location=f"http://{HOST}:{self.port}/mcp?from=old")
        elif scope["method"] == "GET":
            last = dict(scope["headers"]).get(b"last-event-id", b"").decode()
            await self._stream(send, receive, [(f"{last}+1", result(7, "resumed"))] if last else [])
        elif scope["method"] == "DELETE":
            await answer(send, 200, b"")
        else:
            await self._post(json.loads(body), receive, send)

    async def _post(self, request: Any, receive: Any, send: Any) -> None:
        id_ = request.get("id")
        tool = request.get("params", {}).get("name")
        if request["method"] == "initialize":
            info = {"protocolVersion": "2025-11-25", "serverInfo": {"name": "released", "version": "1"}}
            said = json.dumps({"jsonrpc": "2.0", "id": id_, "result": info}).encode()
            await answer(send, 200, said, **{"content-type": "application/json", "mcp-session-id": "ses-of-the-server"})
        elif tool == "json":
            await answer(send, 200, json.dumps(result(id_, "é")).encode(), **{"content-type": "application/json"})
        elif tool == "gzip":
            said = gzip.compress(json.dumps(result(id_, "packed")).encode())
            await answer(send, 200, said, **{"content-type": "application/json", "content-encoding": "gzip"})
        elif tool == "large":
            said = json.dumps(result(id_, "x" * 30_000_000)).encode()
            await answer(send, 200, said, **{"content-type": "application/json"})
        elif tool == "events":
            told = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "first"}}
            await self._stream(send, receive, [("1", told), None, ("2", result(id_, "second"))])
        elif tool == "to_be_resumed":
            await self._stream(send, receive, [("9", None)], ends=True)
        elif tool == "break_off":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
            await send({"type": "http.response.body", "body": b": hello\n\n", "more_body": True})
        elif tool == "refuse":
            said = b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Session not found"}}'
            await answer(send, 404, said, **{"content-type": "application/json"})
        else:
            await answer(send, 202, b"")

    async def _stream(self, send: Any, receive: Any, events: Any, *, ends: bool = False) -> None:
        """Send events; at a None, and at the end unless it `ends`, wait until a test says so or the client leaves."""
        import asyncio  # noqa: PLC0415

        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for event in events:
            if event is None:
                while not self.go.is_set():
                    try:
                        await asyncio.wait_for(receive(), 0.02)
                    except TimeoutError:
                        continue
                    self.left.set()
                    return
                continue
            data = "" if event[1] is None else json.dumps(event[1])
            await send({"type": "http.response.body", "body": f"id: {event[0]}\ndata: {data}\n\n".encode(), "more_body": True})
        if ends or events:
            await send({"type": "http.response.body", "body": b""})
            return
        await send({"type": "http.response.body", "body": b": open\n\n", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()


def result(id_: Any, text: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id_, "result": {"content": [{"type": "text", "text": text}], "isError": False}}


async def answer(send: Any, status: int, body: bytes, **headers: str) -> None:
    given = [(name.encode(), value.encode()) for name, value in headers.items()]
    given += [(b"content-length", str(len(body)).encode()), (b"x-twice", b"1"), (b"x-twice", b"2"), (b"set-cookie", b"a=b")]
    await send({"type": "http.response.start", "status": status, "headers": given})
    await send({"type": "http.response.body", "body": body})
