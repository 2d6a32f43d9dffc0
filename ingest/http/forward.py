"""Hand every request that is not ingest's own to the query service, and its answer back, as they are.

Bodies are streamed both ways. Left out is only what belongs to one connection (hop-by-hop headers, RFC 9110 section 7.6.1).
"""

import asyncio
from collections.abc import Iterable
from typing import Final

from ingest.contract.http_errors import REQUEST_ID_HEADER
from ingest.contract.logs import logger
from ingest.http.answers import ClientGone, Receive, Refused, Scope, Send
from ingest.http.relay import HOP_BY_HOP, RelayedBody, is_streamed, target_of
from ingest.http.upstream import Connection, RawHeader, Upstream, UpstreamError
from ingest.settings import IngestSettings

log = logger(__name__)

# Not passed on either: we have answered `expect` ourselves by reading the body, and the request id is given below.
_REPLACED: Final = frozenset({b"expect", REQUEST_ID_HEADER.encode()})
# Not passed back: this server dates every answer, and a header that may stand once must not stand twice.
_OUR_OWN: Final = frozenset({b"date"})
_EVENT_STREAM: Final = b"text/event-stream"


class Forwarder:
    """Forwards to one address; made and closed in the loop that uses it."""

    def __init__(self, settings: IngestSettings) -> None:
        assert settings.query_url is not None, "without an address there is nothing to forward to"
        self._upstream = Upstream(settings.query_url, connect_timeout_s=settings.query_connect_timeout_s)
        self._head_timeout_s = settings.query_head_timeout_s
        self._retry_after_s = settings.ingest_retry_after_s
        self._streams: set[Connection] = set()
        self._stopping = False

    def end_streams(self) -> None:
        """End answers that have no end of their own (event streams), so that a stop need not wait for them."""
        self._stopping = True
        for connection in self._streams:
            connection.finish()

    def close(self) -> None:
        """Close the kept connections."""
        self._upstream.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """Forward one request and answer it.

        Returns:
            The status that was answered.

        Raises:
            Refused: 503 where the query service cannot be reached, 502 where it broke off, 504 where it does not answer.
            ClientGone: the client went away; what was going on at the query service is given up.
        """
        body = RelayedBody(receive)
        streamed = is_streamed(scope["headers"])
        connection: Connection | None = None
        gone: asyncio.Task[None] | None = None
        began = False
        try:
            first = b"" if streamed else await body.whole()
            async with asyncio.timeout(self._head_timeout_s):
                connection = await self._upstream.connect()
                # Ends the exchange from outside, whatever it is waiting for.
                gone = asyncio.create_task(body.gone(connection))
                headers, chunked = _request_headers(scope["headers"], request_id)
                connection.send(scope["method"], target_of(scope), headers, first)
                if streamed:
                    await body.send_on(connection, chunked=chunked)
                await connection.head()
            began = True
            await self._pass_back(connection, send, request_id)
            return connection.status
        except TimeoutError:
            raise Refused(504, f"the query service did not answer within {self._head_timeout_s:g} s") from None
        except UpstreamError as error:
            if body.client_gone:
                raise ClientGone from None
            log.warning("query_failed", request_id=request_id, error=str(error), answer_began=began)
            if began:
                # An answer that has begun cannot be taken back; its end stays out, so that the client sees it is not whole.
                raise ClientGone from None
            if error.connected:
                raise Refused(502, "the query service broke off before it answered", slug="Query_BrokeOff") from None
            raise Refused(
                503, "the query service is not reachable now", slug="Query_Unavailable", retry_after_s=self._retry_after_s
            ) from None
        finally:
            if gone is not None:
                gone.cancel()
            if connection is not None:
                self._upstream.release(connection)

    async def _pass_back(self, connection: Connection, send: Send, request_id: str) -> None:
        headers = [(name, value) for name, value in connection.headers if name not in HOP_BY_HOP and name not in _OUR_OWN]
        names = dict(headers)
        if REQUEST_ID_HEADER.encode() not in names:
            headers.append((REQUEST_ID_HEADER.encode(), request_id.encode()))
        endless = names.get(b"content-type", b"").startswith(_EVENT_STREAM)
        if endless:
            self._streams.add(connection)
            if self._stopping:
                connection.finish()
        try:
            await send({"type": "http.response.start", "status": connection.status, "headers": headers})
            async for chunk in connection.body():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        finally:
            self._streams.discard(connection)
        await send({"type": "http.response.body", "body": b""})


def _request_headers(headers: Iterable[RawHeader], request_id: str) -> tuple[list[RawHeader], bool]:
    """Return the headers to send on, and whether the body goes in chunks because its length was not given."""
    passed = []
    chunked = sized = False
    for name, value in headers:
        if name == b"transfer-encoding":
            chunked = True
        elif name not in HOP_BY_HOP and name not in _REPLACED:
            sized = sized or name == b"content-length"
            passed.append((name, value))
    chunked = chunked and not sized
    if chunked:
        passed.append((b"transfer-encoding", b"chunked"))
    # One id for both services' logs.
    passed.append((REQUEST_ID_HEADER.encode(), request_id.encode()))
    return passed, chunked
