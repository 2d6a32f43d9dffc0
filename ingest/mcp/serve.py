"""Runs the HTTP proxy until a signal asks it to stop."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from ingest.contract.errors import ConfigurationError
from ingest.mcp.endings import Ending
from ingest.mcp.proxy import Proxy
from ingest.mcp.tap import Tap

_HOST = "127.0.0.1"


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to us: uvicorn would end the process by them."""
        yield


def serve(url: str, port: int, tap: Tap, *, ready: Callable[[str], None]) -> Ending:
    """Serve at a loopback port.

    Args:
        port: 0 takes a free one.
        ready: is told this address, once it is listened on.

    Returns:
        Why the calls that are still open got no answer.

    Raises:
        ConfigurationError: the port cannot be listened on.
    """
    try:
        listening = socket.create_server((_HOST, port), backlog=512)
    except OSError as error:
        fault = f"cannot listen on port {port}: {error.strerror or error}; choose another with --port"
        raise ConfigurationError(fault) from None
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    with listening:
        return asyncio.run(_serve(url, listening, tap, ready))


async def _serve(url: str, listening: socket.socket, tap: Tap, ready: Callable[[str], None]) -> Ending:
    proxy = Proxy(url, tap)
    config = uvicorn.Config(
        proxy,
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        # Streams have no end of their own.
        timeout_graceful_shutdown=0,
    )
    server = _Server(config)

    def stop() -> None:
        server.should_exit = server.force_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    ready(f"http://{_HOST}:{listening.getsockname()[1]}")
    try:
        await server.serve(sockets=[listening])
    finally:
        await proxy.close()
    return Ending(why="interrupted", message="connection closed: the recording proxy was told to end")
