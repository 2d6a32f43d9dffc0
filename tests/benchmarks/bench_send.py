"""Measure `toolledger send` beside curl sending the same batches: `python -m tests.benchmarks.bench_send [--megabytes 1000]`.

Starts the embedded Kafka and one ingest process, and sends one NDJSON file in each way: with four batches under way at once, as
`send` has, and curl too. Worker and ClickHouse are left out, so that ingest is what there is to keep up with.
"""

import argparse
import asyncio
import gzip
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil
import zstandard

from deploy.cli.send_input import BATCH_EVENTS, Source
from deploy.cli.send_to import IN_FLIGHT
from deploy.topics import apply
from ingest.contract.topics import topics
from ingest.keys import create_key
from tests.benchmarks.bench_ingest import events
from tests.support import parts
from tests.support.ingest_service import IngestService

_MB: Final = 1_000_000
# Prepared batches of curl lie in memory, not on the disk that the file is read from.
_SHARED: Final = Path("/dev/shm")


@contextmanager
def watched(pid: int) -> Iterator[Callable[[], tuple[float, int]]]:
    """Give what tells (seconds of processor time, most bytes of memory) of a process and its children."""
    most = [0, 0.0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            try:
                one = psutil.Process(pid)
                used = one.cpu_times()
                most[0] = max(most[0], one.memory_info().rss)
                most[1] = max(most[1], used.user + used.system)
            except psutil.NoSuchProcess:
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: (most[1], int(most[0]))
    finally:
        done.set()
        thread.join()


def write(path: Path, size: int) -> int:
    """Write lines of about 800 bytes, each with an id; return how many."""
    lines = events(2000, 0, ids=True)
    block, first = b"\n".join(lines) + b"\n", b"log_%06d" % 0
    seed = 0
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(block.replace(first, b"log_%06d" % seed))
            seed += 1
    return seed * len(lines)


def forms(path: Path, folder: Path) -> dict[str, Path]:
    """Return the file in every form, the smaller ones made of its first part, so that it takes no hour."""
    head = path.read_bytes()[: 200 * _MB]
    lines = head[: head.rfind(b"\n")].split(b"\n")
    made = {"array": folder / "array.json", "gzip": folder / "lines.gz", "zstd": folder / "lines.zst"}
    made["array"].write_bytes(b"[" + b",\n".join(lines) + b"]")
    made["gzip"].write_bytes(gzip.compress(b"\n".join(lines), 1))
    made["zstd"].write_bytes(zstandard.compress(b"\n".join(lines), 1))
    return made


def sent(name: str, arguments: list[str], env: dict[str, str], ingest: psutil.Process) -> float:
    """Send once and print what came of it; returns events a second."""
    before, began = ingest.cpu_times(), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.cli.main", "send", "--json", *arguments],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
    )
    with watched(process.pid) as used:
        out, _ = process.communicate()
        seconds, rss = used()
    took, after = time.perf_counter() - began, ingest.cpu_times()
    count = json.loads(out.splitlines()[-1])["accepted"]
    _say(name, count, took, seconds, rss, after.user + after.system - before.user - before.system)
    return float(count / took)


def curled(path: Path, url: str, key: str, folder: Path, ingest: psutil.Process, *, size: int) -> float:
    """Send the first batches of the file with curl, in parallel as `send` does; returns events a second."""
    config, count, taken = [], 0, 0
    for place, batch in enumerate(Source(str(path)).batches()):
        body, _ = batch.body()
        (folder / f"{place}").write_bytes(body)
        config.append(f'next\nurl = "{url}/v1/events"\ndata-binary = "@{folder}/{place}"\nheader = "x-api-key: {key}"')
        config.append('header = "content-type: application/x-ndjson"\noutput = "/dev/null"\nheader = "expect:"')
        count, taken = count + len(batch.raws), taken + len(body)
        if taken >= size:
            break
    (folder / "config").write_text("\n".join(config).removeprefix("next\n"))
    before, began = ingest.cpu_times(), time.perf_counter()
    process = subprocess.Popen(
        ["curl", "-sSZ", "--no-progress-meter", "--parallel-max", str(IN_FLIGHT), "-K", str(folder / "config")]
    )
    with watched(process.pid) as used:
        assert process.wait() == 0
        seconds, rss = used()
    took, after = time.perf_counter() - began, ingest.cpu_times()
    _say("curl, prepared batches", count, took, seconds, rss, after.user + after.system - before.user - before.system)
    return count / took


def _say(name: str, count: int, took: float, seconds: float, rss: int, ingest_seconds: float) -> None:
    client_us, ingest_us = seconds / count * 1e6, ingest_seconds / count * 1e6
    sys.stdout.write(
        f"{name:26} {count:>9,} events {took:6.1f} s {count / took:>8,.0f}/s   client {client_us:5.1f} us/event"
        f" {rss / 2**20:4.0f} MiB   ingest {ingest_us:5.1f} us/event\n"
    )
    sys.stdout.flush()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=1000)
    size = parser.parse_args().megabytes * _MB
    sys.stdout.write(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, batches of {BATCH_EVENTS}\n")
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory(dir=_SHARED) as memory:
        folder = Path(scratch)
        file = folder / "calls.ndjson"
        count = write(file, size)
        sys.stdout.write(f"{count:,} events, {file.stat().st_size / _MB:,.0f} MB\n")
        with parts.kafka(folder / "kafka") as kafka:
            apply(kafka, topics())
            _, key = asyncio.run(create_key(kafka, project_id="bench"))
            with IngestService.start(kafka, folder, log_level="warning") as service:
                ingest = psutil.Process(service.process.pid)
                env = {
                    "TOOLLEDGER_URL": service.url,
                    "TOOLLEDGER_API_KEY": key,
                    "TOOLLEDGER_KAFKA": kafka,
                    "TOOLLEDGER_CACHE": str(folder / "cache"),
                }
                if shutil.which("curl"):
                    curled(file, service.url, key, Path(memory), ingest, size=min(size, 200 * _MB))
                sent("send, NDJSON", [str(file)], env, ingest)
                for name, path in forms(file, folder).items():
                    sent(f"send, {name}", [str(path)], env, ingest)
                sent("send --kafka, NDJSON", [str(file), "--kafka", "--project", "bench"], env, ingest)


if __name__ == "__main__":
    main()
