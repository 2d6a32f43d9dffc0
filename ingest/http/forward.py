"""Hand every request that is not ingest's own to the query service, and its answer back, as they are.

Bodies are streamed both ways. Left out is only what belongs to one connection (hop-by-hop headers, RFC 9110 section 7.6.1).
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from ingest.contract.http_errors import REQUEST_ID_HEADER
from ingest.contract.logs import logger
from ingest.http.answers import ClientGone, Receive, Refused, Scope, Send
from ingest.settings import IngestSettings

log = logger(__name__)

_HOP_BY_HOP: Final = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"proxy-authenticate", b"proxy-authorization"),
    }
)
# aiohttp would add these where the client sent none.
_ADDED_BY_CLIENT: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_READ_FIRST_BYTES_MAX: Final = 64 * 1024
_CONNECTIONS_MAX: Final = 256
# Shorter than any server keeps an idle connection, so that a request seldom meets one that is just being closed.
_KEEP_ALIVE_S: Final = 2.0


class Forwarder:
    """Forwards to one address; opened and closed in the loop that uses it."""

    def __init__(self, settings: IngestSettings) -> None:
        assert settings.query_url is not None, "without an address there is nothing to forward to"
        self._url = URL(settings.query_url)
        self._head_timeout_s = settings.query_head_timeout_s
        self._retry_after_s = settings.ingest_retry_after_s
        self._stopping = asyncio.Event()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS_MAX, keepalive_timeout=_KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.query_connect_timeout_s),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_ADDED_BY_CLIENT,
        )

    def end_streams(self) -> None:
        """End answers that have no end of their own (event streams), so that a stop need not wait for them."""
        self._stopping.set()

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """Forward one request and answer it.

        Returns:
            The status that was answered.

        Raises:
            Refused: 503 where the query service cannot be reached, 502 where it broke off, 504 where it does not answer.
            ClientGone: the client went away; what was going on at the query service is given up.
        """
        body = _Body(receive)
        began = False
        try:
            async with asyncio.timeout(self._head_timeout_s) as patience:
                data = body.chunks() if _is_large(scope["headers"]) else await body.whole()
                gone = asyncio.ensure_future(body.gone())
                request = asyncio.ensure_future(
                    self._session.request(
                        scope["method"],
                        self._target(scope),
                        headers=_request_headers(scope["headers"], request_id),
                        data=data or None,
                        allow_redirects=False,
                    )
                )
                try:
                    await asyncio.wait((request, gone), return_when=asyncio.FIRST_COMPLETED)
                    if not request.done():
                        raise ClientGone
                    async with request.result() as answer:
                        patience.reschedule(None)
                        began = True
                        await self._pass_back(answer, send, gone, request_id)
                        return answer.status
                finally:
                    gone.cancel()
                    request.cancel()
        except TimeoutError:
            raise Refused(504, f"the query service did not answer within {self._head_timeout_s:g} s") from None
        except aiohttp.ClientConnectorError as error:
            log.warning("query_unreachable", request_id=request_id, error=repr(error))
            raise Refused(
                503, "the query service is not reachable now", slug="Query_Unavailable", retry_after_s=self._retry_after_s
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            if body.client_gone:
                raise ClientGone from None
            log.warning("query_broke_off", request_id=request_id, error=repr(error), answer_began=began)
            if began:
                # An answer that has begun cannot be taken back; its end stays out, so that the client sees it is not whole.
                raise ClientGone from None
            raise Refused(502, "the query service broke off before it answered", slug="Query_BrokeOff") from None

    async def _pass_back(
        self, answer: aiohttp.ClientResponse, send: Send, gone: "asyncio.Future[None]", request_id: str
    ) -> None:
        headers = [(name.lower(), value) for name, value in answer.raw_headers if name.lower() not in _HOP_BY_HOP]
        if REQUEST_ID_HEADER not in answer.headers:
            headers.append((REQUEST_ID_HEADER.encode(), request_id.encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        others: set[asyncio.Future[Any]] = {gone}
        if answer.content_type == "text/event-stream":
            others.add(asyncio.ensure_future(self._stopping.wait()))
        try:
            while not answer.content.at_eof():
                read = asyncio.ensure_future(answer.content.readany())
                await asyncio.wait({read, *others}, return_when=asyncio.FIRST_COMPLETED)
                if not read.done():
                    read.cancel()
                    if gone.done():
                        raise ClientGone
                    break
                if chunk := read.result():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        finally:
            for other in others:
                other.cancel()
        await send({"type": "http.response.body", "body": b""})

    def _target(self, scope: Scope) -> URL:
        # As it came: a path that is decoded and encoded again is not always the same path.
        path = scope["raw_path"].decode("latin-1")
        query = scope["query_string"].decode("latin-1")
        return URL(f"{self._url}{path}?{query}" if query else f"{self._url}{path}", encoded=True)


class _Body:
    """The body of a request, read by one reader, who afterwards notices when the client goes away."""

    def __init__(self, receive: Receive) -> None:
        self.client_gone = False
        self._receive = receive
        self._complete = asyncio.Event()

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.client_gone = True
                self._complete.set()
                raise ClientGone
            if chunk := message.get("body", b""):
                yield chunk
            if not message.get("more_body", False):
                self._complete.set()
                return

    async def whole(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])

    async def gone(self) -> None:
        await self._complete.wait()
        while not self.client_gone:
            self.client_gone = (await self._receive())["type"] == "http.disconnect"


def _is_large(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a body should be streamed; the usual one is read first, which costs less."""
    for name, value in headers:
        if name == b"transfer-encoding":
            return True
        if name == b"content-length":
            return not value.isdigit() or int(value) > _READ_FIRST_BYTES_MAX
    return False


def _request_headers(headers: Iterable[tuple[bytes, bytes]], request_id: str) -> CIMultiDict[str]:
    passed: CIMultiDict[str] = CIMultiDict()
    for name, value in headers:
        if name not in _HOP_BY_HOP and name != b"expect":
            # The client library writes UTF-8; so does everybody who sends more than ASCII here.
            passed.add(name.decode("latin-1"), value.decode("utf-8", "replace"))
    # One id for both services' logs.
    passed[REQUEST_ID_HEADER] = request_id
    return passed
