"""A pipeline of a test's own: Kafka, ClickHouse and workers as real processes, to be killed and started again at will."""

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from clickhouse_connect.driver.client import Client

from deploy import migrate
from deploy import topics as topic_admin
from deploy.verify import Report, lag_records, verify
from ingest.contract.partitioning import event_key, home_partition
from ingest.contract.store import client
from ingest.contract.topics import RECORD_BYTES_MAX, TOOL_EXECUTIONS, topics
from tests.support.own_kafka import OwnCluster, OwnKafka
from tests.support.ports import HOST, free_port
from tests.support.process import WAIT_S, Process, eventually

__all__ = ["Pipeline", "Process", "at_work", "eventually"]


@contextmanager
def at_work(folder: Path) -> "Iterator[Pipeline]":
    """Give a pipeline with one worker, and stop it."""
    made = Pipeline(folder)
    try:
        made.start()
        made.start_worker()
        yield made
    finally:
        made.stop()


class Pipeline:
    """Kafka and ClickHouse with topics and tables, and as many workers as asked for."""

    def __init__(self, folder: Path, *, partitions: int = 4, kafka: OwnKafka | OwnCluster | None = None) -> None:
        self.folder = folder
        self.partitions = partitions
        self.kafka = kafka or OwnKafka(folder / "kafka")
        self.clickhouse_port = free_port()
        self.clickhouse: Process | None = None
        self.workers: list[Process] = []

    @property
    def clickhouse_url(self) -> str:
        return f"http://{HOST}:{self.clickhouse_port}"

    @property
    def env(self) -> dict[str, str]:
        return {
            "TOOLLEDGER_KAFKA": self.kafka.address,
            "TOOLLEDGER_CLICKHOUSE": self.clickhouse_url,
            "TOOLLEDGER_SESSION_TIMEOUT_MS": "6000",
            "TOOLLEDGER_RETRY_MS_MAX": "500",
            "TOOLLEDGER_PROGRESS_MS": "300",
            "TOOLLEDGER_DEDUPE_BYTES": str(16 * 1024 * 1024),
        }

    def start(self) -> None:
        """Start both servers, and make topics and tables."""
        self.kafka.start()
        self.start_clickhouse()
        topic_admin.apply(self.kafka.address, topics(partitions=self.partitions))
        migrate.apply(self.clickhouse_url)

    def start_clickhouse(self) -> None:
        self.launch_clickhouse()
        eventually("ClickHouse answers", self._answers)

    def launch_clickhouse(self) -> Process:
        """Start it without waiting."""
        arguments = ["clickhouse", "--data", str(self.folder / "clickhouse"), "--port", str(self.clickhouse_port)]
        self.clickhouse = Process("clickhouse", arguments, folder=self.folder, env={})
        return self.clickhouse

    def start_worker(self, **env: str) -> Process:
        name = f"worker-{len(self.workers)}"
        port = {"TOOLLEDGER_WORKER_PORT": str(free_port())}
        worker = Process(name, ["worker"], folder=self.folder, env={**self.env, **port, **env})
        self.workers.append(worker)
        return worker

    def stop(self) -> None:
        """End everything that still runs."""
        for worker in self.workers:
            worker.end(signal.SIGKILL)
        if self.clickhouse is not None:
            self.clickhouse.end(signal.SIGKILL)
        self.kafka.stop(kill=True)

    def store(self) -> Client:
        return client(self.clickhouse_url)

    def rows(self, query: str) -> Any:
        store = self.store()
        try:
            return store.query(query).result_rows
        finally:
            store.close()

    def verify(self) -> Report:
        return verify(self.kafka.address, self.clickhouse_url)

    def lag(self) -> int:
        """Return how many records are not proved yet."""
        return lag_records(self.kafka.address, self.clickhouse_url)

    def settled(self, *, timeout_s: float = WAIT_S) -> Report:
        """Wait until every record is proved, and return what `verify` says then."""
        reports: list[Report] = []

        def all_proved() -> bool:
            if self.lag():
                return False
            reports[:] = [self.verify()]
            return not reports[0].lag_records

        eventually("every record is proved", all_proved, timeout_s=timeout_s)
        return reports[0]

    def send(self, events: Sequence[tuple[str, bytes]], *, project: str = "demo", pack: int = 50) -> None:
        """Send (id, JSON) events straight to Kafka, packed by home partition; returns once Kafka has them."""
        by_home: dict[int, list[bytes]] = {}
        for event_id, raw in events:
            by_home.setdefault(home_partition(event_key(project, event_id), self.partitions), []).append(raw)
        records = [
            (b"[" + b",".join(raws[start : start + pack]) + b"]", home)
            for home, raws in by_home.items()
            for start in range(0, len(raws), pack)
        ]
        self.send_records(records, project=project)

    def send_records(
        self, records: Sequence[tuple[bytes, int]], *, project: str | None = "demo", wait_each: bool = True
    ) -> None:
        """Send (value, partition) records; returns once Kafka has them. Waiting for each makes each a batch of its own."""
        asyncio.run(self._send(records, [("project_id", project.encode())] if project else [], wait_each))

    async def _send(self, records: Sequence[tuple[bytes, int]], headers: list[tuple[str, bytes]], wait_each: bool) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self.kafka.address,
            acks="all",
            compression_type="lz4",
            max_request_size=RECORD_BYTES_MAX,
            max_batch_size=512 * 1024,
        )
        await producer.start()
        try:
            sent = []
            for value, partition in records:
                sent.append(await producer.send(TOOL_EXECUTIONS, value, partition=partition, headers=headers))
                if wait_each:
                    await sent.pop()
            await asyncio.gather(*sent)
        finally:
            await producer.stop()

    def _answers(self) -> bool:
        assert self.clickhouse is not None
        assert self.clickhouse.alive, self.clickhouse.said()[-2000:]
        try:
            return bool(self.rows("SELECT 1"))
        except Exception:  # any failure means: not yet
            return False
