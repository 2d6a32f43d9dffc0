"""Composition root of the ingest service: settings, adapters, application, run."""

import asyncio
import gc
import logging
import signal
import sys

from setproctitle import setproctitle

from ingest.contract import logs
from ingest.contract.control import ControlFollower
from ingest.contract.errors import ConfigurationError
from ingest.contract.http_connections import raise_file_limit
from ingest.gateway.gateway import Gateway
from ingest.gateway.recorder import Recorder
from ingest.gateway.spool import Spool
from ingest.http.app import IngestApp
from ingest.http.body import InFlight
from ingest.http.events import EventsRoute
from ingest.http.forward import Forwarder
from ingest.http.health import HealthRoutes
from ingest.http.intake import Intake
from ingest.http.server import address_of, listen, make_server
from ingest.http.traces import TracesRoute
from ingest.publisher import Publisher
from ingest.settings import IngestSettings

log = logs.logger(__name__)


def main(settings: IngestSettings) -> int:
    """Serve until SIGTERM or SIGINT.

    Order of a stop: (1) not ready any more, and no new connections; (2) accepted requests are finished, endless streams ended;
    (3) what Kafka has not acknowledged yet is waited for, executions recorded included; (4) exit.

    Returns:
        0 after a stop that was asked for, 2 where settings or the machine do not allow a start.
    """
    setproctitle("toolledger ingest")
    logs.configure(service="ingest", level=settings.log_level, json=settings.log_json)
    # Its lines repeat with every attempt; the publisher says once what was lost and when it is back.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    raise_file_limit()
    # Requests make many objects and no cycles: looking for cycles less often gives back a tenth of the time.
    gc.set_threshold(50_000, 10, 10)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serve(settings))
    except ConfigurationError as error:
        print(f"toolledger ingest: {error}", file=sys.stderr)
        return 2
    return 0


async def serve(settings: IngestSettings) -> None:
    """Run the service in the present loop until a signal asks it to stop.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    listening = listen(settings.host, settings.port)
    control = ControlFollower(settings.kafka)
    publisher = Publisher(settings)
    forwarder = Forwarder(settings) if settings.query_url is not None else None
    health = HealthRoutes(control=control, publisher=publisher)
    in_flight = InFlight(settings.ingest_in_flight_bytes_max, retry_after_s=settings.ingest_retry_after_s)
    intake = Intake(settings, control=control, publisher=publisher, in_flight=in_flight)
    events = EventsRoute(intake, control=control)
    traces = TracesRoute(intake, control=control)
    gateway = _gateway(settings, control=control, publisher=publisher, in_flight=in_flight)
    app = IngestApp(events=events, traces=traces, health=health, forwarder=forwarder, gateway=gateway)
    server = make_server(app, settings)

    def stop() -> None:
        if server.should_exit:
            server.force_exit = True
        server.should_exit = True
        health.stopping = True
        if forwarder is not None:
            forwarder.end_streams()
        if gateway is not None:
            gateway.end_streams()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    control.start()
    publisher.start()
    if gateway is not None:
        gateway.start()
    gc.freeze()
    log.info(
        "ingest_listening",
        url=address_of(listening),
        kafka=settings.kafka,
        query=settings.query_url,
        upstream=settings.upstream,
    )
    try:
        await server.serve(sockets=[listening])
    finally:
        if gateway is not None:
            await gateway.stop()
        await publisher.stop()
        await control.stop()
        if forwarder is not None:
            forwarder.close()
        log.info("ingest_stopped")


def _gateway(
    settings: IngestSettings, *, control: ControlFollower, publisher: Publisher, in_flight: InFlight
) -> Gateway | None:
    if settings.upstream is None:
        return None
    spool = settings.upstream_spool
    recorder = Recorder(
        settings,
        publisher=publisher,
        spool=None if spool is None else Spool(spool, bytes_max=settings.upstream_spool_bytes_max),
        keeps_payload=lambda project_id: control.access.rules_of(project_id).store_payloads,
    )
    return Gateway(settings, control=control, recorder=recorder, in_flight=in_flight)


def _loop_factory() -> "type[asyncio.AbstractEventLoop] | None":
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - not there on Windows

    return uvloop.Loop


if __name__ == "__main__":
    from ingest.contract.settings import load

    sys.exit(main(load(IngestSettings)))
