"""The worker's memory while ClickHouse is away and events go on arriving, and how fast it catches up.

`python -m tests.benchmarks.bench_outage [--minutes 10] [--rate 5000]`: ClickHouse hangs (SIGSTOP) for the first half of the
outage and is gone (SIGKILL) for the second. Prints the memory by phase, the catch-up, and what `verify` says in the end.
"""

import argparse
import asyncio
import logging
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from aiokafka import AIOKafkaProducer

from ingest.contract.partitioning import event_key, home_partition
from ingest.contract.topics import TOOL_EXECUTIONS
from tests.benchmarks.bench_worker import events
from tests.support.pipeline import Pipeline, eventually

_PARTITIONS = 8
_PACK = 50
_TICK_S = 0.1
_HEADERS = [("project_id", b"demo")]


@dataclass(slots=True, kw_only=True)
class Phase:
    """The worker's memory over a stretch of time."""

    name: str
    seconds: float = 0.0
    arrived: int = 0
    rss: list[int] = field(default_factory=list)

    def line(self) -> str:
        sizes = [size / 2**20 for size in self.rss]
        return (
            f"| {self.name:22} | {self.seconds:7,.0f} | {self.arrived:>9,} | {min(sizes):5.0f} |"
            f" {statistics.median(sizes):6.0f} | {max(sizes):5.0f} |"
        )


class Arrivals:
    """Events that go on arriving in Kafka at a rate, in packs by home partition as ingest makes them."""

    def __init__(self, pipeline: Pipeline, rate: int) -> None:
        self.sent = 0
        self._pipeline, self._rate = pipeline, rate
        self._waiting: dict[int, list[bytes]] = {partition: [] for partition in range(_PARTITIONS)}
        self._samples = [raw.split(b'"id":"%s"' % name.encode(), 1) for name, raw in events(2000, salt="x")]

    def _packs(self, count: int) -> Iterator[tuple[int, bytes]]:
        for number in range(self.sent, self.sent + count):
            before, after = self._samples[number % len(self._samples)]
            name = f"log_o{number:09d}"
            home = home_partition(event_key("demo", name), _PARTITIONS)
            pack = self._waiting[home]
            pack.append(b'%s"id":"%s"%s' % (before, name.encode(), after))
            if len(pack) == _PACK:
                yield home, b"[" + b",".join(pack) + b"]"
                pack.clear()
        self.sent += count

    async def go_on(self, stop: asyncio.Event) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._pipeline.kafka.address, acks="all", compression_type="lz4", max_batch_size=512 * 1024
        )
        await producer.start()
        began, base = time.monotonic(), self.sent
        try:
            while not stop.is_set():
                due = base + int((time.monotonic() - began) * self._rate) - self.sent
                for home, value in self._packs(due):
                    await producer.send(TOOL_EXECUTIONS, value, partition=home, headers=_HEADERS)
                await asyncio.sleep(_TICK_S)
            for home, rest in self._waiting.items():
                if rest:
                    await producer.send(TOOL_EXECUTIONS, b"[" + b",".join(rest) + b"]", partition=home, headers=_HEADERS)
                    rest.clear()
        finally:
            await producer.stop()


