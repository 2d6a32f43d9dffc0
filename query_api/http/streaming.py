"""Answers that are sent part by part, no faster than they are taken.

A part is made when the one before it has been taken. What breaks off is left without its end, so that nobody
takes it for whole.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ingest.contract.errors import LedgerError
from ingest.contract.logs import logger

log = logger(__name__)

# Handed over at once. The server cuts off who takes nothing of one for long.
_PIECE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A body in parts.

    Args:
        parts: an exception of theirs breaks the answer off.
        headers: beside those of every answer.
        close: called once at the end, also where no part was asked for.
    """

    parts: AsyncGenerator[bytes]
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
    close: Callable[[], None] = lambda: None


class Streamed(Response):
    """The answer of a content."""

    def __init__(self, content: Content, headers: Mapping[str, str]) -> None:
        super().__init__(status_code=200, media_type=content.media_type, headers={**headers, **content.headers})
        # Its length is not known.
        del self.headers["content-length"]
        self._content = content
        self._identity = headers.get("x-request-id", "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all parts, until the reader goes away."""
        sending = asyncio.create_task(self._send(send, head=scope["method"] == "HEAD"))
        watching = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait((sending, watching), return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            sending.cancel()
            await asyncio.gather(sending, watching, return_exceptions=True)
            self._content.close()
        if not sending.cancelled() and (error := sending.exception()) is not None:
            known = isinstance(error, LedgerError | OSError)
            log.warning(
                "answer_broken_off",
                request_id=self._identity,
                reason=str(error) or type(error).__name__,
                exc_info=None if known else error,
            )
            # Returning here leaves the answer without its end: the server closes the connection.

    async def _send(self, send: Send, *, head: bool) -> None:
        # Asked and closed in one task, whatever happens: a generator that is forgotten holds what it holds.
        async with aclosing(self._content.parts) as parts:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for part in parts:
                if head:
                    break
                for start in range(0, len(part), _PIECE_BYTES):
                    piece = part[start : start + _PIECE_BYTES]
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
