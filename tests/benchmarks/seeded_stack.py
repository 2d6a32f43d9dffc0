"""A stack on a folder of `seed_executions`: Kafka, ClickHouse, a worker and the query service as processes."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from ingest.keys import create_key
from tests.benchmarks.seed_executions import PARTITIONS
from tests.support.pipeline import Pipeline, Process, eventually
from tests.support.ports import HOST, free_port

ORG = "bench"


@dataclass(frozen=True, slots=True)
class SeededStack:
    """Answers at `http://HOST:port`."""

    pipeline: Pipeline
    service: Process
    port: int

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def create_key(self, project: str) -> str:
        """Create a key of a project; of the organisation where it is empty."""
        return asyncio.run(create_key(self.pipeline.kafka.address, project_id=project, org_id=ORG))[1]


@contextmanager
def seeded_stack(
    folder: Path, *, worker: Mapping[str, str] | None = None, query: Mapping[str, str] | None = None
) -> Iterator[SeededStack]:
    """Start everything, and end it so that the folder can be opened again.

    Args:
        worker, query: more of their environment.
    """
    pipeline = Pipeline(folder, partitions=PARTITIONS)
    try:
        pipeline.start()
        at_work = pipeline.start_worker(**(worker or {}))
        port = free_port()
        env = {**pipeline.env, "TOOLLEDGER_QUERY_PORT": str(port), **(query or {})}
        service = Process("query", ["query"], folder=folder, env=env)
        eventually("partitions are open", lambda: at_work.said().count("partition_opened") >= PARTITIONS, timeout_s=300)
        eventually("the service is ready", lambda: _ready(port))
        yield SeededStack(pipeline, service, port)
        service.end()
        at_work.end()
        assert pipeline.clickhouse is not None
        pipeline.clickhouse.end()
        pipeline.kafka.stop()
    finally:
        pipeline.stop()


def _ready(port: int) -> bool:
    try:
        with urlopen(f"http://{HOST}:{port}/readyz", timeout=5) as answer:
            return bool(json.loads(answer.read())["status"] == "ready")
    except OSError:
        return False
