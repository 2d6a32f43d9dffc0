"""A real ingest process for tests, and what it wrote to Kafka."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from ingest.contract.topics import TOOL_EXECUTIONS
from tests.support.plain_http import HTTP
from tests.support.ports import HOST, free_port

_ROOT = Path(__file__).parents[2]


@dataclass(slots=True, kw_only=True)
class IngestService:
    """One `toolledger ingest` process; a context manager that stops it."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @classmethod
    def start(cls, kafka: str, folder: Path, *, ready: bool = True, **settings: object) -> Self:
        """Start a process, by default until it says that it is ready.

        Args:
            settings: of `IngestSettings`, by name.
        """
        port = free_port()
        log = folder / f"ingest-{port}.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TOOLLEDGER_")}
        environment |= {"TOOLLEDGER_KAFKA": kafka, "TOOLLEDGER_PORT": str(port), "TOOLLEDGER_LOG_LEVEL": "debug"}
        environment |= {f"TOOLLEDGER_{name.upper()}": str(value) for name, value in settings.items()}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "ingest.run"], cwd=_ROOT, env=environment, stderr=output, stdout=output
            )
        service = cls(process=process, port=port, log=log)
        service.wait_for("/readyz" if ready else "/healthz", 200)
        return service

    def wait_for(self, path: str, status: int, *, deadline_s: float = 30) -> httpx.Response:
        """Wait until a path answers with a status."""
        answer: httpx.Response | httpx.TransportError | None = None
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            assert self.process.poll() is None, f"ingest ended: {self.log.read_text()}"
            try:
                answer = HTTP.get(self.url + path)
                if answer.status_code == status:
                    return answer
            except httpx.TransportError as error:
                answer = error
            time.sleep(0.02)
        last = answer.text if isinstance(answer, httpx.Response) else repr(answer)
        raise AssertionError(f"{path} never answered {status}: {last}; {self.log.read_text()[-4000:]}")

    def stop(self) -> int:
        """Ask it to stop and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


async def eventually(condition: Callable[[], Awaitable[object]], *, deadline_s: float = 60) -> None:
    """Wait until a condition of another process holds.

    Raises:
        TimeoutError: it did not by then.
    """
    async with asyncio.timeout(deadline_s):
        while not await condition():  # noqa: ASYNC110 - another process sets no event of ours
            await asyncio.sleep(0.02)


async def ends(kafka: str) -> dict[int, int]:
    """Return the end offset of each partition of the events' topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
    await consumer.start()
    try:
        await consumer._client.fetch_all_metadata()
        partitions = await consumer._client._wait_on_metadata(TOOL_EXECUTIONS)
        found = await consumer.end_offsets([TopicPartition(TOOL_EXECUTIONS, partition) for partition in partitions])
        return {each.partition: offset for each, offset in found.items()}
    finally:
        await consumer.stop()


async def records_since(kafka: str, offsets: dict[int, int]) -> list[ConsumerRecord]:
    """Read what was written to the events' topic behind given offsets, partition by partition."""
    until = await ends(kafka)
    if all(offsets.get(partition, 0) >= end_offset for partition, end_offset in until.items()):
        # A consumer that is stopped as soon as it was started trips over a task of its own.
        return []
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
    await consumer.start()
    try:
        found = []
        for partition, end_offset in sorted(until.items()):
            where = TopicPartition(TOOL_EXECUTIONS, partition)
            consumer.assign([where])
            consumer.seek(where, offsets.get(partition, 0))
            while await consumer.position(where) < end_offset:
                for records in (await consumer.getmany(where, timeout_ms=1000)).values():
                    found.extend(records)
        return found
    finally:
        await consumer.stop()
