"""Measure the Python client: `python -m tests.benchmarks.bench_client`.

What a recorded call costs its caller, beside the same call unrecorded, part by part; what redaction of an event costs; and what
a producer process gets through the client: into a server that only counts, or with `--url` and `--key` into a real one. The
caller's cost is CPU time of its own thread, since on two cores the sending threads and the server share the clock.
"""

import argparse
import asyncio
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec

from ingest.client import AsyncToolLedger, ToolLedger
from ingest.client.batches import compression
from ingest.client.inbox import Inbox
from ingest.client.options import Options
from ingest.client.redaction import redaction

_ROUNDS: Final = 7
_CALLS: Final = 20_000
_WORDS: Final = [f"word{number}" for number in range(40)]
_ARGUMENTS: Final[dict[str, Any]] = {"to": "person@example.com", "subject": "hello", "body": " ".join(_WORDS)}
_RESULT: Final = {"id": "18f2c9", "thread": "18f2c8", "labels": ["SENT", "INBOX"], "snippet": " ".join(_WORDS[:30])}


def send(to: str, subject: str, body: str) -> dict[str, Any]:
    """A tool that does nothing: all that is measured is ours."""
    return _RESULT


async def send_async(to: str, subject: str, body: str) -> dict[str, Any]:
    """The same, async."""
    return _RESULT


def pieces(to: str, subject: str, body: str) -> Iterator[str]:
    """The same in ten pieces."""
    yield from _WORDS[:10]


def cost_us(work: Callable[[], object], *, calls: int = _CALLS) -> float:
    """Return the CPU time of one call in this thread, the median of some rounds."""
    rounds = []
    for _ in range(_ROUNDS):
        gc.collect()
        began_ns = time.thread_time_ns()
        for _ in range(calls):
            work()
        rounds.append((time.thread_time_ns() - began_ns) / calls / 1000)
    return statistics.median(rounds)


def overhead() -> list[bytes]:
    """Print what recording costs the caller; return what was recorded."""
    ledger = ToolLedger(api_key="ak_bench", base_url="http://127.0.0.1:9", spool=False, close_timeout_s=0)
    bare = ToolLedger(api_key="ak_bench", base_url="http://127.0.0.1:9", spool=False, close_timeout_s=0, payloads=False)
    inbox = Inbox(bytes_max=1 << 40, batch_events=500, batch_bytes=1 << 20)
    recorded: list[bytes] = []

    def put(event: bytes) -> None:
        # The caller's part, to the very end; the threads that would come after it would take the same core.
        inbox.put(event)
        if len(recorded) < _CALLS:
            recorded.append(event)
        if len(inbox._events) >= 500:
            inbox._events.clear()  # as the collecting thread does, and its memory is used again

    for each in (ledger, bare):
        each.recorder._delivery.put = put  # type: ignore[method-assign]
    labels: dict[str, Any] = {"user_id": "user_123", "session_id": "ses_0123456789ab"}
    session = ledger.session(user_id="user_123")
    decorated = ledger.tool("GMAIL_SEND_EMAIL", **labels)(send)
    without = bare.tool("GMAIL_SEND_EMAIL", **labels)(send)
    in_pieces = ledger.tool("GMAIL_SEND_EMAIL", **labels)(pieces)
    asynchronous = ledger.tool("GMAIL_SEND_EMAIL", **labels)(send_async)

    def block() -> None:
        with ledger.execution("GMAIL_SEND_EMAIL", arguments=_ARGUMENTS, user_id="user_123") as execution:
            execution.result = send(**_ARGUMENTS)

    def step(coroutine: Any) -> None:
        try:
            coroutine.send(None)
        except StopIteration:
            return

    plain_us = cost_us(lambda: send(**_ARGUMENTS))
    print(f"{'what the caller pays, CPU us a call':44s} {'plain':>7s} {'recorded':>9s} {'more':>7s}")
    for name, base, work in (
        ("decorator", plain_us, lambda: decorated(**_ARGUMENTS)),
        ("decorator, payloads off", plain_us, lambda: without(**_ARGUMENTS)),
        ("decorator, async", cost_us(lambda: step(send_async(**_ARGUMENTS))), lambda: step(asynchronous(**_ARGUMENTS))),
        ("decorator, ten pieces", cost_us(lambda: list(pieces(**_ARGUMENTS))), lambda: list(in_pieces(**_ARGUMENTS))),
        ("context manager", plain_us, block),
        ("session.execute", plain_us, lambda: session.execute("GMAIL_SEND_EMAIL", _ARGUMENTS, tool=send)),
    ):
        found_us = cost_us(work)
        print(f"{name:44s} {base:7.2f} {found_us:9.2f} {found_us - base:7.2f}", flush=True)
    print(f"{'an event, bytes':44s} {statistics.mean(map(len, recorded)):7.0f}")
    return recorded


