"""Pass a request on to the upstream and its answer back, both as they are and as they come, at any size.

Left out is only what belongs to one connection (RFC 9110 section 7.6.1), and the caller's key where it is one of ours; the
host's name becomes the upstream's. Trailers end here, and each answer has the date of this server.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Final

from ingest.contract.http_errors import PROJECT_KEY_HEADER, REQUEST_ID_HEADER
from ingest.contract.logs import logger
from ingest.gateway.credentials import Grant
from ingest.http.answers import ClientGone, RawHeaders, Receive, Refused, Scope, Send
from ingest.http.relay import HOP_BY_HOP, READ_FIRST_BYTES_MAX, RelayedBody, is_streamed, target_of
from ingest.http.upstream import Connection, RawHeader, Upstream, UpstreamError

log = logger(__name__)

_KEY: Final = PROJECT_KEY_HEADER.encode()
_REQUEST_ID: Final = REQUEST_ID_HEADER.encode()
_EVENT_STREAM: Final = b"text/event-stream"
_BODILESS: Final = frozenset({204, 304})
# What may be sent twice, because it changes nothing.
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# Official clients do not send again what may have been done already.
DO_NOT_RETRY: Final = ((b"x-should-retry", b"false"),)

See = Callable[[int, list[RawHeader], bytes], None]


class Passage:
    """Passes requests on to one address; made and closed in the loop that uses it.

    Args:
        upstream: its connections.
        timeout_s: the upstream must have begun to answer so long after it has the request, and take what is sent to it.
    """

    def __init__(self, upstream: Upstream, *, timeout_s: float) -> None:
        self._upstream = upstream
        self._timeout_s = timeout_s
        self._streams: set[Connection] = set()
        self._stopping = False

    def end_streams(self) -> None:
        """End answers that have no end of their own (event streams), so that a stop need not wait for them."""
        self._stopping = True
        for connection in self._streams:
            connection.finish()

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, grant: Grant, see: See | None = None
    ) -> int:
        """Pass one request on and answer it.

        Args:
            grant: which key goes with it.
            see: is shown status, headers and body of an answer that is short and whole.

        Returns:
            The status that was answered.

        Raises:
            Refused: 502 where the upstream cannot be reached or broke off, 504 where it does not answer; nothing was sent yet.
            ClientGone: the client went away, or was cut off in the midst of an answer that broke off.
        """
        body = RelayedBody(receive)
        exchange = _Exchange(self._upstream, body, timeout_s=self._timeout_s)
        began = False
        try:
            await exchange.begin(scope, request_headers(scope["headers"], grant, self._upstream.authority))
            began = True
            await self._pass_back(exchange.connection, send, request_id, see)
            return exchange.connection.status
        except (UpstreamError, TimeoutError) as error:
            if body.client_gone:
                raise ClientGone from None
            log.warning("upstream_failed", request_id=request_id, error=str(error) or "timed out", answer_began=began)
            if began:
                # An answer that has begun cannot be taken back; its end stays out, so that the client sees it is not whole.
                raise ClientGone from None
            raise refusal(error, timeout_s=self._timeout_s) from None
        finally:
            exchange.end()

    async def _pass_back(self, connection: Connection, send: Send, request_id: str, see: See | None) -> None:
        headers = answer_headers(connection.headers, connection.status, request_id)
        endless = dict(headers).get(b"content-type", b"").startswith(_EVENT_STREAM)
        if endless:
            self._streams.add(connection)
            if self._stopping:
                connection.finish()
        seen: list[bytes] | None = [] if see is not None else None
        try:
            await send({"type": "http.response.start", "status": connection.status, "headers": headers})
            async for chunk in connection.body():
                if seen is not None:
                    seen.append(chunk)
                    if sum(map(len, seen)) > READ_FIRST_BYTES_MAX:
                        seen = None
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        finally:
            self._streams.discard(connection)
        await send({"type": "http.response.body", "body": b""})
        if see is not None and seen is not None:
            see(connection.status, connection.headers, b"".join(seen))


class _Exchange:
    """One request at the upstream, from its connection to its end."""

    connection: Connection

    def __init__(self, upstream: Upstream, body: RelayedBody, *, timeout_s: float) -> None:
        self._upstream = upstream
        self._body = body
        self._timeout_s = timeout_s
        self._held: Connection | None = None
        self._uploading: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def begin(self, scope: Scope, headers: list[RawHeader]) -> None:
        """Send the request and wait for the head of its answer, which may come before the request is sent.

        A request that changes nothing is sent once more where a kept connection turned out to be closed.

        Raises:
            UpstreamError, TimeoutError: no answer came.
            ClientGone: the client went away before it had sent all.
        """
        streamed = is_streamed(scope["headers"])
        first = b"" if streamed else await self._body.whole()
        again = scope["method"] in _SAFE and not streamed
        self._take(await self._upstream.connect())
        try:
            await self._ask(scope, headers, first, streamed=streamed)
        except UpstreamError:
            if not again or not self.connection.reused or self._body.client_gone:
                raise
            self.end()
            self._take(await self._upstream.connect(fresh=True))
            await self._ask(scope, headers, first, streamed=False)

    def end(self) -> None:
        """Give everything back."""
        if self._watching is not None:
            self._watching.cancel()
        if self._uploading is not None:
            if not self._uploading.done():
                # The answer came before the upload's end, and nobody reads the rest.
                self._uploading.cancel()
                if self._held is not None:
                    self._held.close()
            elif not self._uploading.cancelled():
                # What went wrong with it showed in the answer, or in its absence.
                self._uploading.exception()
        if self._held is not None:
            self._upstream.release(self._held)
            self._held = None

    def _take(self, connection: Connection) -> None:
        self.connection = self._held = connection

    async def _ask(self, scope: Scope, headers: list[RawHeader], first: bytes, *, streamed: bool) -> None:
        connection = self.connection
        chunked = any(name == b"transfer-encoding" for name, _ in headers)
        connection.send(scope["method"], target_of(scope), headers, first)
        # Ends the exchange from outside, whatever it is waiting for.
        self._watching = asyncio.create_task(self._body.gone(connection))
        if streamed:
            self._uploading = asyncio.create_task(self._upload(connection, chunked=chunked))
            head = asyncio.ensure_future(connection.head())
            try:
                await asyncio.wait({self._uploading, head}, return_when=asyncio.FIRST_COMPLETED)
                if self._uploading.done() and not head.done():
                    self._uploading.result()
                    async with asyncio.timeout(self._timeout_s):
                        await head
                head.result()
            finally:
                head.cancel()
                with contextlib.suppress(asyncio.CancelledError, UpstreamError):
                    await head
            return
        async with asyncio.timeout(self._timeout_s):
            await connection.head()

    async def _upload(self, connection: Connection, *, chunked: bool) -> None:
        try:
            await self._body.send_on(connection, chunked=chunked, write_s_max=self._timeout_s)
        except ClientGone:
            connection.close()
            raise


def refusal(error: UpstreamError | TimeoutError, *, timeout_s: float) -> Refused:
    """Return the answer to a request that the upstream did not answer."""
    if isinstance(error, TimeoutError):
        message = f"the upstream did not answer within {timeout_s:g} s"
        return Refused(504, message, slug="Upstream_TimedOut", headers=DO_NOT_RETRY)
    if error.connected:
        return Refused(502, f"the upstream broke off: {error}", slug="Upstream_BrokeOff", headers=DO_NOT_RETRY)
    return Refused(502, f"the upstream could not be reached: {error}", slug="Upstream_Unreachable")


def request_headers(headers: Iterable[RawHeader], grant: Grant, authority: bytes) -> list[RawHeader]:
    """Return the headers to send on; a body without a length goes in chunks."""
    kept, chunked = _of_the_message(headers)
    # The upstream's name; `expect` is answered here, by reading the body; of our own keys none goes on.
    passed = [
        (name, value) for name, value in kept if name not in (b"host", b"expect") and not (name == _KEY and not grant.passed)
    ]
    if not grant.passed and grant.key is not None:
        passed.append((_KEY, grant.key.encode("latin-1")))
    if chunked and not any(name == b"content-length" for name, _ in passed):
        passed.append((b"transfer-encoding", b"chunked"))
    return [(b"host", authority), *passed]


def answer_headers(headers: Iterable[RawHeader], status: int, request_id: str, more: RawHeaders = ()) -> list[RawHeader]:
    """Return the headers to answer with; this server dates each answer itself, and each has a request id."""
    passed, _ = _of_the_message(headers)
    # The length of a 304 is that of the body it stands for, which does not come.
    ours = (b"date", b"content-length") if status in _BODILESS else (b"date",)
    found = [(name, value) for name, value in passed if name not in ours]
    if not any(name == _REQUEST_ID for name, _ in found):
        found.append((_REQUEST_ID, request_id.encode()))
    return [*found, *more]


def _of_the_message(headers: Iterable[RawHeader]) -> tuple[list[RawHeader], bool]:
    """Return the headers that are not of one connection only, and whether the body came in chunks."""
    found = list(headers)
    named = {one.strip().lower() for name, value in found if name == b"connection" for one in value.split(b",")} - {
        b"close",
        b"keep-alive",
    }
    chunked = any(name == b"transfer-encoding" for name, _ in found)
    return [(name, value) for name, value in found if name not in HOP_BY_HOP and name not in named], chunked
