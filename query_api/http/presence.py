"""Notice that a caller has gone away while its question is being answered, and stop working for nobody."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message


class Presence:
    """The caller of one request: gives its body, and from then on tells when it has gone.

    A connection has one reader at a time. First that is the handler, who reads the body through `receive`; when the body is
    there, nothing but the connection's end can follow.
    """

    def __init__(self, request: Request) -> None:
        self._receive = request.receive
        self._body_read = asyncio.Event()
        if request.method in ("GET", "HEAD"):
            # No handler reads the body of these; what comes all the same is passed over.
            self._body_read.set()

    async def receive(self) -> Message:
        """Give what comes next; ASGI."""
        message = await self._receive()
        if not message.get("more_body"):
            self._body_read.set()
        return message

    @contextlib.asynccontextmanager
    async def needed(self) -> AsyncIterator[None]:
        """Run the block as long as the caller is there; what it awaits is cancelled when the caller goes.

        Raises:
            ClientDisconnect: it went.
        """
        over = False
        try:
            # A deadline that the caller's going away brings about: so that only this cancellation becomes ClientDisconnect.
            async with asyncio.timeout(None) as presence:
                watching = asyncio.create_task(self._gone())
                watching.add_done_callback(lambda task: None if over or task.cancelled() else presence.reschedule(0))
                try:
                    yield
                finally:
                    over = True
                    watching.cancel()
        except TimeoutError:
            if presence.expired():
                raise ClientDisconnect from None
            raise

    async def _gone(self) -> None:
        await self._body_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
