"""The worker's composition root: settings, adapters, service, run."""

import asyncio
import os
import socket
import sys
import time
from typing import Any

import faust
from setproctitle import setproctitle

from ingest.contract import logs
from ingest.contract.control import ControlFollower
from ingest.contract.errors import ConfigurationError
from ingest.contract.logs import logger
from processors import faults, header_names, memory
from processors.app import build
from processors.broker import KafkaBroker
from processors.driver import RunConsumer
from processors.service import WorkerService, now_ms
from processors.settings import WorkerSettings
from processors.sink import ClickHouseStore

log = logger(__name__)

_KAFKA_RETRY_S = 2.0


class _Owner:
    """Stands in for the service until it is made: the driver must be told its owner first."""

    service: WorkerService

    def suspend(self) -> None:
        self.service.suspend()

    async def open(self, partition: int, generation: int) -> int | None:
        return await self.service.open(partition, generation)

    async def finish(self, timeout_s: float) -> None:
        await self.service.finish(timeout_s)


class _Worker(faust.Worker):  # type: ignore[misc]
    """Faust's worker under our name, so that people find it among the processes."""

    def _setproctitle(self, info: str, *, ident: str = "") -> None:
        """The title is set once, by main."""


def _require_port(host: str, port: int) -> None:
    """Refuse a port that is taken before anything else is begun.

    Raises:
        ConfigurationError: with the setting to change.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"port {port} of {host} cannot be used ({error.strerror}): choose another with TOOLLEDGER_WORKER_PORT"
            ) from None


def _await_kafka(kafka: str) -> None:
    """Wait until one of the brokers listens: Faust ends where none answers at once, and a worker may well be started first."""
    addresses = [address.strip().rpartition(":") for address in kafka.split(",")]
    while True:
        for host, _, port in addresses:
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=_KAFKA_RETRY_S).close()
            except OSError:
                continue
            return
        log.warning("kafka_awaited", kafka=kafka, retry_s=_KAFKA_RETRY_S)
        time.sleep(_KAFKA_RETRY_S)


def main(settings: WorkerSettings) -> int:
    """Run a worker until it is told to stop; return its exit code."""
    setproctitle("toolledger worker")
    # Never stricter about nesting than ingest: what it took must not become a dead letter.
    sys.setrecursionlimit(2 * sys.getrecursionlimit())
    memory.give_back()
    header_names.forgive()
    logs.configure(service="worker", level=settings.log_level, json=settings.log_json)
    _require_port(settings.worker_host, settings.worker_port)
    _await_kafka(settings.kafka)
    owner = _Owner()
    app = build(settings, owner=owner, service=lambda: owner.service)

    def consumer() -> RunConsumer:
        found: RunConsumer = app.consumer
        return found

    broker = KafkaBroker(settings.kafka, consumer=consumer, session_timeout_ms=settings.session_timeout_ms)
    store = ClickHouseStore(
        settings.clickhouse.get_secret_value(),
        timeout_ms=settings.store_timeout_ms,
        now_ms=now_ms,
        horizon_ms=settings.dedupe_horizon_ms,
    )
    control = ControlFollower(settings.kafka)
    owner.service = WorkerService(
        settings,
        name=f"{socket.gethostname()}:{os.getpid()}",
        broker=broker,
        store=store,
        consumer=consumer,
        control=control,
        reached=faults.from_environment(),
        crash=app.crash,
    )
    background: list[asyncio.Task[None]] = []

    @app.on_before_configured.connect  # type: ignore[untyped-decorator]
    def _quiet(sender: Any, **_: Any) -> None:
        """Faust would set up logging of its own here."""

    @app.task  # type: ignore[untyped-decorator]
    async def _begin() -> None:
        control.start()
        background.append(asyncio.create_task(owner.service.report_forever(), name="progress"))

    @app.on_before_shutdown.connect  # type: ignore[untyped-decorator]
    async def _end(sender: Any, **_: Any) -> None:  # noqa: ARG001
        for task in background:
            task.cancel()
        await consumer().give_up()
        await owner.service.give_up()
        await control.stop()
        await broker.close()
        await store.close()
        owner.service.close()

    worker = _Worker(app, loglevel=None, override_logging=False, redirect_stdouts=False, quiet=True, console_port=0)
    worker.spinner = None
    log.info("worker_started", kafka=settings.kafka, port=settings.worker_port)
    try:
        worker.execute_from_commandline()
    except SystemExit as error:
        return int(error.code or 0)
    return 0
