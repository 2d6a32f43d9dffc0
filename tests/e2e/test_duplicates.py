"""Duplicates count once, wherever and whenever the copies come: real Kafka, ClickHouse, ingest and workers."""

import asyncio
import json
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from deploy.verify import Report
from ingest.contract.partitioning import event_key, home_partition
from ingest.contract.topics import HEADER_FIRST_ACCEPTED_MS, HEADER_PROJECT, TOOL_EXECUTIONS
from ingest.keys import create_key
from tests.support.ingest_service import IngestService
from tests.support.pipeline import Pipeline, Process, eventually
from tests.support.plain_http import HTTP

pytestmark = pytest.mark.real

PROJECT = "demo"
# Long past, as a backfill is; within every limit of an event's age.
OLD_MS = 1_776_421_500_000
Record = tuple[bytes, int | None, bytes | None]


@dataclass(slots=True)
class Site:
    """The pipeline, an ingest service with a key, and what has been counted so far."""

    pipeline: Pipeline
    ingest: IngestService
    key: str
    workers: dict[Process, int] = field(default_factory=dict)
    before: Report | None = None

    def start_worker(self, **env: str) -> Process:
        worker = self.pipeline.start_worker(**env)
        found = eventually("the worker listens", lambda: re.search(rb'"port": (\d+)', worker.log.read_bytes()))
        self.workers[worker] = int(found.group(1))
        return worker

    def end(self, worker: Process, number: signal.Signals) -> None:
        del self.workers[worker]
        worker.end(number)

    def ready(self, worker: Process) -> bool:
        try:
            return HTTP.get(f"http://127.0.0.1:{self.workers[worker]}/readyz").status_code == 200
        except httpx.TransportError:
            return False  # it does not listen yet

    def metric(self, line: str, *workers: Process) -> float:
        """Add a metric up over some workers, or all that run."""
        ports = [self.workers[worker] for worker in workers or self.workers]
        pages = [HTTP.get(f"http://127.0.0.1:{port}/metrics").text for port in ports]
        return sum(float(match.group(1)) for page in pages for match in re.finditer(rf"^{re.escape(line)} (\S+)$", page, re.M))

    def counted(self) -> dict[str, int]:
        """Wait until all is proved, see that nothing is found, and return what was counted since the last call."""
        report = self.pipeline.settled()
        # A receipt may land after the ends of the log were asked for, and what it forwarded lies behind them.
        while (again := self.pipeline.settled()).records != report.records:
            report = again
        assert report.findings == ()
        assert report.accepted == report.rows == report.calls
        names = ("accepted", "duplicates", "conflicts", "forwarded", "dead_letters")
        before, self.before = self.before, report
        return {name: getattr(report, name) - (getattr(before, name) if before is not None else 0) for name in names}

    def rows_of(self, salt: str) -> tuple[int, int]:
        query = f"SELECT count(), uniqExact(id) FROM tool_executions WHERE startsWith(id, '{salt}-')"
        return tuple(self.pipeline.rows(query)[0])  # type: ignore[return-value]

    def send(self, records: Sequence[Record], *, headers: Mapping[str, bytes] | None = None) -> None:
        asyncio.run(self.send_records(records, headers=headers))

    async def send_records(self, records: Sequence[Record], *, headers: Mapping[str, bytes] | None = None) -> None:
        """Send (value, partition, key); without a partition aiokafka's own partitioner chooses, by the key or at random."""
        producer = AIOKafkaProducer(bootstrap_servers=self.pipeline.kafka.address, acks="all")
        await producer.start()
        try:
            own = [(HEADER_PROJECT, PROJECT.encode()), *(headers or {}).items()]
            await asyncio.gather(
                *[
                    await producer.send(TOOL_EXECUTIONS, value, key=key, partition=partition, headers=own)
                    for value, partition, key in records
                ]
            )
        finally:
            await producer.stop()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("duplicates")
    pipeline = Pipeline(folder)
    try:
        pipeline.start()
        _, key = asyncio.run(create_key(pipeline.kafka.address, project_id=PROJECT))
        with IngestService.start(pipeline.kafka.address, folder) as ingest:
            made = Site(pipeline=pipeline, ingest=ingest, key=key)
            made.start_worker()
            yield made
    finally:
        pipeline.stop()


def event(event_id: str, **members: Any) -> bytes:
    made = {"id": event_id, "tool_slug": "GMAIL_SEND_EMAIL", "status": "success", "duration_ms": 12.5, "user_id": "u1"}
    return json.dumps({**made, **members}).encode()


def events(salt: str, count: int, **members: Any) -> list[tuple[str, bytes]]:
    return [(f"{salt}-{number}", event(f"{salt}-{number}", **members)) for number in range(count)]


