"""The listening side: uvicorn on httptools, with connections that never stay half-dead."""

import contextlib
from collections.abc import Iterator
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from ingest.contract.http_connections import Patience, patient_protocol

BACKLOG: Final = 1024
# Longer than the forwarding side keeps a connection, so that it never sends into one that is being closed.
_KEEP_ALIVE_S: Final = 90
# Questions are small: whoever needs longer than this to send one is not going to.
PATIENCE: Final = Patience(head_s=10, idle_s=10, body_s=60)


class Server(uvicorn.Server):
    """uvicorn, with signals left to the composition root."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: uvicorn would raise them again after its stop, and a clean stop would end as a kill."""
        yield


def make_server(application: ASGIApp, *, stop_timeout_s: int, patience: Patience = PATIENCE) -> Server:
    """Return a server for the application; `serve(sockets=[...])` runs it until `should_exit` is set.

    Args:
        stop_timeout_s: requests in flight may take this long at a stop.
        patience: how long a connection is waited for.
    """
    return Server(
        uvicorn.Config(
            application,
            http=patient_protocol(patience),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=stop_timeout_s,
        )
    )
