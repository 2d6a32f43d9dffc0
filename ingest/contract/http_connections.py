"""HTTP connections that never stay half-dead: uvicorn's protocol with a limit on each wait and on the size of a head.

uvicorn itself waits for ever for the rest of a head or a body, and for a client to read what it asked for, and holds a head of
any size.
"""

import asyncio
import resource
from http import HTTPStatus
from typing import Any, Final, Literal

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingest.contract.http_errors import error_body, request_id
from ingest.contract.logs import logger

log = logger(__name__)

# Of a request's line and headers. What common proxies pass on is at most half of it.
HEAD_BYTES_MAX: Final = 64 * 1024


def raise_file_limit() -> None:
    """Allow as many connections as the machine does: clients that stay soon reach the usual soft limit of 1,024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long a connection is waited for, in seconds.

    Args:
        head_s: for a whole head.
        idle_s: silence within a body.
        body_s: for a whole body, unless the application sets `unhurried` in the request's scope.
        unread_s: that nothing of an answer is taken, which is too large to be held back here.
    """

    head_s: float
    idle_s: float
    body_s: float
    unread_s: float = 60.0


def patient_protocol(patience: Patience) -> type[HttpToolsProtocol]:
    """Return the protocol class for `uvicorn.Config(http=...)`."""

    class Protocol(HttpToolsProtocol):
        """Cuts a connection that keeps us waiting within an exchange, and answers nonsense with the Error body.

        One timer a connection, looked at when it fires and not touched by each request, so that it costs nothing.
        """

        _timer: asyncio.TimerHandle | None = None
        _unread_timer: asyncio.TimerHandle | None = None
        _waiting_for: Literal["head", "body", "nothing"] = "nothing"
        _began_s = 0.0
        _heard_s = 0.0
        _head_bytes = 0
        _too_long: tuple[int, str] | None = None
        _refused = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(_Corked(transport, self.loop))
            self._wait_for_head()

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self._timer, self._unread_timer):
                if timer is not None:
                    timer.cancel()
            self._timer = self._unread_timer = None
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._refused:
                # Read and forgotten, until the timer ends it: one who is cut off while it sends never sees the answer.
                return
            if self._waiting_for == "nothing" and (self.cycle is None or self.cycle.response_complete):
                # It may be no more than a line break, with which no message begins; the idle timer ends here all the same.
                self._wait_for_head()
            self._head_bytes += len(data)
            super().data_received(data)
            if self._waiting_for == "head" and self._head_bytes > HEAD_BYTES_MAX and not self._refused:
                self._too_long = _too_long(len(getattr(self, "url", b"")))
                self.send_400_response(self._too_long[1])

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._wait_for_head()

        def on_headers_complete(self) -> None:
            if self._head_bytes > HEAD_BYTES_MAX:
                # Some of it may have been a body, or the request before.
                size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
                if size > HEAD_BYTES_MAX:
                    self._too_long = _too_long(len(self.url))
                    raise ValueError(self._too_long[1])
            self._waiting_for = "body"
            self._began_s = self._heard_s = self.loop.time()
            super().on_headers_complete()
            # What is added to its own list from here on are trailers, which are no headers.
            self.scope["headers"] = list(self.headers)

        def on_body(self, body: bytes) -> None:
            self._heard_s = self.loop.time()
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._waiting_for = "nothing"
            self._head_bytes = 0
            super().on_message_complete()

        def send_400_response(self, msg: str) -> None:
            status, message = self._too_long or (400, msg)
            self._refuse(status, message, request_id(), at_once=self._too_long is None)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread_timer = self.loop.call_later(patience.unread_s, self._give_up_answering)

        def resume_writing(self) -> None:
            if self._unread_timer is not None:
                self._unread_timer.cancel()
                self._unread_timer = None
            super().resume_writing()

        def _give_up_answering(self) -> None:
            log.warning("answer_not_read", waited_s=patience.unread_s)
            self.transport.abort()

        def _wait_for_head(self) -> None:
            self._waiting_for = "head"
            self._heard_s = self.loop.time()
            if self._timer is None:
                self._timer = self.loop.call_later(patience.head_s, self._look)

        def _look(self) -> None:
            """Cut the connection if it is overdue, look again when it could be, or rest until the next request."""
            self._timer = None
            if self._waiting_for == "nothing" or self.transport.is_closing():
                return
            now_s = self.loop.time()
            if self._waiting_for == "head":
                due_s = self._heard_s + patience.head_s
            else:
                if self.flow.read_paused:
                    # It may send; it is us who do not read now.
                    self._heard_s = now_s
                due_s = self._heard_s + patience.idle_s
                if not self.scope.get("unhurried"):
                    due_s = min(due_s, self._began_s + patience.body_s)
            if now_s < due_s:
                self._timer = self.loop.call_later(due_s - now_s, self._look)
            elif self._waiting_for == "body" and self.cycle is not None and not self.cycle.response_started:
                given = dict(self.headers).get(b"x-request-id")
                made = request_id(None if given is None else given.decode("latin-1"))
                log.warning("request_timed_out", request_id=made, waited_s=round(now_s - self._began_s, 1))
                self._refuse(408, "the body did not come in time", made)
            else:
                self.transport.close()

        def _refuse(self, status: int, message: str, made: str, *, at_once: bool = True) -> None:
            self._refused = True
            body = error_body(status=status, message=message, request_id=made)
            head = (
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nx-request-id: {made}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
            if at_once:
                self.transport.close()
            else:
                self.transport.write_eof()

    return Protocol


def _too_long(url_bytes: int) -> tuple[int, str]:
    limit = f"longer than the {HEAD_BYTES_MAX} bytes that are taken"
    if url_bytes > HEAD_BYTES_MAX // 2:
        return 414, f"the URL with its headers is {limit}; ask for less at once"
    return 431, f"the request's headers are {limit}"


class _Corked(asyncio.Transport):
    """Joins what is written in one turn of the loop: an answer's head and body leave in one packet, with one system call."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._ended = False
        for name in ("is_closing", "pause_reading", "resume_reading", "get_extra_info", "set_protocol", "get_protocol"):
            setattr(self, name, getattr(transport, name))

    def write(self, data: Any) -> None:
        if self._held:
            self._held.append(data)
            self._flush()
        elif data:
            self._held.append(data)
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def write_eof(self) -> None:
        self._flush()
        self._ended = True
        self._transport.write_eof()

    def abort(self) -> None:
        self._held.clear()
        self._transport.abort()

    def _flush(self) -> None:
        if self._held:
            data = self._held[0] if len(self._held) == 1 else b"".join(self._held)
            self._held.clear()
            if not (self._ended or self._transport.is_closing()):
                self._transport.write(data)
