"""What dedupe costs: a backlog drained without it, with an empty history, and against a long one; fresh ids and known ones.

`python -m tests.benchmarks.bench_dedupe [--events 100000] [--history FOLDER]...` drains the same load side by side in one run
and prints events a second by wall clock and by CPU of the worker's process, the CPU of ClickHouse beside it, and what a start
costs. A history is a folder of `seed_executions`; a copy of it is used.
"""

import argparse
import json
import logging
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from subprocess import Popen
from typing import Any, Final

import psutil

from tests.benchmarks.bench_worker import events
from tests.support.pipeline import Pipeline, eventually
from tests.support.ports import free_port

_ROOT: Final = Path(__file__).parents[2]
_PARTITIONS: Final = 8
_PACK: Final = 500
_PROJECT: Final = "acme"
_STAMP: Final = re.compile(rb'"timestamp":\d+')
_BUDGET: Final = {"TOOLLEDGER_DEDUPE_BYTES": str(200 * 1024 * 1024)}
_KNOWN_SHARE: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """One backlog, drained. Seconds, CPU seconds, bytes."""

    start_s: float
    start_cpu_s: float
    start_store_cpu_s: float
    wall_s: float
    cpu_s: float
    store_cpu_s: float
    memory_bytes: int
    duplicates: int


