"""What every outage is judged by: who is in the group, what the worker says of itself, and how fresh it claims to be."""

import json
import time
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.test_ledger_crashes import recorded
from tests.support import kafka_admin
from tests.support.faulty_clickhouse import FaultyClickHouse
from tests.support.pipeline import Pipeline, Process, eventually
from tests.support.plain_http import HTTP
from tests.support.ports import HOST, free_port


class Outages:
    """A pipeline whose worker reaches ClickHouse through a proxy that can go wrong, and the count of what was sent."""

    def __init__(self, folder: Path, *, partitions: int = 4, **env: str) -> None:
        self.pipeline = Pipeline(folder, partitions=partitions)
        self.proxy = FaultyClickHouse(self.pipeline.clickhouse_port)
        self.sent = 0
        self.port = free_port()
        self.worker: Process | None = None
        self._env = {"TOOLLEDGER_STORE_TIMEOUT_MS": "1000", **env}
        self._last: list[tuple[str, bytes]] = []

    def start(self) -> None:
        self.pipeline.start()
        self.proxy.start()
        self.start_worker()

    def start_worker(self, *, ready: bool = True, **env: str) -> Process:
        own = {"TOOLLEDGER_CLICKHOUSE": self.proxy.url, "TOOLLEDGER_WORKER_PORT": str(self.port)}
        worker = self.worker = self.pipeline.start_worker(**own, **self._env, **env)
        if ready:
            eventually("the worker is ready", lambda: self.reasons() == [])
        return worker

    def stop(self) -> None:
        self.pipeline.stop()
        self.proxy.stop()

    def send(self, salt: str, *, count: int = 40, again: bool = True) -> None:
        """Send new events, and again some of those before, which count for nothing; ClickHouse is asked about these first."""
        made = recorded(count, salt=salt)
        self.pipeline.send([*made, *(self._last[: count // 4] if again else [])], pack=5)
        self._last = made
        self.sent += count

    def reasons(self) -> list[str] | None:
        """Return why the worker says it is not ready, None if it does not answer."""
        try:
            answer = HTTP.get(f"http://{HOST}:{self.port}/readyz", timeout=10)
        except httpx.HTTPError:
            return None
        said: list[str] = answer.json()["reasons"]
        assert answer.status_code == (503 if said else 200)
        return said

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        lines = HTTP.get(f"http://{HOST}:{self.port}/metrics", timeout=10).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def said(self, event: str) -> list[dict[str, Any]]:
        """Return the worker's log lines of one event."""
        assert self.worker is not None
        lines = self.worker.log.read_text().splitlines()
        return [line for line in (json.loads(line) for line in lines if line.startswith("{")) if line["event"] == event]

    def lines(self) -> int:
        """Return how much the worker has said."""
        assert self.worker is not None
        return self.worker.log.read_bytes().count(b"\n")

    def membership(self) -> tuple[Any, ...]:
        """Return who is in the group, and how often partitions were opened: equal as long as there was no rebalance."""
        members = kafka_admin.members(self.pipeline.kafka.address)
        assert members, "nobody is in the group"
        return (*members, len(self.said("partition_opened")))

    def claimed(self) -> dict[int, int]:
        """Return until when each partition says it is complete, epoch ms."""
        query = "SELECT kafka_partition, toUnixTimestamp64Milli(complete_until) FROM progress FINAL"
        return dict(self.pipeline.rows(query))

    def accepted(self, salt: str) -> dict[int, tuple[int, int]]:
        """Return when Kafka accepted the first and the last event of some, by partition, epoch ms."""
        rows = self.pipeline.rows(
            "SELECT kafka_partition, toUnixTimestamp64Milli(min(accepted_at)), toUnixTimestamp64Milli(max(accepted_at))"
            f" FROM tool_executions WHERE startsWith(id, '{salt}-') GROUP BY 1"
        )
        return {partition: (first, last) for partition, first, last in rows}

    def all_caught_up(self, salt: str, claimed: dict[int, int]) -> None:
        """Everything sent is there once and proved, and freshness said nothing during the outage that was not true."""
        report = self.pipeline.settled()
        assert report.findings == ()
        assert (report.accepted, report.rows, report.calls) == (self.sent, self.sent, self.sent)
        accepted = self.accepted(salt)
        assert accepted
        for partition, (first_ms, _) in accepted.items():
            assert claimed.get(partition, 0) <= first_ms, f"partition {partition} claimed to be complete too far"
        eventually("freshness has caught up", lambda: all(self.claimed()[at] >= last for at, (_, last) in accepted.items()))
        eventually("the worker is ready again", lambda: self.reasons() == [])
        assert self.worker is not None
        assert self.worker.alive


class Chatter:
    """How many lines the worker writes a second while a block runs."""

    def __init__(self, outages: Outages) -> None:
        self._outages = outages

    def __enter__(self) -> "Chatter":
        self._lines, self._began = self._outages.lines(), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        # Each partition says its first failures at once; over less than a second they are no rate.
        self.per_second = (self._outages.lines() - self._lines) / max(1.0, time.monotonic() - self._began)
