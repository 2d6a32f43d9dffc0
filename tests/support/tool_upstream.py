"""An upstream that runs tools, as raw as TCP: it notes each request byte for byte, and misbehaves as a test asks it to."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

HOST = "127.0.0.1"
RawHeaders = list[tuple[bytes, bytes]]


@dataclass(slots=True, kw_only=True)
class Request:
    """One request as it arrived; `body` without its chunks' frames."""

    method: str
    target: str
    headers: RawHeaders
    # Megabytes have no place in what a failed test says.
    body: bytes = field(default=b"", repr=False)

    def header(self, name: str) -> str | None:
        return next((value.decode("latin-1") for given, value in self.headers if given.lower() == name.encode()), None)

    def json(self) -> Any:
        return json.loads(self.body)


Behaviour = Callable[[Request, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes = b"", status: str = "200 OK", headers: RawHeaders | None = None, *, length: bool = True) -> bytes:
    """Return an answer's bytes."""
    given = headers if headers is not None else [(b"content-type", b"application/json")]
    lines = [b"%b: %b\r\n" % (name, value) for name, value in given]
    if length:
        lines.append(b"content-length: %d\r\n" % len(body))
    return b"HTTP/1.1 " + status.encode() + b"\r\n" + b"".join(lines) + b"\r\n" + body


def chunked(parts: list[bytes], headers: RawHeaders | None = None, trailers: bytes = b"") -> bytes:
    """Return an answer in chunks."""
    usual = [(b"content-type", b"application/json")]
    given = [*(usual if headers is None else headers), (b"transfer-encoding", b"chunked")]
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n" + trailers + b"\r\n"
    return answer(b"", headers=given, length=False) + body


def says(raw: bytes) -> Behaviour:
    """Answer with these bytes."""

    async def behave(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()

    return behave


def says_json(value: Any, status: str = "200 OK") -> Behaviour:
    """Answer with JSON."""
    return says(answer(json.dumps(value).encode(), status))


def aborts(after: bytes = b"") -> Behaviour:
    """Write these bytes and break the connection."""

    async def behave(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(after)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.transport.abort()

    return behave


@dataclass(slots=True)
class ToolUpstream:
    """One listening server. `behave` answers a request whose body was read; `before_body` is asked when only the head has come,
    and where it returns true nothing more is read."""

    behave: Behaviour = field(default_factory=lambda: says_json({"data": {}, "error": None, "successful": True}))
    before_body: Callable[[Request, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]] | None = None
    seen: list[Request] = field(default_factory=list, repr=False)
    connections: int = 0
    port: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def reset(self) -> None:
        """Forget what was seen, and behave well again."""
        self.behave = says_json({"data": {}, "error": None, "successful": True})
        self.before_body = None
        self.seen.clear()
        self.arrived.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        # Cancelled at the test's end, which would be told of as a fault.
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while not writer.transport.is_closing():
                request = _head(await reader.readuntil(b"\r\n\r\n"))
                self.seen.append(request)
                if self.before_body is not None and await self.before_body(request, reader, writer):
                    continue
                request.body = await _body(request, reader)
                self.arrived.set()
                await self.behave(request, reader, writer)
        writer.close()


@contextlib.asynccontextmanager
async def tool_upstream(port: int = 0, **more: Any) -> AsyncIterator[ToolUpstream]:
    """Run one until the block ends."""
    made = ToolUpstream()
    server = await asyncio.start_server(made.serve, HOST, port, limit=1 << 20, **more)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


@contextlib.contextmanager
def tool_upstream_in_thread(behave: Behaviour) -> Iterator[ToolUpstream]:
    """Run one beside a test that has no loop, until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    running = tool_upstream()
    made = asyncio.run_coroutine_threadsafe(running.__aenter__(), loop).result(30)
    made.behave = behave
    try:
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(running.__aexit__(None, None, None), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _head(raw: bytes) -> Request:
    line, *lines = raw[:-4].split(b"\r\n")
    method, target, _ = line.decode("latin-1").split(" ")
    pairs = [one.split(b": ", 1) for one in lines]
    return Request(method=method, target=target, headers=[(name, value) for name, value in pairs])


async def _body(request: Request, reader: asyncio.StreamReader) -> bytes:
    if request.header("transfer-encoding") == "chunked":
        parts = []
        while size := int(await reader.readuntil(b"\r\n"), 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
        return b"".join(parts)
    return await reader.readexactly(int(request.header("content-length") or 0))
