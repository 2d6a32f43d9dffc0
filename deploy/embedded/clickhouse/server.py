"""The server: its parts put together, its socket, its start and its stop."""

from __future__ import annotations

import asyncio
import errno
import functools
import resource
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from deploy.embedded.clickhouse.app import Application
from deploy.embedded.clickhouse.body import Spool
from deploy.embedded.clickhouse.connections import Connections
from deploy.embedded.clickhouse.data_folder import CannotStart, DataFolder
from deploy.embedded.clickhouse.engine import Engine
from deploy.embedded.clickhouse.engine_config import write_config
from deploy.embedded.clickhouse.errors import ClickHouseError
from deploy.embedded.clickhouse.execution import Execution
from deploy.embedded.clickhouse.options import ClickHouseOptions
from deploy.embedded.clickhouse.processes import RunningQueries
from deploy.embedded.clickhouse.sessions import Sessions
from deploy.embedded.clickhouse.settings import CONNECTION_DEFAULTS

log = structlog.get_logger("toolledger.clickhouse")

# Clients keep connections for minutes; closing one just as it is used again costs them a retry.
_KEEP_ALIVE_SECONDS = 300
_BACKLOG = 1024


def serve(options: ClickHouseOptions, on_ready: Callable[[str, int], None] | None = None) -> None:
    """Run a server until SIGTERM or SIGINT.

    Args:
        options: how to run it.
        on_ready: called with host and port once requests are answered.

    Raises:
        CannotStart: folder or port cannot be used; the text says what to do.

    Guarantee: an insert that was answered is in the page cache of this machine, so it outlives the process however that
    ends; a stop on a signal also closes the engine in order.
    """
    listener = _listen(options)
    _raise_file_limit()
    try:
        folder = DataFolder(options.data)
    except BaseException:
        listener.close()
        raise
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(options, folder, listener, on_ready))
    finally:
        folder.release()


def _raise_file_limit() -> None:
    """Parts are many files, and the usual soft limit of 1,024 is soon reached; the hard one is what the machine allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _listen(options: ClickHouseOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host, options.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise CannotStart(
                f"port {options.port} of {options.host} is in use: stop what listens there, or choose another one with --port"
            ) from None
        raise CannotStart(f"cannot listen on {options.host} port {options.port}: {error.strerror or error}") from None
    listener.setblocking(False)
    return listener


async def _serve(
    options: ClickHouseOptions,
    folder: DataFolder,
    listener: socket.socket,
    on_ready: Callable[[str, int], None] | None,
) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)

    try:
        engine = Engine(
            folder=folder.store,
            config_file=write_config(options, folder.path),
            defaults={**CONNECTION_DEFAULTS, "max_threads": str(options.effective_threads)},
        )
    except ClickHouseError as error:
        raise CannotStart(f"the engine cannot open {folder.store}: {error.message}") from None

    def kill(thread_id: int) -> None:
        connection = engine.connect()
        try:
            running = f"SELECT query_id FROM system.processes WHERE has(thread_ids, {thread_id})"
            connection.execute(f"KILL QUERY WHERE query_id IN ({running})".encode())
        finally:
            connection.close()

    queries = RunningQueries(kill)
    threads = ThreadPoolExecutor(options.query_threads, thread_name_prefix="query")
    readers = ThreadPoolExecutor(options.query_threads, thread_name_prefix="reader")
    orders = ThreadPoolExecutor(4, thread_name_prefix="order")
    sessions = Sessions(lambda connection: orders.submit(connection.close))
    new_spool = functools.partial(Spool, memory_bytes=options.body_memory_bytes, folder=folder.spools)
    execution = Execution(connections=Connections(engine, new_spool), queries=queries, readers=readers, new_spool=new_spool)
    application = Application(
        engine=engine,
        users=options.users,
        execution=execution,
        queries=queries,
        sessions=sessions,
        threads=threads,
        orders=orders,
    )
    state = ServerState()
    config = uvicorn.Config(
        application,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        ws="none",
        interface="asgi3",
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    )
    config.load()
    # uvicorn's protocol without its Server: that one wakes ten times a second, and ends by killing its own process.
    server = await loop.create_server(lambda: HttpToolsProtocol(config=config, server_state=state, app_state={}), sock=listener)
    host, port = listener.getsockname()[:2]
    log.info("clickhouse_ready", host=host, port=port, version=engine.version)
    if on_ready is not None:
        on_ready(host, port)
    await stopping.wait()

    # 1. No new connections; those that are open end with the request they carry.
    log.info("clickhouse_stopping", running=len(queries.running()))
    server.close()
    for connection in list(state.connections):
        connection.shutdown()
    # 2. Running statements may end; what is too slow is cancelled and answered with that.
    if state.tasks:
        await asyncio.wait(state.tasks, timeout=options.stop_grace_seconds)
    for query in queries.running():
        await loop.run_in_executor(orders, queries.cancel, query)
    if state.tasks:
        await asyncio.wait(state.tasks, timeout=options.stop_grace_seconds)
    # 3. The engine closes with its last connection, and writes out what it still holds.
    sessions.close_all()
    for pool in (threads, readers, orders):
        pool.shutdown(wait=True)
    engine.close()
    log.info("clickhouse_stopped")
