"""Kafka away, its group or its records gone: the worker goes on by itself, counts exactly, and tells what is lost for good."""

import json
import random
import signal
import string
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.contract.partitioning import event_key, home_partition
from tests.support import kafka_admin
from tests.support.faulty_clickhouse import Fault
from tests.support.outages import Outages
from tests.support.pipeline import eventually

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def outages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outages]:
    made = Outages(Path(tmp_path_factory.mktemp("kafka_outages")))
    try:
        made.start()
        made.send("first")
        assert made.pipeline.settled().findings == ()
        yield made
    finally:
        made.stop()


def settled_exactly(outages: Outages) -> None:
    report = outages.pipeline.settled()
    assert report.findings == ()
    assert (report.accepted, report.rows, report.calls) == (outages.sent, outages.sent, outages.sent)
    eventually("the worker is ready again", lambda: outages.reasons() == [])


def wait_out_the_session(outages: Outages) -> None:
    session_s = int(outages.pipeline.env["TOOLLEDGER_SESSION_TIMEOUT_MS"]) / 1000
    until = time.monotonic() + 1.3 * session_s
    eventually("the session timeout is over", lambda: time.monotonic() > until)


def test_a_broker_killed_and_started_again_loses_nothing(outages: Outages) -> None:
    """kill -9 while batches are in work, back at once and back after more than the session timeout: exact, same process."""
    worker = outages.worker
    lines = outages.lines()
    began = time.monotonic()
    for salt, long in (("killed", False), ("killed-long", True)):
        with outages.proxy.broken(Fault(how="delay", seconds=0.3, only="inserts")):
            outages.send(salt, count=200)
            outages.pipeline.kafka.stop(kill=True)
        if long:
            wait_out_the_session(outages)
            assert outages.reasons(), "a worker without Kafka says that it is ready"
        outages.pipeline.kafka.start()
        settled_exactly(outages)
    assert worker is not None
    assert worker.alive
    assert (outages.lines() - lines) / (time.monotonic() - began) < 40
    # Nothing was lost, so nothing may be taken for lost: offsets are there, though a coordinator that loads does not tell them.
    assert outages.said("partition_rewound") == []


def test_a_broker_frozen_beyond_the_session_timeout_loses_nothing(outages: Outages) -> None:
    """SIGSTOP with a batch in work, SIGCONT after more than the session timeout."""
    worker = outages.worker
    with outages.proxy.broken(Fault(how="delay", seconds=0.3, only="inserts")):
        outages.send("frozen", count=200)
        outages.pipeline.kafka.signal(signal.SIGSTOP)
    wait_out_the_session(outages)
    said = outages.reasons()
    outages.pipeline.kafka.signal(signal.SIGCONT)
    assert said, "a worker that hears nothing of Kafka says that it is ready"
    outages.send("thawed")
    settled_exactly(outages)
    assert worker is not None
    assert worker.alive


def test_a_worker_that_recovers_while_kafka_goes_away_waits_for_it(outages: Outages) -> None:
    """Started with a plan to recover, and the broker killed right then: it does not end, and the plan is carried out once."""
    kafka = outages.pipeline.kafka
    planned_and_killed(outages, "recover")
    with outages.proxy.broken(Fault(how="hang")):
        worker = outages.start_worker(ready=False)
        eventually("it asks ClickHouse where it stands", lambda: outages.proxy.met > 0)
        kafka.stop(kill=True)
    eventually("it says that it misses Kafka", outages.reasons)
    kafka.start()
    settled_exactly(outages)
    assert worker.alive


def test_a_group_whose_offsets_expired_is_found_again_in_the_receipts(outages: Outages) -> None:
    """All offsets of the group gone, once with nothing open and once with a planned batch half written: exact."""
    assert outages.worker is not None
    outages.worker.end()
    outages.send("expired")
    kafka_admin.delete_group(outages.pipeline.kafka.address)
    outages.start_worker()
    settled_exactly(outages)
    planned_and_killed(outages, "expired-plan")
    eventually("the group is empty", lambda: kafka_admin.members(outages.pipeline.kafka.address) == [])
    kafka_admin.delete_group(outages.pipeline.kafka.address)
    outages.start_worker()
    settled_exactly(outages)


def planned_and_killed(outages: Outages, salt: str) -> None:
    """Leave batches planned, their rows written and their receipts not, and no worker."""
    assert outages.worker is not None
    outages.worker.end()
    victim = outages.start_worker(TOOLLEDGER_FAULT="executions")
    outages.send(salt)
    eventually("the worker dies behind its executions", lambda: not victim.alive)


def test_a_stray_too_large_for_its_home_is_told_and_waits(outages: Outages) -> None:
    """A limit below what must be forwarded: its partition waits and /readyz says for what; once it is raised, it is there."""
    kafka = outages.pipeline.kafka.address
    assert outages.worker is not None
    outages.worker.end()
    home = home_partition(event_key("demo", "stray-0"), outages.pipeline.partitions)
    # Hardly to be compressed.
    text = "".join(random.Random(4).choices(string.ascii_letters + string.digits, k=60_000))
    event = {"id": "stray-0", "tool_slug": "GMAIL_SEND_EMAIL", "status": "success", "duration_ms": 1, "data": {"request": text}}
    outages.pipeline.send_records([(json.dumps(event).encode(), (home + 1) % outages.pipeline.partitions)])
    kafka_admin.configure(kafka, max_message_bytes="20000")
    outages.start_worker(ready=False)
    eventually("/readyz says what is too large", lambda: any("max.message.bytes" in said for said in outages.reasons() or []))
    outages.send("beside")
    written = "SELECT uniqExact(kafka_partition) FROM tool_executions WHERE startsWith(id, 'beside-')"
    eventually("the others go on", lambda: outages.pipeline.rows(written)[0][0] == outages.pipeline.partitions - 1)
    kafka_admin.configure(kafka)
    outages.sent += 1
    settled_exactly(outages)
    assert outages.pipeline.rows("SELECT kafka_partition FROM tool_executions WHERE id = 'stray-0'") == [(home,)]
