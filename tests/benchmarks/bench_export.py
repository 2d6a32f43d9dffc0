"""How fast exports are and what they hold: logs a second, processor time, and the most memory of query service and ClickHouse.

`python -m tests.benchmarks.bench_export --rows 10000000` seeds a table in the embedded ClickHouse and takes it along in each
format. The query service is a process of its own, with keys given to it; `--slow` reads one megabyte a second.
"""

import argparse
import asyncio
import contextlib
import http.client
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil
from clickhouse_connect.driver.client import Client

from ingest.contract.store import client as open_client
from tests.support import parts, rows
from tests.support.query_service import KEY_A, query_service

_PART_ROWS: Final = 1_000_000
_BATCH_ROWS: Final = 5_000
_SLOW_BYTES_S: Final = 1_000_000
_MIB: Final = 1024 * 1024


def seed(client: Client, count: int) -> None:
    """Write events of 30 days, one in twenty failed, with payloads of some 600 bytes, and the receipts of their batches."""
    for first in range(0, count, _PART_ROWS):
        last = min(count, first + _PART_ROWS)
        client.command(
            "INSERT INTO tool_executions (batch_month, project_id, timestamp, id, tool_slug, toolkit_slug, user_id, session_id,"
            " status, failure_class, http_status, duration_ms, level, message, error_message, trace_id, metadata, data,"
            " accepted_at, incarnation, kafka_partition, first_offset, kafka_offset)"
            " SELECT 202611, 'proj_a', fromUnixTimestamp64Milli("
            f"1793000000000 + intDiv(number * 2592000000, {count}), 'UTC') AS at,"
            " concat('log_', lower(hex(cityHash64(number)))), concat('GMAIL_ACTION_', toString(number % 40)), 'gmail',"
            " concat('user_', toString(cityHash64(number, 1) % 50000)), concat('ses_', toString(intDiv(number, 25))),"
            " if(number % 20 = 0, 'failed', 'success') AS s, if(s = 'failed', 'invalid_input', ''), if(s = 'failed', 422, 0),"
            " cityHash64(number, 2) % 3000 / 7, if(s = 'failed', 'error', 'info'),"
            " concat('GMAIL_ACTION succeeded ', toString(number)),"
            " if(s = 'failed', 'recipient is not a valid address', ''), hex(cityHash64(number, 3)), '{\"attempt\":1}',"
            ' concat(\'{"request":{"text":"\', repeat(hex(cityHash64(number, 4)), 20),'
            ' \'"},"response":{"body":"\', repeat(hex(cityHash64(number, 5)), 17), \'"}}\'), at, \'one\', number % 8,'
            f" number - number % {_BATCH_ROWS}, number FROM numbers({first}, {last - first})"
        )
    client.command(
        "INSERT INTO usage_windows (batch_month, kind, project_id, incarnation, kafka_partition, window_start, first_offset,"
        " receipts, next_offset, accepted, newest_record_ms, first_call) SELECT 202611, 'receipt', '', 'one', number,"
        f" toDateTime(1795590000, 'UTC'), 0, 1, {count}, {count // 8}, 1795590000000, (9223372036854775807, '') FROM numbers(8)"
    )


def _serve(url: str, told: Connection) -> None:
    async def run() -> None:
        async with query_service(url) as service:
            told.send(service.url)
            await asyncio.to_thread(told.recv)

    asyncio.run(run())


class Peak:
    """The most memory of processes while a block runs, MiB, and the seconds of processor time they took."""

    def __init__(self, **pids: int) -> None:
        self.mib = dict.fromkeys(pids, 0.0)
        self.cpu_s = dict.fromkeys(pids, 0.0)
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._over = threading.Event()

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Look ten times a second."""
        watching = threading.Thread(target=self._watch)
        watching.start()
        before = {name: sum(process.cpu_times()[:2]) for name, process in self._processes.items()}
        try:
            yield
        finally:
            self._over.set()
            watching.join()
            self.cpu_s = {name: sum(one.cpu_times()[:2]) - before[name] for name, one in self._processes.items()}

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            for name, process in self._processes.items():
                self.mib[name] = max(self.mib[name], process.memory_info().rss / _MIB)


def take(url: str, query: str, *, bytes_s: int = 0) -> tuple[int, int, float]:
    """Read one export to its end; return its logs, bytes and seconds."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=600)
    began_s = time.monotonic()
    connection.request("GET", f"/v1/logs/export?{query}", headers={"x-api-key": KEY_A})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    size = 0
    while data := answer.read(256 * 1024):
        size += len(data)
        if bytes_s:
            time.sleep(max(0.0, size / bytes_s - (time.monotonic() - began_s)))
    return int(answer.headers["x-total-count"]), size, time.monotonic() - began_s


def main() -> None:
    """Seed, export, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("--query", action="append", help="instead of the usual ones, as in format=csv&status=failed")
    given = parser.parse_args()
    queries = given.query or [
        "format=ndjson",
        "format=csv",
        "format=parquet",
        "format=ndjson&data=true",
        "format=csv&status=failed",
    ]
    with tempfile.TemporaryDirectory() as folder, parts.clickhouse(Path(folder)) as server:
        clickhouse = next(one for one in psutil.Process().children() if "clickhouse" in " ".join(one.cmdline()))
        with rows.fresh_database(server) as url, contextlib.closing(open_client(url)) as client:
            began_s = time.monotonic()
            seed(client, given.rows)
            print(
                f"seeded {given.rows:,} rows in {time.monotonic() - began_s:.0f} s, load {os.getloadavg()[0]:.0f}", flush=True
            )
            ours, theirs = multiprocessing.get_context("spawn").Pipe()
            serving = multiprocessing.get_context("spawn").Process(target=_serve, args=(url, theirs))
            serving.start()
            address = ours.recv()
            for query in queries:
                assert serving.pid is not None
                peak = Peak(query=serving.pid, clickhouse=clickhouse.pid)
                with peak.watch():
                    count, size, took_s = take(address, query, bytes_s=_SLOW_BYTES_S if given.slow else 0)
                print(
                    f"{query:<26} {count:>11,} logs {size / 1e6:>8,.0f} MB {took_s:>6.0f} s {count / took_s:>9,.0f} logs/s"
                    f"  query {peak.mib['query']:.0f} MiB {peak.cpu_s['query']:.0f} s,"
                    f" ClickHouse {peak.mib['clickhouse']:.0f} MiB {peak.cpu_s['clickhouse']:.0f} s",
                    flush=True,
                )
            ours.send(None)
            serving.join()


if __name__ == "__main__":
    main()
