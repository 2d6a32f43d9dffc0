"""The listening side: one socket, uvicorn on uvloop and httptools, and connections that never stay half-dead."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingest.contract.errors import ConfigurationError
from ingest.contract.http_errors import error_body, request_id
from ingest.http.app import IngestApp
from ingest.settings import IngestSettings

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
        http=_protocol(settings.ingest_head_timeout_s),
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


def _protocol(head_timeout_s: float) -> type[HttpToolsProtocol]:
    class Protocol(HttpToolsProtocol):
        """Cuts a connection that does not finish a request's head in time, and answers nonsense with the Error body."""

        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(_Corked(transport, self.loop))
            self._head_timer = self.loop.call_later(head_timeout_s, self._cut)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(head_timeout_s, self._cut)

        def on_headers_complete(self) -> None:
            self._stop_timer()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            made = request_id()
            body = error_body(status=400, message=msg, request_id=made)
            head = (
                f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
                f"x-request-id: {made}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
            self.transport.close()

        def _stop_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _cut(self) -> None:
            self._head_timer = None
            if not self.transport.is_closing():
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