def background(events: list[bytes]) -> None:
    """Print what the client's threads do with an event."""
    encode, redact = msgspec.json.Encoder().encode, redaction(Options())
    secret = [
        event.replace(b'"subject":"hello"', b'"password":"hunter2","header":"Bearer abcdefghijk"') for event in events[:2000]
    ]
    name, compress = compression()
    _, gzip = compression(zstd=False)
    body = b"\n".join(events[:500])
    print(f"\n{'what the threads do, CPU us an event':44s}")
    smaller, gzip_smaller = len(body) / len(compress(body)), len(body) / len(gzip(body))
    for title, each_us in (
        ("redaction, nothing secret", cost_us(_each(redact, events), calls=1) / len(events)),
        ("redaction, two secrets", cost_us(_each(redact, secret), calls=1) / len(secret)),
        (f"compression, {name} ({smaller:.1f} times smaller)", cost_us(lambda: compress(body), calls=20) / 500),
        (f"compression, gzip ({gzip_smaller:.1f} times smaller)", cost_us(lambda: gzip(body), calls=20) / 500),
        ("for comparison: encoding the result again", cost_us(lambda: encode(_RESULT))),
    ):
        print(f"{title:44s} {each_us:7.2f}", flush=True)


def _each(work: Callable[[bytes], bytes], events: list[bytes]) -> Callable[[], None]:
    def all_of_them() -> None:
        for event in events:
            work(event)

    return all_of_them


_SINK: Final = """
import asyncio, json, sys
async def serve(reader, writer):
    while head := await reader.readuntil(b"\\r\\n\\r\\n"):
        size = int(head.lower().split(b"content-length: ")[1].split(b"\\r\\n")[0])
        await reader.readexactly(size)
        body = b'{"accepted":0,"ids":[],"rejected":[]}'
        writer.write(b"HTTP/1.1 202 Accepted\\r\\ncontent-length: %d\\r\\n\\r\\n%s" % (len(body), body))
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 24)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def throughput(url: str, key: str, calls: int) -> None:
    """Print how fast one process records and delivers."""
    print(f"\n{'a producer process':44s} {'calls/s':>9s} {'CPU us':>7s} {'dropped':>8s} {'RSS MB':>7s}")
    program = [sys.executable, "-m", "tests.benchmarks.bench_client", "--producer", "--url", url, "--key", key]
    for kind in ("sync", "threads", "async"):
        done = subprocess.run([*program, "--calls", str(calls), "--kind", kind], capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{kind:44s} {found['rate']:9,.0f} {found['cpu_us']:7.1f} {found['dropped']:8,d} {found['rss_mb']:7.0f}", flush=True
        )


def produce(url: str, key: str, calls: int, kind: str) -> None:
    """Be one producer: record as fast as the client delivers, as a program does that waits for its tools now and then."""
    import threading  # noqa: PLC0415 - of this kind of producer only

    client: Any = (AsyncToolLedger if kind == "async" else ToolLedger)(api_key=key, base_url=url, spool=False)
    inbox = client.recorder._delivery._inbox
    decorated = client.tool("GMAIL_SEND_EMAIL", user_id="user_123")(send)
    asynchronous = client.tool("GMAIL_SEND_EMAIL", user_id="user_123")(send_async)

    def record(count: int) -> None:
        for _ in range(count):
            decorated(**_ARGUMENTS)
            while inbox.held_bytes > 16 << 20:
                time.sleep(0.001)

    async def record_async() -> None:
        for _ in range(calls):
            await asynchronous(**_ARGUMENTS)
            while inbox.held_bytes > 16 << 20:  # noqa: ASYNC110 - another thread sets no event of ours
                await asyncio.sleep(0.001)
        assert await client.flush(60)

    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    if kind == "async":
        asyncio.run(record_async())
    else:
        count = 8 if kind == "threads" else 1
        threads = [threading.Thread(target=record, args=(calls // count,)) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.flush(60)
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    found = {"rate": calls / took_s, "cpu_us": cpu_s / calls * 1e6, "dropped": client.counts().dropped}
    print(json.dumps({**found, "rss_mb": pages * os.sysconf("SC_PAGESIZE") / 1e6}))


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", help="a running service; by default a server that only counts")
    parser.add_argument("--key", default="ak_bench")
    parser.add_argument("--calls", type=int, default=100_000, help="of each producer")
    parser.add_argument("--producer", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--kind", default="sync", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.producer:
        produce(given.url, given.key, given.calls, given.kind)
        return 0
    print(f"python {platform.python_version()}, {os.cpu_count()} cores, msgspec {version('msgspec')}\n")
    background(overhead())
    if given.url:
        throughput(given.url, given.key, given.calls)
        return 0
    sink = subprocess.Popen([sys.executable, "-c", _SINK], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert sink.stdout is not None
    try:
        throughput(f"http://127.0.0.1:{int(sink.stdout.readline())}", given.key, given.calls)
    finally:
        sink.terminate()
        sink.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
