"""Composition root of the query service: settings, adapters, application, run."""

import asyncio
import logging
import signal
import socket
import sys

import uvloop
from setproctitle import setproctitle

from ingest.contract import logs
from ingest.contract.control import ControlFollower
from ingest.contract.errors import ConfigurationError
from ingest.contract.http_connections import raise_file_limit
from ingest.contract.replayer import Replayer
from query_api.export.places import Exports
from query_api.http.app import application
from query_api.http.caller import may_read
from query_api.http.edge import Services
from query_api.http.server import BACKLOG, make_server
from query_api.live.hub import Tails
from query_api.live.proved import Proved
from query_api.past import Past
from query_api.progress import Freshness
from query_api.rate_limit import RateLimit
from query_api.settings import QuerySettings
from query_api.store import Reader

log = logs.logger(__name__)


def main(settings: QuerySettings) -> int:
    """Serve until SIGTERM or SIGINT; requests in flight are answered first.

    Returns:
        0 after a stop that was asked for, 2 where settings or the machine do not allow a start.
    """
    setproctitle("toolledger query")
    read_whatever_is_stored()
    logs.configure(service="query", level=settings.log_level, json=settings.log_json)
    # The follower says once that Kafka is away; these would say it with every attempt.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    raise_file_limit()
    try:
        with asyncio.Runner(loop_factory=uvloop.Loop) as runner:
            runner.run(serve(settings))
    except ConfigurationError as error:
        print(f"toolledger query: {error}", file=sys.stderr)
        return 2
    return 0


def read_whatever_is_stored() -> None:
    """Never be stricter about nesting than whoever wrote: of an event that cannot be shown, no page that holds it could be."""
    sys.setrecursionlimit(4 * sys.getrecursionlimit())


async def serve(settings: QuerySettings) -> None:
    """Run the service in the present loop until a signal asks it to stop.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    listening = _listen(settings.query_host, settings.query_port)
    control = ControlFollower(settings.kafka)
    reader = Reader(settings)
    freshness = Freshness(reader, cache_s=settings.freshness_cache_s)
    replayer = Replayer(settings.kafka, timeout_s=settings.query_replay_timeout_s)
    proved = Proved(reader)
    tails = Tails(
        reader,
        proved,
        in_force=lambda tenant: may_read(tenant, control.access),
        tails_max=settings.query_tails_max,
        poll_s=settings.query_tail_poll_s,
    )
    services = Services(
        settings=settings,
        control=control,
        reader=reader,
        freshness=freshness,
        past=Past(reader),
        replayer=replayer,
        rate_limit=RateLimit(settings.rate_limit_per_minute),
        proved=proved,
        tails=tails,
        exports=Exports(settings.query_exports_max),
    )
    server = make_server(application(services), stop_timeout_s=settings.query_stop_timeout_s)

    def stop() -> None:
        # A second signal does not wait for requests in flight.
        server.force_exit = server.should_exit
        server.should_exit = True
        # They have no end of their own; everything else in flight is answered.
        tails.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    control.start()
    host, port = listening.getsockname()[:2]
    log.info("query_listening", url=f"http://{host}:{port}", kafka=settings.kafka)
    try:
        await server.serve(sockets=[listening])
    finally:
        await control.stop()
        await freshness.close()
        await reader.close()
        await replayer.close()
        log.info("query_stopped")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"cannot listen on {host}:{port} ({reason}); set TOOLLEDGER_QUERY_PORT to a free port"
        ) from None
    listening.setblocking(False)
    return listening


if __name__ == "__main__":
    from ingest.contract.settings import load

    sys.exit(main(load(QuerySettings)))
