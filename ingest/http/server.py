"""The listening side: one socket, uvicorn on uvloop and httptools, and connections that never stay half-dead."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final, Literal

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingest.contract.errors import ConfigurationError
from ingest.contract.http_errors import error_body, request_id
from ingest.contract.logs import logger
from ingest.http.app import IngestApp
from ingest.settings import IngestSettings

log = logger(__name__)

_BACKLOG: Final = 2048


def listen(host: str, port: int) -> socket.socket:
    """Bind the public address.

    Raises:
        ConfigurationError: it is in use, not ours, or may not be bound; says what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except (OSError, UnicodeError) as error:
        listening.close()
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            raise ConfigurationError(f"port {port} on {host} is in use; stop what listens there or choose another") from None
        if number == errno.EACCES:
            raise ConfigurationError(f"port {port} may not be bound by this user; choose one above 1023") from None
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error}; check the host and the port") from None
    return listening


class Server(uvicorn.Server):
    """uvicorn without its own signal handling, which would end the process by the signal instead of with exit code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the composition root."""
        yield


def make_server(app: IngestApp, settings: IngestSettings) -> Server:
    """Return a server for the application; `serve(sockets=[...])` runs it until `should_exit` is set."""
    config = uvicorn.Config(
        app,
        http=_protocol(
            _Patience(
                head_s=settings.ingest_head_timeout_s,
                idle_s=settings.ingest_body_idle_timeout_s,
                body_s=settings.ingest_body_timeout_s,
            )
        ),
        ws="none",
        lifespan="off",
        loop="none",
        interface="asgi3",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=settings.ingest_keep_alive_s,
        timeout_graceful_shutdown=settings.ingest_stop_timeout_s,
    )
    return Server(config)


class _Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long a connection is waited for, in seconds: a whole head, silence within a body, a whole body."""

    head_s: float
    idle_s: float
    body_s: float


def _protocol(patience: _Patience) -> type[HttpToolsProtocol]:
    class Protocol(HttpToolsProtocol):
        """Cuts a connection that keeps us waiting within a request, and answers nonsense with the Error body.

        One timer a connection, looked at when it fires and not touched by each request, so that it costs nothing.
        """

        _timer: asyncio.TimerHandle | None = None
        _waiting_for: Literal["head", "body", "nothing"] = "nothing"
        _began_s = 0.0
        _heard_s = 0.0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(_Corked(transport, self.loop))
            self._wait_for_head()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._wait_for_head()

        def on_headers_complete(self) -> None:
            self._waiting_for = "body"
            self._began_s = self._heard_s = self.loop.time()
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._heard_s = self.loop.time()
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._waiting_for = "nothing"
            super().on_message_complete()

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, msg, request_id())

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
                due_s = min(self._heard_s + patience.idle_s, self._began_s + patience.body_s)
            if now_s < due_s:
                self._timer = self.loop.call_later(due_s - now_s, self._look)
            elif self._waiting_for == "body" and self.cycle is not None and not self.cycle.response_started:
                given = dict(self.headers).get(b"x-request-id")
                made = request_id(None if given is None else given.decode("latin-1"))
                log.warning("request_timed_out", request_id=made, waited_s=round(now_s - self._began_s, 1))
                self._refuse(408, "the body did not come in time", made)
            else:
                self.transport.close()

        def _refuse(self, status: int, message: str, made: str) -> None:
            body = error_body(status=status, message=message, request_id=made)
            head = (
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nx-request-id: {made}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
            self.transport.close()

    return Protocol


class _Corked(asyncio.Transport):
    """Joins what is written in one turn of the loop: an answer's head and body leave in one packet, with one system call."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
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

    def abort(self) -> None:
        self._held.clear()
        self._transport.abort()

    def _flush(self) -> None:
        if self._held:
            data = self._held[0] if len(self._held) == 1 else b"".join(self._held)
            self._held.clear()
            if not self._transport.is_closing():
                self._transport.write(data)


def address_of(listening: socket.socket) -> str:
    """Return the URL of a listening socket."""
    name: tuple[Any, ...] = listening.getsockname()
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}"
