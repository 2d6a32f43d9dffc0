"""A local address in front of a streamable HTTP server: requests and answers pass as they come, and are copied to the tap.

Left out is only what belongs to one connection (RFC 9110 section 7.6.1). A redirect to the server itself is turned to this
address, so that a client who follows it is still recorded. Whoever is not on this machine, or is a page of another site, is
refused: the server's own check of `Origin` would not see a page that reached this address by a changed name.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, MutableMapping
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec
from multidict import CIMultiDict
from yarl import URL

from ingest.http.relay import HOP_BY_HOP
from ingest.http.upstream import STATUS_MAX
from ingest.mcp.endings import Ending
from ingest.mcp.frames import Kind
from ingest.mcp.heads import RawHeader, answer_head, request_head
from ingest.mcp.tap import Tap

_CONNECT_S: Final = 30.0
# The server is to be told its own name; and its body we have waited for already.
_REPLACED: Final = frozenset({b"host", b"expect"})
# Redirects after which a client sends the same request, body and all, once more.
_KEEPS_METHOD: Final = (307, 308)
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
# The client's library must add nothing that the client did not send.
_NEVER_ADDED: Final = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")

_GONE: Final = Ending(why="client_gone", message="connection closed: the client left before an answer came")
_STOPPED: Final = Ending(why="interrupted", message="connection closed: the recording proxy was told to end")
_BROKE_OFF: Final = Ending(why="connection_closed", message="connection closed: the server broke off within its answer")

Message = MutableMapping[str, Any]


class Proxy:
    """An ASGI application; made and closed in the loop that serves it."""

    def __init__(self, url: str, tap: Tap) -> None:
        parts = urlsplit(url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._tap = tap
        self._numbers = itertools.count(1)
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            # A call may take hours, and a stream may be silent for as long.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            skip_auto_headers=_NEVER_ADDED,
            # Proxies between here and the server, as the client itself would use them.
            trust_env=True,
            max_line_size=64 * 1024,
            max_field_size=64 * 1024,
        )

    async def close(self) -> None:
        """Close the connections to the server."""
        await self._session.close()

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """Pass one request on, and its answer back."""
        assert scope["type"] == "http", "nothing else is served"
        headers: list[RawHeader] = list(scope["headers"])
        if (fault := _foreign(headers)) is not None:
            await _say(send, 403, fault)
            return
        target: bytes = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        stream = next(self._numbers)
        self._tap.put(Kind.REQUEST, request_head(scope["method"], target, headers), stream)
        ending: Ending | None = _GONE
        try:
            ending = await self._exchange(scope["method"], target, headers, _Body(receive, self._tap, stream), send)
        except asyncio.CancelledError:
            ending = _STOPPED
            raise
        finally:
            self._tap.put(Kind.SERVER_END, b"" if ending is None else msgspec.json.encode(ending), stream)

    async def _exchange(self, method: str, target: bytes, headers: list[RawHeader], body: "_Body", send: Any) -> Ending | None:
        """Return how it ended, if not with a whole answer."""
        asking = asyncio.create_task(self._ask(method, target, headers, body, send))
        leaving = asyncio.create_task(body.gone())
        try:
            # Whichever is first: the answer's end, or the client's. The server learns of the latter at once.
            await asyncio.wait({asking, leaving}, return_when=asyncio.FIRST_COMPLETED)
            return asking.result() if asking.done() else _GONE
        finally:
            for task in (asking, leaving):
                task.cancel()
            await asyncio.gather(asking, leaving, return_exceptions=True)

    async def _ask(self, method: str, target: bytes, headers: list[RawHeader], body: "_Body", send: Any) -> Ending | None:
        passed: CIMultiDict[str] = CIMultiDict()
        for name, value in headers:
            if name not in HOP_BY_HOP and name not in _REPLACED:
                passed.add(name.decode("latin-1"), _text(value))
        names = {name for name, _ in headers}
        data = body.pieces() if {b"content-length", b"transfer-encoding"} & names else None
        if data is None:
            await body.read()
        began = False
        try:
            address = URL(self._origin + target.decode("latin-1"), encoded=True)
            async with self._session.request(method, address, headers=passed, data=data, allow_redirects=False) as answer:
                if answer.status > STATUS_MAX:
                    raise ValueError(f"it answered with the status {answer.status}, which is none of HTTP")
                passed_back = self._passed_back(answer.raw_headers, headers)
                again = answer.status in _KEEPS_METHOD and _leads_here(passed_back, headers)
                self._tap.put(Kind.ANSWER, answer_head(answer.status, answer.raw_headers, asks_again=again), body.stream)
                began = True
                await send({"type": "http.response.start", "status": answer.status, "headers": passed_back})
                async for piece in answer.content.iter_any():
                    self._tap.put(Kind.SERVER, piece, body.stream)
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            if answer.status >= 400 and b"content-length" in dict(passed_back):
                # The client knows where this answer ends; what it was refused for is to be recorded, also where it still sends.
                await body.read()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            if began:
                # Its end stays out, so that the client sees that it is not whole.
                return _BROKE_OFF
            said = f"cannot reach the MCP server: {error or type(error).__name__}"
            # What was asked is to be recorded all the same.
            await body.read()
            await _say(send, 502, said)
            return Ending(why="unreachable", message=said, code=None)
        await send({"type": "http.response.body", "body": b""})
        return None

    def _passed_back(self, raw: Iterable[RawHeader], asked: list[RawHeader]) -> list[RawHeader]:
        headers = []
        host = next((value for name, value in asked if name == b"host"), b"")
        for given, value in raw:
            name = given.lower()
            if name in HOP_BY_HOP:
                continue
            own = self._origin.encode("latin-1")
            if name == b"location" and value.startswith(own) and value[len(own) : len(own) + 1] in (b"/", b"?", b""):
                headers.append((name, b"http://" + host + value[len(own) :]))
            else:
                headers.append((name, value))
        return headers


class _Body:
    """The client's body, copied as it is read; afterwards, notices when the client leaves."""

    def __init__(self, receive: Any, tap: Tap, stream: int) -> None:
        self.stream = stream
        self._receive = receive
        self._tap = tap
        self._complete = asyncio.Event()
        self._left = asyncio.Event()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Give the body piece by piece, or what is left of it."""
        while not self._complete.is_set():
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._left.set()
                # It must not end here as if it were whole.
                await asyncio.Event().wait()
            if piece := message.get("body", b""):
                self._tap.put(Kind.CLIENT, piece, self.stream)
                yield piece
            if not message.get("more_body", False):
                self._tap.put(Kind.CLIENT_END, b"", self.stream)
                self._complete.set()

    async def read(self) -> None:
        """Take what is left of it."""
        async for _ in self.pieces():
            pass

    async def gone(self) -> None:
        """Wait until the client leaves."""
        left = asyncio.create_task(self._left.wait())
        complete = asyncio.create_task(self._complete.wait())
        try:
            await asyncio.wait({left, complete}, return_when=asyncio.FIRST_COMPLETED)
            while not left.done():
                if (await self._receive())["type"] == "http.disconnect":
                    return
        finally:
            left.cancel()
            complete.cancel()


def _text(value: bytes) -> str:
    """Return a header's value as the client's library, which writes UTF-8, gives back the same bytes."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _leads_here(answered: list[RawHeader], asked: list[RawHeader]) -> bool:
    """Tell whether a redirect, as it is passed back, stays at this address."""
    location = dict(answered).get(b"location")
    try:
        return location is not None and urlsplit(location).netloc in (b"", dict(asked).get(b"host"))
    except ValueError:
        return False


def _foreign(headers: list[RawHeader]) -> str | None:
    """Say what is wrong with a request that does not come from this machine."""
    for name, value in headers:
        if name in (b"host", b"origin"):
            given = value.decode("latin-1")
            address = urlsplit(given if name == b"origin" else f"//{given}")
            try:
                allowed = address.hostname in _LOOPBACK
            except ValueError:
                allowed = False
            if not allowed:
                return f"requests with this {name.decode().title()} are refused: this address is for programs of this machine"
    return None


async def _say(send: Any, status: int, message: str) -> None:
    """Answer with a JSON-RPC error that belongs to no request, as the transport has it."""
    body = msgspec.json.encode({"jsonrpc": "2.0", "error": {"code": -32000, "message": message}})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
