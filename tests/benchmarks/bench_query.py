"""What questions cost against a long history while events arrive: `python -m tests.benchmarks.bench_query`.

Starts Kafka, ClickHouse, a worker and the query service as processes on a folder of `seed_executions` (made if it is not
there, kept if `--folder` names it), sends events through the real pipeline meanwhile, and asks over HTTP as clients with kept
connections do. Prints, for each question, latencies, the CPU it took of the query service and of ClickHouse (less what the
live load takes alone), and what the same figures cost from raw rows; then mixed loads at fixed rates, whose requests leave
when they are due and not when the one before is answered, so that waiting counts, up to the first rate that is too high.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httptools
import psutil

from tests.benchmarks.live_events import arriving
from tests.benchmarks.query_questions import PROJECT, QUESTIONS, Asker, Question, raw_sql, sample
from tests.benchmarks.seed_executions import PROJECTS, seed
from tests.benchmarks.seeded_stack import seeded_stack
from tests.support.pipeline import Pipeline, Process
from tests.support.ports import HOST

_BUDGET: Final = {"TOOLLEDGER_DEDUPE_BYTES": str(200 * 1024 * 1024), "TOOLLEDGER_LOG_JSON": "1"}
_CONNECTIONS_MAX: Final = 128
_IDLE_S: Final = 10
_ANSWER_S: Final = 60
# A rate is kept up with while this is the p95 at most, in ms, and (almost) every request is answered.
_KEPT_UP_MS: Final = 500


class Connection(asyncio.Protocol):
    """A minimal HTTP client that keeps the status and the size of an answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._done.set_result((self._parser.get_status_code(), self._body))

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Send a request and wait for its answer; one at a time."""
        self._parser, self._body = httptools.HttpResponseParser(self), b""
        self._done: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        async with asyncio.timeout(_ANSWER_S):
            return await self._done


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """CPU seconds of the processes since they began."""

    at: float
    service: float
    store: float


class Bench:
    """A running stack and whoever asks it.

    Args:
        background: CPU seconds a second that ClickHouse needs for the live load alone.
    """

    def __init__(self, pipeline: Pipeline, service: Process, port: int, ask: Asker) -> None:
        assert pipeline.clickhouse is not None
        self.pipeline = pipeline
        self.port = port
        self.ask = ask
        self.background = 0.0
        self._store = psutil.Process(pipeline.clickhouse.process.pid)
        self._service = psutil.Process(service.process.pid)

    def spent(self) -> Spent:
        service, store = self._service.cpu_times(), self._store.cpu_times()
        return Spent(at=time.monotonic(), service=service.user + service.system, store=store.user + store.system)

    def per_request(self, before: Spent, count: int) -> tuple[float, float]:
        """Return ms of CPU a request: of the service, and of ClickHouse beyond the live load."""
        after = self.spent()
        store = after.store - before.store - self.background * (after.at - before.at)
        return (after.service - before.service) / count * 1e3, max(0.0, store) / count * 1e3

    def memory(self) -> str:
        service, store = (process.memory_info().rss / 2**20 for process in (self._service, self._store))
        return f"query service {service:,.0f} MiB, ClickHouse {store:,.0f} MiB"

    async def connect(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, HOST, self.port)
        return connection

    async def idle(self) -> None:
        """Find out what the live load alone costs."""
        before = self.spent()
        # Time is what is measured here: there is no condition to wait for.
        await asyncio.sleep(_IDLE_S)
        after = self.spent()
        self.background = (after.store - before.store) / (after.at - before.at)

    async def alone(self, question: Question, count: int) -> tuple[list[float], float, float]:
        """Ask a question again and again, one at a time; return latencies in ms and CPU ms a request."""
        connection = await self.connect()
        status, body = await connection.send(question.make(self.ask))
        if status != 200:
            raise LookupError(f"{status} {body[:200]!r}")
        latencies = []
        before = self.spent()
        for _ in range(count):
            request = question.make(self.ask)
            began = time.perf_counter()
            status, body = await connection.send(request)
            latencies.append((time.perf_counter() - began) * 1e3)
            assert status == 200, (question.name, status, body[:300])
        service, store = self.per_request(before, count)
        connection.transport.close()
        return latencies, service, store

    async def raw(self, question: Question) -> float | None:
        """Return ms that the same figures take from raw rows, asked of ClickHouse itself; None where there is no such SQL."""
        text = raw_sql(question, now_ms=self.ask.now_ms)
        if text is None:
            return None
        began = time.perf_counter()
        await asyncio.to_thread(self.pipeline.rows, text)
        return (time.perf_counter() - began) * 1e3

    async def mixed(self, rate: float, seconds: float) -> tuple[list[float], Counter[str], float, float]:
        """Send a mixed load at a fixed rate; return latencies from when each was due, failures, and CPU ms a request."""
        weighted = [question for question in QUESTIONS for _ in range(question.weight)]
        chosen = [weighted[number * 37 % len(weighted)] for number in range(int(rate * seconds))]
        free: list[Connection] = [await self.connect() for _ in range(_CONNECTIONS_MAX)]
        waiting = asyncio.Semaphore(_CONNECTIONS_MAX)
        latencies: list[float] = []
        failed: Counter[str] = Counter()

        async def one(question: Question, due: float) -> None:
            async with waiting:
                connection = free.pop()
                if connection.transport.is_closing():
                    # The service cuts connections that say nothing for long.
                    connection = await self.connect()
                try:
                    status, _ = await connection.send(question.make(self.ask))
                    if status != 200:
                        failed[f"{question.name}: {status}"] += 1
                except TimeoutError:
                    failed[f"{question.name}: no answer"] += 1
                    connection.transport.close()
                    connection = await self.connect()
                finally:
                    free.append(connection)
            latencies.append((time.perf_counter() - due) * 1e3)

        before, began = self.spent(), time.perf_counter()
        tasks = []
        for number, question in enumerate(chosen):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(one(question, due)))
        await asyncio.gather(*tasks)
        service, store = self.per_request(before, len(chosen))
        for connection in free:
            connection.transport.close()
        return latencies, failed, service, store


def percentiles(latencies: Sequence[float]) -> list[float]:
    """Return p50, p95 and p99."""
    ordered = sorted(latencies)
    return [ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.95, 0.99)]


async def measure(bench: Bench, *, count: int, rounds: int, rates: Sequence[int], only: Sequence[str]) -> None:
    """Print the table, and the mixed loads."""
    await bench.idle()
    print(f"ClickHouse for the live load alone: {bench.background:.2f} of a core; load {os.getloadavg()[0]:.1f}", flush=True)
    print(
        "| question | goal | p50 | p95 | p99 | median of rounds' p95 | raw rows | CPU ms: service | ClickHouse |\n"
        + "|---" * 9
        + "|"
    )
    for question in QUESTIONS:
        if not any(part in question.name for part in only):
            continue
        every: list[float] = []
        p95s, services, stores, raws = [], [], [], []
        try:
            for _ in range(rounds):
                latencies, service, store = await bench.alone(question, count)
                every += latencies
                p95s.append(percentiles(latencies)[1])
                services.append(service)
                stores.append(store)
                raws.append(await bench.raw(question))
        except LookupError as refused:
            print(f"| {question.name} | not answered: {refused} |", flush=True)
            continue
        known = [raw for raw in raws if raw is not None]
        shown = [f"{value:,.1f}" for value in (*percentiles(every), statistics.median(p95s))]
        raw = f"{statistics.median(known):,.0f}" if known else ""
        cpu = (f"{statistics.median(values):.2f}" for values in (services, stores))
        print(f"| {question.name} | {question.goal_ms or ''} | {' | '.join(shown)} | {raw} | {' | '.join(cpu)} |", flush=True)
    print(bench.memory(), flush=True)
    for rate in rates:
        latencies, failed, service, store = await bench.mixed(rate, 20)
        p50, p95, p99 = percentiles(latencies)
        print(
            f"mixed load, {rate}/s: p50 {p50:,.0f}, p95 {p95:,.0f}, p99 {p99:,.0f} ms, {failed.total()} failed;"
            f" CPU of the service {service:.2f} ms a request = {service * rate / 10:.0f} % of a core,"
            f" ClickHouse {store:.2f} ms; {bench.memory()}; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        if failed or p95 > _KEPT_UP_MS:
            print(f"{rate}/s is more than it keeps up with; failed: {dict(failed)}", flush=True)
            break


def bench(folder: Path, *, rate: int, count: int, rounds: int, rates: Sequence[int], only: Sequence[str]) -> None:
    """Start everything on a seeded folder, measure, and stop."""
    with seeded_stack(folder, worker=_BUDGET, query={"TOOLLEDGER_QUERY_TIME_S_MAX": "60"}) as stack:
        keys = {name: stack.create_key(name) for name in sorted(set(PROJECTS))}
        org_key = stack.create_key("")
        store = stack.pipeline.store()
        rows = store.query("SELECT count() FROM tool_executions").result_rows[0][0]
        calls = sample(store, rows)
        store.close()
        print(f"{rows:,} rows, {len(calls):,} sampled; {rate:,} events/s arrive; {os.cpu_count()} cores", flush=True)
        ask = Asker(keys[PROJECT], org_key, calls, now_ms=max(call.timestamp_ms for call in calls), goes_on=rate > 0)
        with arriving(stack.pipeline.kafka.address, rate) if rate else contextlib.nullcontext():
            made = Bench(stack.pipeline, stack.service, stack.port, ask)
            asyncio.run(measure(made, count=count, rounds=rounds, rates=rates, only=only))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--folder", type=Path, help="data to keep; seeded if it is not there")
    parser.add_argument("--live", type=int, default=5_000, help="events a second that arrive meanwhile")
    parser.add_argument("--count", type=int, default=20, help="requests of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rates", type=int, nargs="*", default=[50, 100, 200, 300, 400, 600], help="mixed loads, requests/s")
    parser.add_argument("--only", nargs="*", default=[""], help="only questions whose name has one of these in it")
    options = parser.parse_args()
    # While ClickHouse starts, its client says at length that it is not there yet.
    logging.disable(logging.ERROR)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "data"
        if not folder.exists():
            seed(folder, options.rows)
        bench(folder, rate=options.live, count=options.count, rounds=options.rounds, rates=options.rates, only=options.only)


if __name__ == "__main__":
    main()
