"""Measure what the gateway adds to a call: `python -m tests.benchmarks.bench_gateway --kafka HOST:PORT`.

An upstream that answers at once, in a process of its own, is asked directly and through ingest, in turns within one run, so
that both see the same machine. Latencies are those of a caller with kept connections, one at a time and several at once.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import uvloop

from deploy.topics import apply
from ingest.contract.topics import topics
from ingest.http.upstream import Connection
from ingest.keys import create_key
from tests.support.ingest_service import IngestService, eventually
from tests.support.ports import free_port

_HOST: Final = "127.0.0.1"
_PATH: Final = b"/api/v3.1/tools/execute/GMAIL_SEND_EMAIL"
_PASSED: Final = b"/api/v3.1/tools/GMAIL_SEND_EMAIL"
_BODY: Final = json.dumps({"user_id": "user_123", "arguments": {"to": "alice@example.com", "text": "x" * 300}}).encode()
_ANSWER: Final = {"data": {"id": "m1", "text": "y" * 500}, "error": None, "successful": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to the upstream."""

    name: str
    port: int
    path: bytes


def serve(port: int, log_id: bool) -> None:
    """Answer every request at once."""
    body = json.dumps(_ANSWER | ({"log_id": "log_-jRTWClpBoVo"} if log_id else {})).encode()
    raw = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            self.transport = transport
            self.data = b""

        def data_received(self, data: bytes) -> None:
            # A caller sends the next request only after the answer.
            self.data += data
            if self.data.endswith(b"}"):
                self.data = b""
                self.transport.write(raw)

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Server, _HOST, port)
        await server.serve_forever()

    uvloop.run(run())


async def call(connection: Connection, way: Way, key: str) -> None:
    headers = [(b"host", b"x"), (b"x-api-key", key.encode()), (b"content-type", b"application/json")]
    connection.send("POST", way.path, [*headers, (b"content-length", b"%d" % len(_BODY))], _BODY)
    await connection.head()
    async for _ in connection.body():
        pass
    assert connection.status == 200, connection.status


async def measure(way: Way, key: str, *, callers: int, calls: int) -> list[float]:
    """Return the latencies of that many calls, ms."""
    loop = asyncio.get_running_loop()
    took: list[float] = []

    async def caller() -> None:
        _, connection = await loop.create_connection(lambda: Connection(loop), _HOST, way.port)
        for _ in range(calls // callers):
            began = time.perf_counter()
            await call(connection, way, key)
            took.append((time.perf_counter() - began) * 1000)
        connection.close()

    await asyncio.gather(*(caller() for _ in range(callers)))
    return took


@contextlib.asynccontextmanager
async def gateway(kafka: str, upstream_port: int, folder: Path) -> AsyncIterator[tuple[IngestService, str]]:
    """Run ingest with a spool, as `toolledger up` does."""
    settings = {"upstream": f"http://{_HOST}:{upstream_port}", "upstream_spool": folder / "spool", "log_level": "info"}
    service = await asyncio.to_thread(IngestService.start, kafka, folder, **settings)
    _, key = await create_key(kafka, project_id="bench")
    loop = asyncio.get_running_loop()
    way = Way(name="", port=service.port, path=_PASSED)

    async def known() -> bool:
        _, connection = await loop.create_connection(lambda: Connection(loop), _HOST, service.port)
        with contextlib.suppress(AssertionError):
            await call(connection, way, key)
            return True
        return False

    await eventually(known, deadline_s=20)
    try:
        yield service, key
    finally:
        await asyncio.to_thread(service.stop)


async def run(kafka: str, calls: int, rounds: int) -> None:
    await asyncio.to_thread(apply, kafka, topics())
    port = free_port()
    for log_id in (True, False):
        server = multiprocessing.Process(target=serve, args=(port, log_id), daemon=True)
        server.start()
        with tempfile.TemporaryDirectory() as folder:
            async with gateway(kafka, port, Path(folder)) as (service, key):
                ways = (
                    Way(name="direct", port=port, path=_PATH),
                    Way(name="passed through", port=service.port, path=_PASSED),
                    Way(name="recorded", port=service.port, path=_PATH),
                )
                process = psutil.Process(service.process.pid)
                for callers in (1, 16):
                    await compare(ways, key, process, callers=callers, calls=calls, rounds=rounds, log_id=log_id)
        server.terminate()
        server.join()


async def compare(
    ways: tuple[Way, ...], key: str, process: psutil.Process, *, callers: int, calls: int, rounds: int, log_id: bool
) -> None:
    """Measure the ways in turns and print a line for each."""
    took: dict[str, list[float]] = {way.name: [] for way in ways}
    cpu: dict[str, float] = {way.name: 0.0 for way in ways}
    for _ in range(rounds):
        for way in ways:
            before = sum(process.cpu_times()[:2])
            took[way.name] += await measure(way, key, callers=callers, calls=calls)
            cpu[way.name] += sum(process.cpu_times()[:2]) - before
    of = "with a log_id" if log_id else "without a log_id"
    direct = statistics.quantiles(took["direct"], n=100)
    for way in ways:
        found = statistics.quantiles(took[way.name], n=100)
        sys.stdout.write(
            f"{callers:2d} at once, answer {of:16s} {way.name:15s} p50 {found[49]:6.3f} ms ({found[49] - direct[49]:+.3f})"
            f"  p99 {found[98]:6.3f} ms ({found[98] - direct[98]:+.3f})"
            f"  ingest {cpu[way.name] / len(took[way.name]) * 1e6:5.0f} us CPU a call\n"
        )
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    uvloop.run(run(given.kafka, given.calls, given.rounds))


if __name__ == "__main__":
    main()
