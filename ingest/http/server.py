"""The listening side: one socket, and uvicorn on uvloop and httptools."""

import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any, Final

import uvicorn

from ingest.contract.errors import ConfigurationError
from ingest.contract.http_connections import Patience, patient_protocol
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
        http=patient_protocol(
            Patience(
                head_s=settings.ingest_head_timeout_s,
                idle_s=settings.ingest_body_idle_timeout_s,
                body_s=settings.ingest_body_timeout_s,
                unread_s=settings.ingest_unread_timeout_s,
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


def address_of(listening: socket.socket) -> str:
    """Return the URL of a listening socket."""
    name: tuple[Any, ...] = listening.getsockname()
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}"
