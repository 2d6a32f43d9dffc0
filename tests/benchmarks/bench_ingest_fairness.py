"""What one key's flood does to another's few events: `python -m tests.benchmarks.bench_ingest_fairness --kafka HOST:PORT`.

Key B sends one event after another, with a pause between: first alone, then while key A keeps so many connections going that
each sends batches of 500 as fast as it is answered, 429s included. Both are processes of their own, and so is ingest; `--tree`
names a checkout to start it from, so that two can be compared in one run.
"""

import argparse
import asyncio
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import Counter
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Final

import psutil

from deploy.topics import apply
from ingest.contract.topics import topics
from ingest.keys import create_key
from tests.benchmarks.bench_ingest import Connection, Load, ready, request
from tests.support.ports import free_port

_HOST: Final = "127.0.0.1"
_PAUSE_S: Final = 0.01


async def _connected(port: int) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, _HOST, port)
    return connection


async def _quiet(port: int, key: str, seconds: float) -> list[float]:
    """Send single events; return what each took, in ms."""
    load = Load(name="quiet", events=1, connections=1)
    bodies = [request(key, load, seed) for seed in range(256)]
    connection = await _connected(port)
    took = []
    until = time.perf_counter() + seconds
    turn = 0
    while (began := time.perf_counter()) < until:
        status = await connection.send(bodies[turn % len(bodies)])
        assert status == 202, f"the quiet key was answered {status}"
        took.append((time.perf_counter() - began) * 1000)
        turn += 1
        await asyncio.sleep(_PAUSE_S)
    return took


def _flood(port: int, key: str, connections: int, stop: Event, results: "multiprocessing.Queue[Counter[int]]") -> None:
    """Send batches over many connections until told to stop."""

    async def run() -> Counter[int]:
        load = Load(name="flood", events=500, connections=connections)
        bodies = [request(key, load, 1000 + seed) for seed in range(8)]
        answered: Counter[int] = Counter()

        async def one(number: int) -> None:
            connection = await _connected(port)
            while not stop.is_set():
                answered[await connection.send(bodies[number % len(bodies)])] += 1

        await asyncio.gather(*(one(number) for number in range(connections)))
        return answered

    results.put(asyncio.run(run()))


def _figures(took: list[float]) -> str:
    cuts = statistics.quantiles(took, n=100)
    return f"{len(took):>5} answers  p50 {cuts[49]:7.1f}  p99 {cuts[98]:7.1f}  max {max(took):7.1f} ms"


def measure(tree: Path, kafka: str, keys: tuple[str, str], connections: int, seconds: float) -> None:
    """Start ingest from a checkout, and print B's times alone and beside A."""
    port = free_port()
    environment = os.environ | {"TOOLLEDGER_KAFKA": kafka, "TOOLLEDGER_PORT": str(port), "TOOLLEDGER_LOG_LEVEL": "error"}
    process = subprocess.Popen(
        [sys.executable, "-m", "ingest.run"], env=environment | {"PYTHONPATH": str(tree)}, cwd=tree, stdout=subprocess.DEVNULL
    )
    try:
        asyncio.run(ready(port))
        asyncio.run(_quiet(port, keys[1], 1))
        print(f"{tree.name}\n  B alone    {_figures(asyncio.run(_quiet(port, keys[1], seconds / 2)))}", flush=True)
        stop = multiprocessing.Event()
        results: multiprocessing.Queue[Counter[int]] = multiprocessing.Queue()
        flood = multiprocessing.Process(target=_flood, args=(port, keys[0], connections, stop, results))
        flood.start()
        time.sleep(1.5)
        print(f"  B beside A {_figures(asyncio.run(_quiet(port, keys[1], seconds)))}", flush=True)
        stop.set()
        answered = results.get(timeout=60)
        flood.join(30)
        rss = psutil.Process(process.pid).memory_info().rss >> 20
        print(
            f"  A: {answered[202] * 500 / (seconds + 1.5):,.0f} events/s, by status {dict(answered)}; ingest {rss} MB",
            flush=True,
        )
    finally:
        process.terminate()
        process.wait(30)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kafka", required=True, help="bootstrap address of a Kafka to write to")
    parser.add_argument("--connections", type=int, default=64, help="of the flood")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--tree", type=Path, action="append", default=[], help="checkouts to start ingest from")
    given = parser.parse_args()
    apply(given.kafka, topics())
    made = [asyncio.run(create_key(given.kafka, project_id=f"fair-{name}"))[1] for name in "ab"]
    print(f"python {platform.python_version()}, {os.cpu_count()} cores, {given.connections} connections of batches of 500")
    for tree in given.tree or [Path(__file__).parents[2]]:
        measure(tree, given.kafka, (made[0], made[1]), given.connections, given.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
