"""What the recorder is told of a request's and an answer's head: nothing that could be a secret."""

from collections.abc import Iterable

import msgspec

RawHeader = tuple[bytes, bytes]


class RequestHead(msgspec.Struct, frozen=True, kw_only=True):
    """A request; `target` is path and query, `protocol` the version of MCP."""

    method: str
    target: str
    session: str | None = None
    protocol: str | None = None
    last_event_id: str | None = None
    encoding: str | None = None


class AnswerHead(msgspec.Struct, frozen=True, kw_only=True):
    """An answer; `asks_again`: a redirect that has the client send the same once more, to this address."""

    status: int
    content_type: str = ""
    session: str | None = None
    encoding: str | None = None
    asks_again: bool = False


def request_head(method: str, target: bytes, headers: Iterable[RawHeader]) -> bytes:
    """Return a request's head as a frame carries it; header names are in lower case."""
    given = _texts(headers)
    return msgspec.json.encode(
        RequestHead(
            method=method,
            target=target.decode("latin-1"),
            session=given.get("mcp-session-id"),
            protocol=given.get("mcp-protocol-version"),
            last_event_id=given.get("last-event-id"),
            encoding=given.get("content-encoding"),
        )
    )


def answer_head(status: int, headers: Iterable[RawHeader], *, asks_again: bool = False) -> bytes:
    """Return an answer's head as a frame carries it."""
    given = _texts(headers)
    return msgspec.json.encode(
        AnswerHead(
            status=status,
            content_type=given.get("content-type", "").partition(";")[0].strip().lower(),
            session=given.get("mcp-session-id"),
            encoding=given.get("content-encoding"),
            asks_again=asks_again,
        )
    )


def _texts(headers: Iterable[RawHeader]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1").strip() for name, value in headers}
