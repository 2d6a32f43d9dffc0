"""What passing a request on takes, wherever it goes: its body, its target, and the headers that end here."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final

from ingest.http.answers import ClientGone, Receive, Scope
from ingest.http.upstream import Connection, RawHeader

# Of one connection only (RFC 9110 section 7.6.1).
HOP_BY_HOP: Final = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"proxy-authenticate", b"proxy-authorization"),
    }
)
# A body up to that size is read first, which costs less: one packet to send.
READ_FIRST_BYTES_MAX: Final = 64 * 1024


class RelayedBody:
    """The body of a request, read by one reader, who afterwards notices when the client goes away."""

    def __init__(self, receive: Receive) -> None:
        self.client_gone = False
        self._receive = receive
        self._complete = asyncio.Event()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the parts as they come.

        Raises:
            ClientGone: it went away before the end.
        """
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.client_gone = True
                raise ClientGone
            if chunk := message.get("body", b""):
                yield chunk
            if not message.get("more_body", False):
                self._complete.set()
                return

    async def whole(self) -> bytes:
        """Read all of it."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def send_on(self, connection: Connection, *, chunked: bool, write_s_max: float | None = None) -> None:
        """Write all of it to a connection.

        Args:
            chunked: its length was not given.
            write_s_max: each part must have been taken by then; None: it may take for ever.

        Raises:
            ClientGone: it went away before the end.
            UpstreamError, TimeoutError: the other side does not take it.
        """
        async for chunk in self.chunks():
            async with asyncio.timeout(write_s_max):
                await connection.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
        if chunked:
            await connection.write(b"0\r\n\r\n")

    async def gone(self, connection: Connection) -> None:
        """Close the connection as soon as the client, having sent all, goes away."""
        await self._complete.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.client_gone = True
        connection.close()


def is_streamed(headers: Iterable[RawHeader]) -> bool:
    """Tell whether a body should go on as it comes, because it is large or its size is not told."""
    for name, value in headers:
        if name == b"transfer-encoding":
            return True
        if name == b"content-length":
            return not value.isdigit() or int(value) > READ_FIRST_BYTES_MAX
    return False


def target_of(scope: Scope) -> bytes:
    """Return path and query as they came: a path that is decoded and encoded again is not always the same path."""
    path: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    return path + b"?" + query if query else path