class Bench:
    """One pipeline, to be loaded again and again."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.number = 0
        assert pipeline.clickhouse is not None
        self._store = psutil.Process(pipeline.clickhouse.process.pid)

    def send(self, count: int, known: Sequence[tuple[str, int]] = ()) -> None:
        """Send a backlog of fresh ids stamped now, with known ones (id, timestamp) strewn in."""
        self.number += 1
        now_ms = time.time_ns() // 1_000_000
        made = events(count - len(known), salt=f"{now_ms:x}_{self.number}_")
        made = [(event_id, _STAMP.sub(b'"timestamp":%d' % now_ms, raw, count=1)) for event_id, raw in made]
        for event_id, at_ms in known:
            _, raw = events(1, salt="any")[0]
            raw = _STAMP.sub(b'"timestamp":%d' % at_ms, raw, count=1)
            made.append((event_id, re.sub(rb'"id":"[^"]*"', b'"id":"%s"' % event_id.encode(), raw, count=1)))
        random.Random(self.number).shuffle(made)
        self.pipeline.send(made, project=_PROJECT, pack=_PACK)

    def known(self, count: int, *, recent: bool) -> list[tuple[str, int]]:
        """Pick ids that are in ClickHouse: of the newest hour, as retries are, or of all time, as a backfill sent again is."""
        newest = "accepted_at > (SELECT max(accepted_at) FROM tool_executions) - INTERVAL 1 HOUR"
        rows = self.pipeline.rows(
            f"SELECT id, toUnixTimestamp64Milli(timestamp) FROM tool_executions WHERE project_id = '{_PROJECT}'"
            f" AND {newest if recent else '1'} ORDER BY cityHash64(id, {self.number}) LIMIT {count}"
        )
        return [(str(event_id), int(at_ms)) for event_id, at_ms in rows]

    def drain(self, count: int, *, dedupe: bool = True) -> Drained:
        """Start a worker, let it drain `count` events, and end it."""
        module = ["deploy.cli.main", "worker"] if dedupe else ["tests.benchmarks.worker_without_dedupe"]
        port = free_port()
        path = self.pipeline.folder / f"drain-{self.number}-{dedupe}-{port}.log"
        env = {**os.environ, **self.pipeline.env, **_BUDGET, "TOOLLEDGER_WORKER_PORT": str(port), "TOOLLEDGER_LOG_JSON": "1"}
        began = time.time()
        store_before = _cpu(self._store)
        with path.open("wb") as log:
            worker = Popen([sys.executable, "-m", *module], cwd=_ROOT, env=env, stdout=log, stderr=log)
        try:
            process = psutil.Process(worker.pid)
            eventually("every partition is open", lambda: len(_said(path, "partition_opened")) >= _PARTITIONS, timeout_s=300)
            cpu_opened, store_opened = _cpu(process), _cpu(self._store)
            eventually("all is written", lambda: _events(path) >= count, timeout_s=600)
            cpu, store, memory = _cpu(process), _cpu(self._store), process.memory_info().rss
        finally:
            worker.terminate()
            worker.wait(60)
        opened, written = _said(path, "partition_opened"), _said(path, "batch_written")
        first = min(_moment(line) for line in written) if written else _moment(opened[-1])
        last = max(_moment(line) for line in written) if written else first
        ready = max(_moment(line) for line in opened)
        return Drained(
            start_s=ready - began,
            start_cpu_s=cpu_opened,
            start_store_cpu_s=store_opened - store_before,
            wall_s=last - min(first, ready),
            cpu_s=cpu - cpu_opened,
            store_cpu_s=store - store_opened,
            memory_bytes=memory,
            duplicates=sum(line["duplicates"] for line in written),
        )


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _said(path: Path, event: str) -> list[dict[str, Any]]:
    mark = f'"event": "{event}"'
    return [json.loads(line) for line in path.read_text().splitlines() if mark in line and line.endswith("}")]


def _events(path: Path) -> int:
    return sum(line["events"] for line in _said(path, "batch_written"))


def _moment(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()


def tell(history: str, load: str, count: int, done: Drained) -> None:
    """Print one line of the table."""
    print(
        f"{history:>12} {load:34} {count / done.wall_s:>8,.0f} events/s {count / done.cpu_s:>8,.0f} a CPU second"
        f"  ClickHouse {done.store_cpu_s / count * 1e6:6.1f} us/event  {done.duplicates:>6} duplicates"
        f"  {done.memory_bytes / 2**20:4,.0f} MiB  start {done.start_s:5.1f} s (worker {done.start_cpu_s:4.1f},"
        f" ClickHouse {done.start_store_cpu_s:4.1f} CPU s)",
        flush=True,
    )


def measure(pipeline: Pipeline, history: str, count: int, *, loads: bool) -> None:
    """Drain every load once against one history."""
    bench = Bench(pipeline)
    if not loads:
        bench.send(_PACK)
        tell(history, "start alone", _PACK, bench.drain(_PACK))
        return
    bench.send(count)
    tell(history, "no dedupe, fresh ids", count, bench.drain(count, dedupe=False))
    bench.send(count)
    tell(history, "fresh ids", count, bench.drain(count))
    for name, recent in (("10 % known, of the newest hour", True), ("10 % known, of all time", False)):
        bench.send(count, bench.known(count // _KNOWN_SHARE, recent=recent))
        tell(history, name, count, bench.drain(count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000, help=f"events of each load, in packs of {_PACK}")
    parser.add_argument("--history", type=Path, action="append", default=[], help="folder of seed_executions; may be repeated")
    parser.add_argument("--start", type=Path, action="append", default=[], help="as --history, but only started")
    parser.add_argument("--no-empty", action="store_true", help="leave the empty history out")
    options = parser.parse_args()
    # While ClickHouse starts, its client says at length that it is not there yet.
    logging.disable(logging.ERROR)
    print(f"{_PARTITIONS} partitions, one worker, {os.cpu_count()} cores, embedded parts, events of 850 B in packs of {_PACK}")
    empty: list[tuple[Path | None, bool]] = [] if options.no_empty else [(None, True)]
    for history, loads in [*empty, *((path, True) for path in options.history), *((path, False) for path in options.start)]:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "data"
            if history is None:
                data.mkdir()
            else:
                shutil.copytree(history, data, symlinks=True)
            pipeline = Pipeline(data, partitions=_PARTITIONS)
            try:
                pipeline.start()
                ((rows,),) = pipeline.rows("SELECT count() FROM tool_executions")
                measure(pipeline, f"{rows:,}", options.events, loads=loads)
            finally:
                pipeline.stop()


if __name__ == "__main__":
    main()
