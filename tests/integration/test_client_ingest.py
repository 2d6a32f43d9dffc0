"""The client against the real ingest service: what it recorded is in Kafka, whatever happened to either side meanwhile."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.topics import apply
from ingest.client import ToolLedger
from ingest.contract.topics import topics
from ingest.keys import create_key
from tests.support.ingest_service import IngestService, ends, eventually, records_since
from tests.support.process import eventually as soon

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def service(kafka_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IngestService]:
    apply(kafka_address, topics())
    with IngestService.start(kafka_address, tmp_path_factory.mktemp("ingest"), ingest_events_max=300) as running:
        yield running


@pytest.fixture(scope="module")
def key(kafka_address: str, service: IngestService) -> str:
    return asyncio.run(made_key(kafka_address, service))


async def made_key(kafka: str, service: IngestService) -> str:
    _, plain = await create_key(kafka, project_id="client-tests")
    async with httpx.AsyncClient(base_url=service.url, headers={"x-api-key": plain}) as http:

        async def known() -> bool:
            return "Invalid API key" not in (await http.post("/v1/events", json=[])).text

        await eventually(known)
    return plain


def in_kafka(kafka: str, before: dict[int, int]) -> list[dict[str, Any]]:
    """Events that came since, as often as they came."""
    found: list[dict[str, Any]] = []
    for record in asyncio.run(records_since(kafka, before)):
        value = json.loads(record.value)
        found += value if isinstance(value, list) else [value]
    return found


def test_every_kind_of_call_is_accepted_as_it_was_made(
    kafka_address: str, service: IngestService, key: str, tmp_path: Path
) -> None:
    """Nothing that the client makes is refused, and what it holds is what was taken and given."""
    before = asyncio.run(ends(kafka_address))
    cyclic: list[Any] = [1]
    cyclic.append(cyclic)
    odd = [object(), b"\xff", float("nan"), "\ud800", cyclic, 2**80, {1: {2, 3}}, "x" * 3_000_000, [[[]]] * 999, None]
    with ToolLedger(api_key=key, base_url=service.url, spool=tmp_path) as ledger:
        session = ledger.session(user_id="user_123")
        for each in odd:
            session.execute("ODD_TOOL", {"a": each}, tool=lambda a: a)
        session.execute("FAILING_TOOL", tool=lambda: 1 / 0)
        assert ledger.flush(30)
        counts = ledger.counts()
    assert (counts.recorded, counts.accepted) == (len(odd) + 1, len(odd) + 1)
    events = in_kafka(kafka_address, before)
    assert len({event["id"] for event in events}) == len(odd) + 1
    assert {event["session_id"] for event in events} == {session.id}
    failed = [event for event in events if event["status"] == "failed"]
    assert [event["error"]["type"] for event in failed] == ["ZeroDivisionError"]


def test_more_events_than_the_server_takes_at_once_all_arrive(
    kafka_address: str, service: IngestService, key: str, tmp_path: Path
) -> None:
    """Ingest takes 300 here, a batch has 500: halves go."""
    before = asyncio.run(ends(kafka_address))
    with ToolLedger(api_key=key, base_url=service.url, spool=tmp_path) as ledger:
        ids = [ledger.record("A_TOOL", duration_ms=1) for _ in range(2_000)]
        assert ledger.flush(60)
    assert Counter(event["id"] for event in in_kafka(kafka_address, before)) == Counter(ids)


def test_a_server_that_hangs_and_goes_on_loses_nothing(
    kafka_address: str, service: IngestService, key: str, tmp_path: Path
) -> None:
    """Frozen in the midst of requests: calls go on, wait on disk, and arrive."""
    before = asyncio.run(ends(kafka_address))
    with ToolLedger(api_key=key, base_url=service.url, spool=tmp_path, timeout_s=2) as ledger:
        ids = [ledger.record("A_TOOL", duration_ms=1) for _ in range(500)]
        service.process.send_signal(signal.SIGSTOP)
        try:
            while not ledger.counts().spooled:
                ids.append(ledger.record("A_TOOL", duration_ms=1))
                time.sleep(0.005)
        finally:
            service.process.send_signal(signal.SIGCONT)
        soon("all of it arrived", lambda: not list(tmp_path.iterdir()) and not ledger.counts().waiting)
    assert {event["id"] for event in in_kafka(kafka_address, before)} == set(ids)


_PRODUCER = """
import os, sys
from ingest.client import ToolLedger
ledger = ToolLedger(base_url=sys.argv[1], api_key=sys.argv[2], spool=sys.argv[3], flush_interval_s=0.02)
number = 0
while True:
    for _ in range(20):
        ledger.record("A_TOOL", duration_ms=1, log_id=f"{os.getpid()}-{number}")
        number += 1
    ledger.flush(30)
    if not ledger.counts().waiting:
        # What is said here is safe: with the server, or on disk.
        os.write(1, f"{number}\\n".encode())
"""


def test_producers_and_servers_killed_again_and_again_lose_nothing_that_was_safe(
    kafka_address: str, key: str, tmp_path: Path
) -> None:
    """kill -9 of three producers and two servers in turn, on one folder: what a producer knew to be safe is in Kafka."""
    before = asyncio.run(ends(kafka_address))
    safe: dict[int, int] = {}
    spool = tmp_path / "spool"
    program = tmp_path / "producer.py"
    program.write_text(textwrap.dedent(_PRODUCER))

    def producer(url: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, str(program), url, key, str(spool)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )

    def kill(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        assert process.stdout is not None
        # All whole lines that it came to say beside those read already.
        said = process.stdout.read().rpartition(b"\n")[0].splitlines()
        process.wait()
        if said:
            safe[process.pid] = int(said[-1])

    for _ in range(2):
        with IngestService.start(kafka_address, tmp_path) as server:
            producers = [producer(server.url) for _ in range(3)]
            try:
                safe |= time_to_work(producers)
                server.process.kill()
                server.process.wait()
                safe |= time_to_work(producers)
            finally:
                for process in producers:
                    kill(process)
    with IngestService.start(kafka_address, tmp_path) as server:
        last = ToolLedger(api_key=key, base_url=server.url, spool=spool)
        last.record("A_TOOL", duration_ms=1, log_id="last")
        soon("the folder is empty", lambda: not list(spool.iterdir()))
        last.close()
    ids = {event["id"] for event in in_kafka(kafka_address, before)}
    assert "last" in ids
    assert sum(safe.values()) > 500
    for process_id, count in safe.items():
        assert {f"{process_id}-{number}" for number in range(count)} <= ids


def time_to_work(producers: list[subprocess.Popen[bytes]]) -> dict[int, int]:
    """Let producers come to say fifty times more how much is safe; return what each said last."""
    last: dict[int, int] = {}
    for process in producers:
        assert process.stdout is not None
        for _ in range(50):
            line = process.stdout.readline()
            assert line, "a producer ended"
            last[process.pid] = int(line)
    return last
