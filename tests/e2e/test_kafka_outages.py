"""Kafka away, its group or its records gone: the worker goes on by itself, counts exactly, and tells what is lost for good."""

import contextlib
import json
import random
import signal
import string
import time
from collections.abc import Callable, Iterator

import pytest

from ingest.contract.partitioning import event_key, home_partition
from tests.e2e.test_ledger_crashes import recorded
from tests.support import kafka_admin
from tests.support.faulty_clickhouse import Fault
from tests.support.outages import Outages
from tests.support.pipeline import eventually

pytestmark = pytest.mark.real


def settled_exactly(outages: Outages) -> None:
    report = outages.pipeline.settled()
    # What Kafka deleted unread stays on record.
    assert {finding.kind for finding in report.findings} == ({"lost_to_retention"} if lost(outages) else set())
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


def test_records_that_retention_took_unread_are_on_record(outages: Outages) -> None:
    """Gone while no worker runs, below a batch half written, under a live one that lags: it goes on, and tells what is lost."""
    kafka = outages.pipeline.kafka.address
    assert outages.worker is not None
    outages.worker.end()
    send_singles(outages, "stopped")
    took = {partition: next_offset + 3 for partition, next_offset in proved(outages).items()}
    with losing(outages, "stopped"):
        kafka_admin.delete_records(kafka, took)
        outages.start_worker()
    assert {(line["partition"], line["next_offset"]) for line in outages.said("records_lost_to_retention")} == set(took.items())
    assert outages.metric("toolledger_ledger_gap_records_total") == 3 * outages.pipeline.partitions

    with losing(outages, "half"):
        planned_and_killed(outages, "half", send=send_singles)
        kafka_admin.delete_records(kafka, everything(outages))
        # It fetches little ahead, so that most of what comes next is in Kafka only.
        outages.start_worker(TOOLLEDGER_FETCH_BYTES="4096")

    waves = [f"wave{number}" for number in range(8)]
    with losing(outages, *waves), outages.proxy.broken(Fault(how="refuse")):
        for salt in waves:
            # One run is in work, one waits, one answer is fetched ahead: a few records of each partition.
            send_singles(outages, salt)
        kafka_admin.delete_records(kafka, everything(outages))
    outages.send("after")
    settled_exactly(outages)


@contextlib.contextmanager
def losing(outages: Outages, *salts: str) -> Iterator[None]:
    """What is sent in the block, one event a record, is then either accepted or lost on record, and some of it is lost."""
    began = lost(outages)
    yield
    outages.pipeline.settled()
    eventually("the worker is ready again", lambda: outages.reasons() == [])
    report = outages.pipeline.settled()
    assert {finding.kind for finding in report.findings} <= {"lost_to_retention"}
    assert report.accepted == report.rows == report.calls
    gone = lost(outages) - began
    assert gone > 0
    assert report.accepted - outages.sent + gone == SINGLES * len(salts)
    outages.sent = report.accepted


SINGLES = 40


def send_singles(outages: Outages, salt: str) -> None:
    outages.pipeline.send(recorded(SINGLES, salt=salt), pack=1)


def everything(outages: Outages) -> dict[int, int]:
    return dict.fromkeys(range(outages.pipeline.partitions), kafka_admin.TO_THE_END)


def lost(outages: Outages) -> int:
    return int(outages.pipeline.rows("SELECT sum(lost) FROM usage_windows WHERE kind = 'receipt' AND project_id = ''")[0][0])


def proved(outages: Outages) -> dict[int, int]:
    query = "SELECT kafka_partition, max(next_offset) FROM usage_windows WHERE kind = 'receipt' AND project_id = '' GROUP BY 1"
    return dict(outages.pipeline.rows(query))


def planned_and_killed(outages: Outages, salt: str, *, send: Callable[[Outages, str], None] = Outages.send) -> None:
    """Leave batches planned, their rows written and their receipts not, and no worker."""
    assert outages.worker is not None
    outages.worker.end()
    victim = outages.start_worker(TOOLLEDGER_FAULT="executions")
    send(outages, salt)
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


def test_a_topic_made_anew_under_a_live_worker_starts_over(outages: Outages) -> None:
    """Deleted and made again within a second, with more records and with fewer: each counts once, in its own topic."""
    kafka, pipeline = outages.pipeline.kafka.address, outages.pipeline
    for salt, count in (("anew-more", 200), ("anew-fewer", 20)):
        kafka_admin.make_anew(kafka, partitions=pipeline.partitions)
        outages.pipeline.send(recorded(count, salt=salt), pack=1)
        outages.sent += count
        written = f"SELECT count() FROM tool_executions WHERE startsWith(id, '{salt}-')"
        # Going on would miscount, so the worker ends; who started it starts it again.
        eventually(
            "the new topic's records are written",
            lambda written=written, count=count: revived(outages) and pipeline.rows(written)[0][0] == count,
        )
        settled_exactly(outages)
        assert pipeline.rows("SELECT count(), uniqExact(id) FROM tool_executions")[0] == (outages.sent, outages.sent)


def revived(outages: Outages) -> bool:
    """Start the worker again if it has ended, as a supervisor does."""
    assert outages.worker is not None
    if not outages.worker.alive:
        outages.start_worker(ready=False)
    return True
