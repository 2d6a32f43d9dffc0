"""The Faust app: its settings, its one agent, and its pages for machines."""

import asyncio
import json
import logging
import tempfile
from collections.abc import AsyncIterable, Callable
from pathlib import Path
from typing import Any

import faust
from aiohttp import web
from yarl import URL

from ingest.contract import metrics
from ingest.contract.topics import CONSUMER_GROUP, TOOL_EXECUTIONS
from processors.driver import Owner, RunSchema, transport
from processors.runs import Run
from processors.service import WorkerService
from processors.settings import WorkerSettings

# A worker pauses for as long as ClickHouse is away, and keeps its partitions meanwhile: heartbeats prove that it lives.
_POLL_INTERVAL_S_MAX = 24 * 3600.0


def build(settings: WorkerSettings, *, owner: Owner, service: Callable[[], WorkerService]) -> Any:
    """Make the app.

    Args:
        settings: the worker's.
        owner: whom the driver asks where a partition starts.
        service: gives the service, which is made after the app.
    """
    session_s = settings.session_timeout_ms / 1000
    brokers = [URL(f"kafka://{address.strip()}") for address in settings.kafka.split(",")]
    app = faust.App(
        CONSUMER_GROUP,
        broker=brokers,
        datadir=str(Path(tempfile.gettempdir()) / "toolledger-faust"),
        stream_wait_empty=True,
        topic_allow_declare=False,
        topic_disable_leader=True,
        broker_session_timeout=session_s,
        broker_heartbeat_interval=max(0.5, session_s / 10),
        broker_request_timeout=max(30.0, session_s + 5),
        broker_rebalance_timeout=max(30.0, session_s),
        broker_max_poll_interval=_POLL_INTERVAL_S_MAX,
        broker_max_poll_records=settings.fetch_records,
        consumer_max_fetch_size=settings.fetch_bytes,
        consumer_auto_offset_reset="earliest",
        consumer_metadata_max_age_ms=10_000,
        web_enabled=True,
        web_host=settings.worker_host,
        web_bind=settings.worker_host,
        web_port=settings.worker_port,
        loghandlers=[],
    )
    app.conf.override_logging = False
    made = transport(owner, TOOL_EXECUTIONS, ahead_bytes=settings.ahead_bytes, interval_s=settings.batch_interval_ms / 1000)
    app.transport = made(brokers, app)
    topic = app.topic(TOOL_EXECUTIONS, schema=RunSchema(), internal=False)

    @app.agent(topic, isolated_partitions=True, concurrency=1, name="ledger")  # type: ignore[untyped-decorator]
    async def ledger(runs: AsyncIterable[Run]) -> None:
        async for run in runs:
            try:
                await service().process(run)
            except asyncio.CancelledError:
                # The partition went, or the worker stops. Faust takes an agent that ends by this for one that has crashed.
                return

    _pages(app, service)
    for name in list(logging.root.manager.loggerDict):
        # Each of their loggers has a level of its own.
        if name.startswith(("faust", "mode")):
            logging.getLogger(name).setLevel(logging.WARNING)
    return app


def _pages(app: Any, service: Callable[[], WorkerService]) -> None:
    @app.page("/healthz", name="healthz")  # type: ignore[untyped-decorator]
    async def healthz(view: Any, request: Any) -> Any:  # noqa: ARG001
        return web.Response(text='{"status":"ok"}', content_type="application/json")

    @app.page("/readyz", name="readyz")  # type: ignore[untyped-decorator]
    async def readyz(view: Any, request: Any) -> Any:  # noqa: ARG001
        reasons = await service().unready()
        told = {"status": "unready" if reasons else "ready", "reasons": reasons, "warnings": service().warnings()}
        body = json.dumps(told)
        return web.Response(text=body, content_type="application/json", status=503 if reasons else 200)

    @app.page("/metrics", name="metrics")  # type: ignore[untyped-decorator]
    async def metrics_page(view: Any, request: Any) -> Any:  # noqa: ARG001
        return web.Response(body=metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})