def home(event_id: str, partitions: int) -> int:
    return home_partition(event_key(PROJECT, event_id), partitions)


def test_within_a_record_a_batch_and_across_batches(site: Site) -> None:
    """Twice in one record, in three records of one fetch, and again later, with another timestamp too: each id counts once."""
    sent = events("batch", 60)
    site.pipeline.send([pair for pair in sent for _ in range(2)], pack=20)
    site.send([(raw, home(event_id, 4), None) for event_id, raw in sent * 3])
    assert site.counted() == {"accepted": 60, "duplicates": 240, "conflicts": 0, "forwarded": 0, "dead_letters": 0}
    site.pipeline.send(events("batch", 60, timestamp=time.time_ns() // 10**6))
    assert site.counted()["duplicates"] == 60
    assert site.rows_of("batch") == (60, 60)


def test_across_workers_a_rebalance_a_kill_and_a_restart(site: Site) -> None:
    """Copies arrive while a worker joins, one is killed, one stops cleanly and one starts: each id counts once."""
    sent = events("moved", 400)
    site.pipeline.send(sent)
    first = next(iter(site.workers))
    second = site.start_worker()
    site.pipeline.send(sent)  # while partitions move to the second one
    site.pipeline.settled()
    site.end(first, signal.SIGKILL)
    site.pipeline.send(sent)
    third = site.start_worker()
    site.pipeline.send(sent)
    site.pipeline.settled()
    site.end(second, signal.SIGTERM)
    site.pipeline.send(sent)
    assert site.counted() == {"accepted": 400, "duplicates": 1600, "conflicts": 0, "forwarded": 0, "dead_letters": 0}
    assert site.rows_of("moved") == (400, 400)
    assert third.alive
    fourth = site.start_worker()
    eventually("it is ready", lambda: site.ready(fourth))
    ids = site.pipeline.rows("SELECT count() FROM tool_executions")[0][0]
    # Each id is in one filter: what a worker gave away it does not count any more.
    eventually("both workers have their share", lambda: site.metric("toolledger_dedupe_known_ids", fourth) > 0)
    eventually("each id is known once", lambda: site.metric("toolledger_dedupe_known_ids") == ids)


def test_by_http_and_straight_to_kafka_at_once_with_any_partitioner(site: Site) -> None:
    """The same events by HTTP, to their home, to random partitions and without a key, all at once: each id counts once."""
    sent = events("ways", 200, timestamp=OLD_MS)
    away = sum(home(event_id, 4) != number % 4 for number, (event_id, _) in enumerate(sent))

    async def all_ways() -> None:
        async with httpx.AsyncClient(base_url=site.ingest.url, headers={"x-api-key": site.key}) as http:
            posted = http.post("/v1/events", content=b"[" + b",".join(raw for _, raw in sent) + b"]")
            _, *_, answer = await asyncio.gather(
                site.send_records([(raw, None, event_key(PROJECT, event_id)) for event_id, raw in sent]),
                site.send_records([(raw, number % 4, b"another") for number, (_, raw) in enumerate(sent)]),
                site.send_records([(raw, None, None) for _, raw in sent]),
                posted,
            )
            assert answer.status_code == 202, answer.text

    asyncio.run(all_ways())
    site.pipeline.settled()
    # A stray that was forwarded is an event again at home.
    counted = site.counted()
    assert counted["accepted"] == 200
    assert counted["accepted"] + counted["duplicates"] == 800
    assert counted["forwarded"] >= away
    assert counted["conflicts"] == 0
    assert site.rows_of("ways") == (200, 200)


def test_events_whose_ids_were_made_may_be_sent_again_under_them(site: Site) -> None:
    """Events without an id are given one where they are found; sent again under it, as from an export, they are duplicates."""
    bare = [json.dumps({"tool_slug": "BARE", "status": "success", "duration_ms": n, "timestamp": OLD_MS}) for n in range(40)]
    site.send([(raw.encode(), number % 4, None) for number, raw in enumerate(bare)])
    assert site.counted()["accepted"] == 40
    exported = [
        event(event_id, tool_slug="BARE", duration_ms=duration_ms, user_id=None, timestamp=OLD_MS)
        for event_id, duration_ms in site.pipeline.rows("SELECT id, duration_ms FROM tool_executions WHERE tool_slug = 'BARE'")
    ]
    posted = HTTP.post(
        f"{site.ingest.url}/v1/events", content=b"[" + b",".join(exported) + b"]", headers={"x-api-key": site.key}
    )
    assert posted.status_code == 202, posted.text
    counted = site.counted()
    assert (counted["accepted"], counted["duplicates"], counted["conflicts"]) == (0, 40, 0)


def test_another_content_under_a_known_id_is_a_conflict_and_the_first_one_stays(site: Site) -> None:
    """First wins, within a batch and later; receipts, metrics and `verify` count conflicts, the worker's log names one."""
    before = site.metric('toolledger_worker_events_total{outcome="conflicts"}')
    # One pack: first and second content of ten ids in one batch.
    pack = [raw for number in range(10) for raw in (event(f"two-{number}"), event(f"two-{number}", duration_ms=99.0))]
    site.send([(raw, home(json.loads(raw)["id"], 4), None) for raw in pack])
    site.pipeline.settled()
    site.pipeline.send([(f"two-{number}", event(f"two-{number}", status="failed")) for number in range(10)])
    assert site.counted() == {"accepted": 10, "duplicates": 20, "conflicts": 20, "forwarded": 0, "dead_letters": 0}
    kept = site.pipeline.rows("SELECT DISTINCT duration_ms, status FROM tool_executions WHERE startsWith(id, 'two-')")
    assert kept == [(12.5, "success")]
    by_project = site.pipeline.rows(
        f"SELECT sum(conflicts) FROM usage_windows WHERE kind = 'project_receipt' AND project_id = '{PROJECT}'"
    )
    assert by_project == [(20,)]
    assert site.metric('toolledger_worker_events_total{outcome="conflicts"}') - before == 20
    said = "".join(worker.log.read_text() for worker in site.workers)
    named = re.findall(r'"example": "demo/(two-\d)".*"event": "ids_with_other_content"', said)
    assert named, "the log names an id to look at"


def test_a_backfill_older_than_the_horizon_counts_once(site: Site) -> None:
    """What was accepted before the filter's reach is found by its time: a backfill sent again long after changes nothing."""
    sent = events("backfill", 300, timestamp=OLD_MS)
    two_days_ago_ms = time.time_ns() // 10**6 - 2 * 24 * 3_600_000
    records = [(raw, home(event_id, 4), None) for event_id, raw in sent]
    site.send(records, headers={HEADER_FIRST_ACCEPTED_MS: b"%d" % two_days_ago_ms})
    assert site.counted()["accepted"] == 300
    for worker in list(site.workers):
        site.end(worker, signal.SIGTERM)
    forgetful = site.start_worker(TOOLLEDGER_DEDUPE_HORIZON_MS="60000")
    eventually("every partition is open", lambda: site.ready(forgetful))
    eventually("the horizon is told", lambda: 60 <= site.metric("toolledger_dedupe_reach_seconds") < 3600)
    recent = "SELECT count() FROM tool_executions WHERE accepted_at > now() - INTERVAL 1 DAY"
    assert site.metric("toolledger_dedupe_known_ids") <= site.pipeline.rows(recent)[0][0]
    asked = site.metric("toolledger_dedupe_asked_total")
    site.send(records)
    assert site.counted() == {"accepted": 0, "duplicates": 300, "conflicts": 0, "forwarded": 0, "dead_letters": 0}
    assert site.metric("toolledger_dedupe_asked_total") - asked == 300
    assert site.rows_of("backfill") == (300, 300)


def test_after_partitions_were_added(site: Site) -> None:
    """Four partitions become six while workers run: ids sent before, and those sent to both homes meanwhile, count once."""
    site.start_worker()
    site.pipeline.settled()
    known, fresh = events("before", 300), events("meanwhile", 300)
    site.pipeline.send(known)
    assert site.counted()["accepted"] == 300

    async def six(*, make: bool) -> bool:
        """Tell whether the broker tells of six, which may be a moment after they were made."""
        admin = AIOKafkaAdminClient(bootstrap_servers=site.pipeline.kafka.address)
        await admin.start()
        try:
            if make:
                await admin.create_partitions({TOOL_EXECUTIONS: NewPartitions(total_count=6)})
            (topic,) = await admin.describe_topics([TOOL_EXECUTIONS])
            return len(topic["partitions"]) == 6
        finally:
            await admin.close()

    asyncio.run(six(make=True))
    eventually("producers are told of six", lambda: asyncio.run(six(make=False)))
    site.send([(raw, home(event_id, partitions), None) for event_id, raw in [*known, *fresh] for partitions in (4, 6)])
    site.pipeline.partitions = 6
    opened = [b'"partition": 4,', b'"partition": 5,']

    def all_open() -> bool:
        said = b"".join(worker.log.read_bytes() for worker in site.workers)
        return all(re.search(part + b'.*"event": "partition_opened"', said) for part in opened)

    eventually("the new partitions are open", all_open)
    site.pipeline.send([*known, *fresh])
    counted = site.counted()
    assert counted["accepted"] == 300
    assert counted["duplicates"] == 3 * 300 + 2 * 300
    assert site.rows_of("before") == (300, 300)
    assert site.rows_of("meanwhile") == (300, 300)