class Outage:
    """One run: before, frozen, gone, catching up, after."""

    def __init__(self, pipeline: Pipeline, *, rate: int, minutes: float, before_s: float) -> None:
        self._pipeline = pipeline
        self._arrivals = Arrivals(pipeline, rate)
        self._minutes, self._before_s = minutes, before_s
        self._worker = pipeline.start_worker(
            TOOLLEDGER_DEDUPE_BYTES=str(200 * 1024 * 1024),
            TOOLLEDGER_RETRY_MS_MAX="5000",
            TOOLLEDGER_SESSION_TIMEOUT_MS="15000",
            TOOLLEDGER_PROGRESS_MS="1000",
        )
        self._process = psutil.Process(self._worker.process.pid)
        self.phases: list[Phase] = []

    def run(self) -> bool:
        """Run all of it and print what came of it; return whether everything was proved."""
        eventually("every partition is open", lambda: self._opened() >= _PARTITIONS)
        asyncio.run(self._arrive())
        caught_up_s = self._catch_up()
        self._sample(Phase(name="after"), lambda seconds: seconds < 15)
        return self._print(caught_up_s)

    async def _arrive(self) -> None:
        stop = asyncio.Event()
        arriving = asyncio.create_task(self._arrivals.go_on(stop))
        clickhouse = self._pipeline.clickhouse
        assert clickhouse is not None
        half_s = self._minutes * 60 / 2
        await self._sample_beside(Phase(name="before"), self._before_s)
        clickhouse.send_signal(signal.SIGSTOP)
        await self._sample_beside(Phase(name="away: hanging"), half_s)
        clickhouse.send_signal(signal.SIGCONT)
        clickhouse.end(signal.SIGKILL)
        await self._sample_beside(Phase(name="away: refused"), half_s)
        stop.set()
        await arriving

    async def _sample_beside(self, phase: Phase, seconds: float) -> None:
        self.phases.append(phase)
        began, base = time.monotonic(), self._arrivals.sent
        while phase.seconds < seconds:
            phase.rss.append(self._process.memory_info().rss)
            await asyncio.sleep(1)
            phase.seconds = time.monotonic() - began
        phase.arrived = self._arrivals.sent - base
        print(phase.line(), flush=True)

    def _catch_up(self) -> float:
        self._pipeline.start_clickhouse()
        began = time.monotonic()
        done = f"SELECT sum(accepted) FROM usage_windows WHERE kind = 'receipt' HAVING sum(accepted) >= {self._arrivals.sent}"
        self._sample(Phase(name="catching up"), lambda _: not self._pipeline.rows(done))
        return time.monotonic() - began

    def _sample(self, phase: Phase, goes_on: Callable[[float], bool]) -> None:
        self.phases.append(phase)
        began = time.monotonic()
        while goes_on(phase.seconds):
            phase.rss.append(self._process.memory_info().rss)
            time.sleep(1)
            phase.seconds = time.monotonic() - began
        print(phase.line(), flush=True)

    def _opened(self) -> int:
        return self._worker.log.read_bytes().count(b'"event": "partition_opened"')

    def _print(self, caught_up_s: float) -> bool:
        missed = sum(phase.arrived for phase in self.phases if phase.name.startswith("away"))
        away = [size for phase in self.phases if phase.name.startswith("away") for size in phase.rss]
        lines = self._worker.log.read_text().splitlines()
        report = self._pipeline.settled(timeout_s=300)
        exact = report.accepted == report.rows == report.calls == self._arrivals.sent
        print(f"while away: {min(away) / 2**20:.0f} to {max(away) / 2**20:.0f} MiB over {len(away)} samples")
        print(f"caught up {missed:,} events in {caught_up_s:,.0f} s: {missed / caught_up_s:,.0f} events/s")
        print(f"{self._opened()} partitions opened in all (of {_PARTITIONS}: no rebalance); {len(lines):,} log lines")
        print(f"verify: {len(report.findings)} findings; sent {self._arrivals.sent:,}, accepted {report.accepted:,},"
              f" rows {report.rows:,}, calls {report.calls:,}, duplicates {report.duplicates:,}")  # fmt: skip
        return exact and not report.findings and self._opened() == _PARTITIONS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long ClickHouse is away")
    parser.add_argument("--rate", type=int, default=5000, help="events a second that arrive")
    parser.add_argument("--before", type=float, default=30, help="seconds of ordinary work before")
    options = parser.parse_args()
    # While ClickHouse is away, its client here says so at length.
    logging.disable(logging.ERROR)
    nbytes = sum(len(raw) for _, raw in events(2000, salt="x")) // 2000
    print(f"{options.rate:,} events/s of {nbytes} B in packs of {_PACK}, {_PARTITIONS} partitions, one worker,"
          f" ClickHouse away for {options.minutes:g} minutes, {os.cpu_count()} cores, embedded parts")  # fmt: skip
    print("| phase                  | seconds |    events |   min | median |   max | MiB of the worker", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Pipeline(Path(folder), partitions=_PARTITIONS)
        try:
            pipeline.start()
            run = Outage(pipeline, rate=options.rate, minutes=options.minutes, before_s=options.before)
            return 0 if run.run() else 1
        finally:
            pipeline.stop()


if __name__ == "__main__":
    raise SystemExit(main())
