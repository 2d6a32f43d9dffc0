"""The run driver's consumer, of a worker that has only just begun to start."""

import asyncio
from typing import Any, cast

from processors.app import build
from processors.driver import RunConsumer
from processors.settings import WorkerSettings


def test_a_consumer_that_has_not_started_is_asked_and_is_not_ready() -> None:
    """`/readyz` answers as soon as the port does, which is before there is a consumer."""

    async def ask() -> bool:
        app = build(WorkerSettings(), owner=cast("Any", None), service=cast("Any", None))
        consumer: RunConsumer = app.consumer
        return consumer.ready()

    assert asyncio.run(ask()) is False
