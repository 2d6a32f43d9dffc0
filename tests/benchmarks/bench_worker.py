"""The worker from Kafka to rows, sums and receipts: our run driver beside stock Faust, in one run on the same parts.

`python -m tests.benchmarks.bench_worker [--events 200000] [--singles 60000]` prints events a second by wall clock and by CPU of
the worker's process, with the share of ClickHouse's CPU beside it.
"""

import argparse
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import psutil

from ingest.contract.partitioning import event_key, home_partition
from ingest.contract.topics import TOOL_EXECUTIONS
from tests.support.pipeline import Pipeline, eventually

_ROOT = Path(__file__).parents[2]
_RECORDED = Path(__file__).parents[1] / "data" / "airline_tool_calls.ndjson"
_ID = re.compile(rb'"id":"[^"]*"')
# The recorded events around 800 bytes, which is what the goals are stated for.
_BYTES_MAX = 1150
_PACK = 500
_PARTITIONS = 8


def events(count: int, salt: str) -> list[tuple[str, bytes]]:
    """Make events of about 800 bytes out of the recorded ones, each with an id of its own."""
    lines = [line for line in _RECORDED.read_bytes().splitlines() if len(line) <= _BYTES_MAX]
    made = []
    for number in range(count):
        event_id = f"log_{salt}{number:09d}"
        made.append((event_id, _ID.sub(b'"id":"%s"' % event_id.encode(), lines[number % len(lines)], count=1)))
    return made


def send_singles(pipeline: Pipeline, made: list[tuple[str, bytes]]) -> None:
    """One event a record."""
    records = [(raw, home_partition(event_key("demo", event_id), _PARTITIONS)) for event_id, raw in made]
    pipeline.send_records(records, wait_each=False)


def ours(pipeline: Pipeline, expected: int) -> tuple[float, float, int]:
    """Drain what is in the topic with our worker; return seconds, CPU seconds, and peak memory in bytes."""
    worker = pipeline.start_worker(TOOLLEDGER_DEDUPE_BYTES=str(200 * 1024 * 1024))
    process = psutil.Process(worker.process.pid)
    opened = b'"event": "partition_opened"'
    eventually("every partition is open", lambda: worker.log.read_bytes().count(opened) >= _PARTITIONS)
    # What starting costs is not what an event costs.
    started = process.cpu_times()
    done = f"SELECT sum(accepted) FROM usage_windows WHERE kind = 'receipt' HAVING sum(accepted) >= {expected}"
    eventually("everything is written", lambda: bool(pipeline.rows(done)), timeout_s=600)
    times, peak = process.cpu_times(), process.memory_info().rss
    lines = [json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{")]
    moments = [
        datetime.fromisoformat(line["timestamp"]) for line in lines if line["event"] in ("partition_opened", "batch_written")
    ]
    worker.end()
    cpu = times.user + times.system - started.user - started.system
    return (moments[-1] - moments[0]).total_seconds(), cpu, peak


def stock(pipeline: Pipeline, expected: int) -> tuple[float, float, int]:
    """Drain it with stock Faust."""
    command = [sys.executable, "-m", "tests.benchmarks.stock_worker", str(_PARTITIONS), str(expected)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, **pipeline.env},
        timeout=900,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    # Faust writes control characters of its own before.
    seconds, cpu = re.findall(r"\d+\.\d{3}", done.stdout)[-2:]
    return float(seconds), float(cpu), 0


def measure(kind: str, count: int) -> None:
    """Send a backlog, drain it twice, and print a line each."""
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Pipeline(Path(folder), partitions=_PARTITIONS)
        try:
            pipeline.start()
            made = events(count, salt=f"{kind[0]}")
            if kind == "packs":
                pipeline.send(made, pack=_PACK)
            else:
                send_singles(pipeline, made)
            nbytes = sum(len(raw) for _, raw in made) // count
            rates = {}
            for name, drain in (("ours", ours), ("stock Faust", stock)):
                assert pipeline.clickhouse is not None
                store = psutil.Process(pipeline.clickhouse.process.pid)
                before = store.cpu_times()
                seconds, cpu, peak = drain(pipeline, count)
                after = store.cpu_times()
                spent = after.user + after.system - before.user - before.system
                rates[name] = (count / seconds, count / cpu)
                print(
                    f"{kind:8} {name:12} {count:>8} events of {nbytes} B  {count / seconds:>9,.0f} events/s"
                    f"  {count / cpu:>9,.0f} a CPU second  ClickHouse {spent / count * 1e6:5.1f} us/event"
                    + (f"  {peak / 2**20:,.0f} MiB" if peak else ""),
                    flush=True,
                )
                for table in ("tool_executions", "usage_windows"):
                    if name == "ours":
                        pipeline.rows(f"TRUNCATE TABLE {table}")
            wall, cpus = (rates["ours"][place] / rates["stock Faust"][place] for place in (0, 1))
            print(f"{kind:8} ours / stock Faust: {wall:.1f} by wall clock, {cpus:.1f} by CPU", flush=True)
        finally:
            pipeline.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, help=f"events in packs of {_PACK}")
    parser.add_argument("--singles", type=int, default=60_000, help="events one a record")
    options = parser.parse_args()
    # While ClickHouse starts, its client says at length that it is not there yet.
    logging.disable(logging.ERROR)
    print(f"topic {TOOL_EXECUTIONS}, {_PARTITIONS} partitions, one worker, dedupe on, {os.cpu_count()} cores, embedded parts")
    measure("packs", options.events)
    measure("singles", options.singles)


if __name__ == "__main__":
    main()
