"""A proxy in front of ClickHouse that goes wrong on demand: refuses, hangs, trickles, answers with errors, loses answers.

It runs in a thread of the test and speaks plain HTTP/1.1, one request a connection. What goes wrong is switched at any
moment, for every statement or only for inserts or only for questions.
"""

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Final, Literal
from urllib.parse import parse_qs, urlsplit

from deploy.embedded.clickhouse.errors import ClickHouseError
from tests.support.ports import HOST, free_port

How = Literal[
    "pass",  # nothing is wrong
    "refuse",  # nobody listens
    "hang",  # connections are taken, nothing is ever answered
    "trickle",  # the answer comes in drops: the head of an insert's, the body of a question's
    "delay",  # everything takes `seconds` longer
    "read_only",  # as to a user of profile readonly = 1
    "error",  # ClickHouse itself says no, with `code`
    "lose_answer",  # the statement is carried out, and the connection cut instead of an answer
    "apply_late",  # the connection is cut at once, and the statement carried out `seconds` later
    "cut_request",  # half of the request reaches ClickHouse, then both connections break
    "garbage",  # 200 and a page that is not ClickHouse's
    "empty",  # 200 and nothing
    "noise",  # 200 and bytes that look like numbers and lengths
    "cut_answer",  # the head of the answer and half of its body
]
Which = Literal["all", "inserts", "selects"]

