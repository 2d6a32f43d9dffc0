"""Measure HTTP ingest against a real Kafka: `python -m tests.benchmarks.bench_ingest --kafka HOST:PORT`.

Starts an ingest process of its own and loads it over keep-alive connections, in batches and in single events. What counts is
events per second of the ingest process's own CPU time (`/core`), because client and broker share the machine; wall-clock rates
and latencies stand beside it.
"""

import argparse
import asyncio
import gzip
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import httptools
import psutil
import zstandard

from deploy.topics import apply
from ingest.contract.topics import topics
from ingest.keys import create_key
from tests.support.ports import free_port

_HOST: Final = "127.0.0.1"
_EVENT_BYTES: Final = 800


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One kind of load.

    Args:
        half_of: the load of this run at half of whose rate requests are due.
    """

    name: str
    events: int
    connections: int
    encoding: str = ""
    ids: bool = True
    half_of: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What came of it."""

    requests: int
    events: int
    seconds: float
    cpu_seconds: float
    latencies_ms: list[float]
    rss_bytes: int


class Connection(asyncio.Protocol):
    """A minimal HTTP client: costs so little that the server is what is measured."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.done: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        assert self.done is not None
        self.done.set_result(self.parser.get_status_code())
        self.parser = httptools.HttpResponseParser(self)

    async def send(self, request: bytes) -> int:
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.done


def events(count: int, seed: int, *, ids: bool) -> list[bytes]:
    """Return events of about 800 bytes, with ids that are new for every seed."""
    made = []
    for index in range(count):
        named = {"id": f"log_{seed:06d}{index:06d}", "timestamp": time.time_ns() // 1_000_000} if ids else {}
        response: dict[str, str] = {"body": ""}
        event: dict[str, object] = {
            **named,
            "tool_slug": "GMAIL_SEND_EMAIL",
            "toolkit_slug": "gmail",
            "user_id": f"user_{index % 97}",
            "session_id": f"trs_{index % 31:012d}",
            "status": "failed" if index % 10 == 0 else "success",
            "duration_ms": 100 + index % 900,
            "context": {"trace_id": f"{index:032x}", "request_id": f"req_{index:012d}"},
            "source": {"framework": "openai", "language": "python", "host": "sdk"},
            "data": {"request": {"payload": {"to": f"person{index}@example.com"}}, "response": response},
        }
        words = " ".join(f"word{(index * 7 + place) % 1000}" for place in range(60))
        response["body"] = words[: _EVENT_BYTES - len(json.dumps(event, separators=(",", ":")))]
        made.append(json.dumps(event, separators=(",", ":")).encode())
    return made


def request(key: str, load: Load, seed: int) -> bytes:
    """Return one whole request as bytes."""
    made = events(load.events, seed, ids=load.ids)
    body = made[0] if load.events == 1 else b"[" + b",".join(made) + b"]"
    if load.encoding == "gzip":
        body = gzip.compress(body, 6)
    elif load.encoding == "zstd":
        body = zstandard.compress(body)
    encoding = f"content-encoding: {load.encoding}\r\n" if load.encoding else ""
    head = (
        f"POST /v1/events HTTP/1.1\r\nhost: bench\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n{encoding}"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def measure(port: int, key: str, load: Load, seconds: float, process: psutil.Process, rate: float = 0) -> Measured:
    """Run one load for some seconds after a second of warming up.

    Args:
        rate: requests/s; each is due at its moment, whether those before it are answered or not, and its latency counts from
            then. 0: each connection sends as soon as it has its answer.
    """
    loop = asyncio.get_running_loop()
    bodies = [request(key, load, seed) for seed in range(16 if load.events > 1 else 512)]
    latencies: list[float] = []
    counting = False
    running = True
    due: asyncio.Queue[float] = asyncio.Queue()

    async def clock() -> None:
        at = time.perf_counter()
        while running:
            due.put_nowait(at)
            at += 1 / rate
            await asyncio.sleep(max(0.0, at - time.perf_counter()))

    async def client(number: int) -> None:
        _, connection = await loop.create_connection(Connection, _HOST, port)
        turn = number
        while running:
            began = await due.get() if rate else time.perf_counter()
            status = await connection.send(bodies[turn % len(bodies)])
            assert status == 202, f"answered {status}"
            if counting:
                latencies.append((time.perf_counter() - began) * 1000)
            turn += 1
        connection.transport.close()

    clients = [asyncio.create_task(client(number)) for number in range(load.connections)]
    pacing = asyncio.create_task(clock()) if rate else None
    await asyncio.sleep(1)
    before, began, counting = process.cpu_times(), time.perf_counter(), True
    await asyncio.sleep(seconds)
    counting, took, after = False, time.perf_counter() - began, process.cpu_times()
    running = False
    if pacing is not None:
        await pacing
        for _ in clients:
            due.put_nowait(time.perf_counter())
    await asyncio.gather(*clients)
    cpu = after.user + after.system - before.user - before.system
    return Measured(
        requests=len(latencies),
        events=len(latencies) * load.events,
        seconds=took,
        cpu_seconds=cpu,
        latencies_ms=latencies,
        rss_bytes=process.memory_info().rss,
    )


def start(kafka: str, port: int, overrides: list[str]) -> subprocess.Popen[bytes]:
    """Start an ingest process and wait until it is ready."""
    environment = os.environ | {"TOOLLEDGER_KAFKA": kafka, "TOOLLEDGER_PORT": str(port), "TOOLLEDGER_LOG_LEVEL": "warning"}
    environment |= dict(pair.split("=", 1) for pair in overrides)
    return subprocess.Popen([sys.executable, "-m", "ingest.run"], env=environment, cwd=Path(__file__).parents[2])


async def ready(port: int, deadline_s: float = 30) -> None:
    """Wait until the service says that it is ready."""
    async with asyncio.timeout(deadline_s):
        while True:
            try:
                reader, writer = await asyncio.open_connection(_HOST, port)
                writer.write(b"GET /readyz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")
                if b" 200 " in await reader.readline():
                    return
                writer.close()
            except OSError as error:
                logging.debug("not listening yet: %r", error)
            await asyncio.sleep(0.05)


def row(load: Load, measured: Measured) -> str:
    """Return one line of the table."""
    centiles = statistics.quantiles(measured.latencies_ms, n=100)
    return (
        f"{load.name:34s} {measured.requests / measured.seconds:9,.0f} {measured.events / measured.seconds:10,.0f} "
        f"{measured.cpu_seconds / measured.seconds:6.2f} {measured.requests / measured.cpu_seconds:11,.0f} "
        f"{measured.events / measured.cpu_seconds:11,.0f} {centiles[49]:8.1f} {centiles[98]:8.1f} {measured.rss_bytes >> 20:6d}"
    )


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kafka", required=True, help="bootstrap address of a Kafka to write to")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--only", default="", help="only loads whose name contains this")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="environment of the ingest process")
    parser.add_argument("--port", type=int, help="measure a process that runs already (with --pid and --key)")
    parser.add_argument("--pid", type=int)
    parser.add_argument("--key")
    given = parser.parse_args()
    loads = [
        Load(name="batches of 500, 1 connection", events=500, connections=1),
        Load(name="batches of 500, 4 connections", events=500, connections=4),
        Load(name="batches of 500, 4, no ids", events=500, connections=4, ids=False),
        Load(name="batches of 500, 4, gzip", events=500, connections=4, encoding="gzip"),
        Load(name="batches of 500, 4, zstd", events=500, connections=4, encoding="zstd"),
        Load(name="single events, 1 connection", events=1, connections=1),
        Load(name="single events, 32 connections", events=1, connections=32),
        Load(name="single events, 128 connections", events=1, connections=128),
        Load(name="half of it: batches of 500, 4", events=500, connections=16, half_of="batches of 500, 4 connections"),
        Load(name="half of it: single events, 32", events=1, connections=128, half_of="single events, 32 connections"),
    ]
    apply(given.kafka, topics())
    key = given.key or asyncio.run(create_key(given.kafka, project_id="bench", name="benchmark"))[1]
    port = given.port or free_port()
    process = None if given.pid else start(given.kafka, port, given.set)
    try:
        asyncio.run(ready(port))
        watched = psutil.Process(given.pid or (process.pid if process else 0))
        sample = events(500, 1, ids=True)
        print(
            f"python {platform.python_version()}, {os.cpu_count()} cores, aiokafka {version('aiokafka')}, "
            f"uvicorn {version('uvicorn')}; events of {sum(map(len, sample)) // len(sample)} B; {' '.join(given.set)}"
        )
        print(f"{'load':34s} {'req/s':>9s} {'events/s':>10s} {'cores':>6s} {'req/s/core':>11s} {'ev/s/core':>11s}", end="")
        print(f" {'p50 ms':>8s} {'p99 ms':>8s} {'RSS MB':>6s}")
        reached: dict[str, float] = {}
        for load in loads:
            if given.only not in load.name or (load.half_of and load.half_of not in reached):
                continue
            rate = reached[load.half_of] / 2 if load.half_of else 0
            measured = asyncio.run(measure(port, key, load, given.seconds, watched, rate))
            reached[load.name] = measured.requests / measured.seconds
            print(row(load, measured), flush=True)
    finally:
        if process is not None:
            process.terminate()
            process.wait(30)
    return 0


if __name__ == "__main__":
    sys.exit(main())
