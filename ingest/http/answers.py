"""Answers as values, refusals as one exception, and how either is put on the wire."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from ingest.contract.http_errors import error_body

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON: Final = b"application/json"
# Names and values as ASGI wants them.
RawHeaders = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A complete answer."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: RawHeaders = ()


class Refused(Exception):
    """A request that is answered with the Error body.

    Args:
        status: 400 to 599.
        message: what was wrong and what to do.
        slug: stable machine-readable name; by default that of the status.
        suggested_fix: optional, one sentence.
        retry_after_s: becomes `Retry-After`.
        headers: beside the usual ones.
        extra: members beside `error`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        slug: str | None = None,
        suggested_fix: str | None = None,
        retry_after_s: int | None = None,
        headers: RawHeaders = (),
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.slug = slug
        self.suggested_fix = suggested_fix
        self.headers = headers if retry_after_s is None else (*headers, (b"retry-after", b"%d" % retry_after_s))
        self.extra = extra

    def answer(self, request_id: str) -> Answer:
        """Return the answer that tells of this refusal."""
        return Answer(
            status=self.status,
            body=error_body(
                status=self.status,
                message=self.message,
                request_id=request_id,
                slug=self.slug,
                suggested_fix=self.suggested_fix,
                extra=self.extra,
            ),
            headers=self.headers,
        )


class ClientGone(Exception):
    """The client went away before its request was complete; there is nobody to answer."""


async def respond(send: Send, answer: Answer, request_id: str, *, head: bool = False) -> None:
    """Send an answer; to a HEAD request without its body."""
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [
                (b"content-type", answer.content_type),
                (b"content-length", b"%d" % len(answer.body)),
                (b"x-request-id", request_id.encode("latin-1")),
                *answer.headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": b"" if head else answer.body})