# What a real server says. Source: ClickHouse, src/Common/ErrorCodes.cpp and the places that throw them.
_SAID: Final = {
    164: ("READONLY", "default: Cannot execute query in readonly mode."),
    202: ("TOO_MANY_SIMULTANEOUS_QUERIES", "Too many simultaneous queries. Maximum: 100."),
    241: (
        "MEMORY_LIMIT_EXCEEDED",
        "(total) memory limit exceeded: would use 14.40 GiB (attempt to allocate chunk of 4.00 MiB bytes),"
        " current RSS: 14.40 GiB, maximum: 14.40 GiB. OvercommitTracker decision: Query was selected to stop by"
        " OvercommitTracker.",
    ),
    242: ("TABLE_IS_READ_ONLY", "Table is in readonly mode due to static storage"),
    243: ("NOT_ENOUGH_SPACE", "Cannot reserve 1.00 MiB, not enough space"),
    252: (
        "TOO_MANY_PARTS",
        "Too many parts (3000 with average size of 1.23 KiB) in table 'default.usage_windows'."
        " Merges are processing significantly slower than inserts.",
    ),
    999: ("KEEPER_EXCEPTION", "Coordination::Exception: Connection loss"),
}
CODES: Final = tuple(_SAID)
# Said of questions alone.
TIMEOUT_EXCEEDED: Final = 159
_SAID_OF_QUESTIONS: Final = {TIMEOUT_EXCEEDED: ("TIMEOUT_EXCEEDED", "Timeout exceeded: elapsed 10000.9 ms, maximum: 10000 ms.")}
_VERSION: Final = "26.9.1.1"
_STATEMENT: Final = re.compile(rb"^\s*([a-zA-Z]+)")
_PAGES: Final = {"garbage": b"<html><body><h1>It works!</h1></body></html>", "empty": b"", "noise": bytes(range(1, 256)) * 8}
_TRICKLE_S: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong, and with which statements."""

    how: How = "pass"
    only: Which = "all"
    code: int = 0
    seconds: float = 0.0


PASS: Final = Fault()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    head: bytes
    body: bytes
    insert: bool


class FaultyClickHouse:
    """The proxy; its address stays the same, whatever is wrong.

    Args:
        port, host: where ClickHouse itself listens.
    """

    def __init__(self, port: int, *, host: str = HOST) -> None:
        self.port = free_port()
        self.fault = PASS
        # Statements that met a fault, and those that were carried out after the connection was cut.
        self.met = 0
        self.applied_late = 0
        self._upstream = (host, port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-clickhouse", daemon=True)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._late: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Begin to listen, with nothing wrong."""
        self._thread.start()
        self._call(self._listen())

    def stop(self) -> None:
        """End every connection and the thread."""
        self._call(self._close(drop=True))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def switch(self, fault: Fault) -> None:
        """Let something else be wrong from now on; connections that wait under the fault before are cut."""
        self._call(self._switch(fault))

    def settle(self) -> None:
        """Wait until everything that is to be carried out late has been."""
        self._call(self._all_late())

    @contextlib.contextmanager
    def broken(self, fault: Fault) -> Iterator[None]:
        """Let something be wrong until the block ends."""
        self.switch(fault)
        try:
            yield
        finally:
            self.switch(PASS)

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        done: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        done.result(30)

    async def _switch(self, fault: Fault) -> None:
        self.fault, self.met = fault, 0
        await self._close(drop=True)
        if fault.how != "refuse":
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, self.port, reuse_address=True, backlog=512, limit=1 << 20)

    async def _close(self, *, drop: bool) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        if drop:
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            request = await _read(reader)
            if request is not None:
                await self._serve(request, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the client went away, as it may while something is wrong
        except asyncio.CancelledError:
            _cut(writer)
            return
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, request: _Request, writer: asyncio.StreamWriter) -> None:
        fault = self.fault
        if not (fault.only == "all" or (fault.only == "inserts") == request.insert):
            fault = PASS
        if fault.how != "pass":
            self.met += 1
        match fault.how:
            case "pass" | "delay" | "read_only":
                await asyncio.sleep(fault.seconds)
                head = request.head.replace(b"?", b"?readonly=1&", 1) if fault.how == "read_only" else request.head
                await self._forward(replace(request, head=head), writer)
            case "hang":
                await asyncio.Event().wait()
            case "error":
                await _answer(writer, *_refusal(fault.code))
            case "garbage" | "empty" | "noise":
                await _answer(writer, 200, {"Content-Type": "text/html"}, _PAGES[fault.how])
            case "trickle":
                await self._trickle(request, writer)
            case "lose_answer":
                await self._carry_out(request)
                _cut(writer)
            case "apply_late":
                task = asyncio.create_task(self._later(request, fault.seconds))
                self._late.add(task)
                task.add_done_callback(self._late.discard)
                _cut(writer)
            case "cut_request":
                await self._cut_request(request)
                _cut(writer)
            case "cut_answer":
                await self._cut_answer(request, writer)
            case "refuse":
                _cut(writer)

    async def _forward(self, request: _Request, writer: asyncio.StreamWriter) -> None:
        upstream, to_upstream = await self._connect(writer)
        try:
            to_upstream.write(request.head + request.body)
            await to_upstream.drain()
            while chunk := await upstream.read(1 << 16):
                writer.write(chunk)
                await writer.drain()
        finally:
            to_upstream.close()

    async def _connect(self, writer: asyncio.StreamWriter) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_connection(*self._upstream)
        except OSError as error:
            _cut(writer)
            raise ConnectionError from error

    async def _carry_out(self, request: _Request) -> bytes:
        upstream, to_upstream = await asyncio.open_connection(*self._upstream)
        try:
            to_upstream.write(request.head + request.body)
            await to_upstream.drain()
            return await upstream.read()
        finally:
            to_upstream.close()

    async def _later(self, request: _Request, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._carry_out(request)
        self.applied_late += 1

    async def _all_late(self) -> None:
        await asyncio.gather(*self._late)

    async def _cut_request(self, request: _Request) -> None:
        _, to_upstream = await asyncio.open_connection(*self._upstream)
        whole = request.head + request.body
        to_upstream.write(whole[: len(request.head) + len(request.body) // 2])
        await to_upstream.drain()
        _cut(to_upstream)

    async def _trickle(self, request: _Request, writer: asyncio.StreamWriter) -> None:
        answer = await self._carry_out(request)
        at_once = 0 if request.insert else answer.index(b"\r\n\r\n") + 4
        writer.write(answer[:at_once])
        for place in range(at_once, len(answer)):
            writer.write(answer[place : place + 1])
            await writer.drain()
            await asyncio.sleep(_TRICKLE_S)

    async def _cut_answer(self, request: _Request, writer: asyncio.StreamWriter) -> None:
        head, _, body = (await self._carry_out(request)).partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n" + body[: len(body) // 2])
        await writer.drain()


async def _read(reader: asyncio.StreamReader) -> _Request | None:
    """Read one request; what goes on to ClickHouse asks it to close the connection behind its answer."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    lines = head.rstrip(b"\r\n").split(b"\r\n")
    fields = {line.split(b":", 1)[0].strip().lower(): line.split(b":", 1)[1].strip() for line in lines[1:]}
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
    else:
        body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
    dropped = (b"connection", b"transfer-encoding", b"content-length")
    kept = [line for line in lines if line.split(b":", 1)[0].strip().lower() not in dropped]
    made = b"\r\n".join([*kept, b"Content-Length: %d" % len(body), b"Connection: close", b"", b""])
    asked = parse_qs(urlsplit(lines[0].split(b" ")[1].decode()).query).get("query", [""])[0].encode() or body
    found = _STATEMENT.match(asked)
    return _Request(head=made, body=body, insert=found is not None and found[1].upper() == b"INSERT")


async def _answer(writer: asyncio.StreamWriter, status: int, headers: dict[str, str], body: bytes) -> None:
    fields = {"Content-Length": str(len(body)), "Connection": "close", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"HTTP/1.1 {status} x\r\n{head}\r\n".encode() + body)
    await writer.drain()


def _refusal(code: int) -> tuple[int, dict[str, str], bytes]:
    name, message = (_SAID | _SAID_OF_QUESTIONS)[code]
    error = ClickHouseError(code, name, message)
    headers = {"X-ClickHouse-Exception-Code": str(code), "Content-Type": "text/plain; charset=UTF-8"}
    return error.http_status, headers, error.text(_VERSION).encode()


def _cut(writer: asyncio.StreamWriter) -> None:
    """Break a connection as a crash does: reset, not closed in order."""
    found: socket.socket | None = writer.get_extra_info("socket")
    if found is not None:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()
