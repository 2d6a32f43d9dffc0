"""Processes killed for real at each numbered step of the ledger: every event is there once, and logs = usage = receipts."""

import json
import signal
from pathlib import Path

import pytest

from tests.support import kafka_admin
from tests.support.pipeline import Pipeline, eventually

pytestmark = pytest.mark.real

STEPS = ("before_plan", "planned", "dead_letters", "forward", "executions", "receipt")


def recorded(count: int, *, salt: str) -> list[tuple[str, bytes]]:
    """Recorded tool calls under ids of this test's own."""
    lines = (Path(__file__).parents[1] / "data" / "airline_tool_calls.ndjson").read_text().splitlines()
    events = [json.loads(line) for line in lines[:count]]
    return [(f"{salt}-{event['id']}", json.dumps({**event, "id": f"{salt}-{event['id']}"}).encode()) for event in events]


def count(pipeline: Pipeline, salt: str) -> tuple[int, int]:
    query = f"SELECT count(), uniqExact(id) FROM tool_executions WHERE startsWith(id, '{salt}-')"
    return tuple(pipeline.rows(query)[0])  # type: ignore[return-value]


@pytest.mark.parametrize("bystanders", [0, 1])
def test_a_kill_at_any_step_loses_nothing_and_doubles_nothing(pipeline: Pipeline, bystanders: int) -> None:
    """SIGKILL right behind each step, of the only worker, and of one of two, whose partitions the other one takes over."""
    total = 0
    others = [pipeline.start_worker() for _ in range(bystanders)]
    for step in STEPS:
        victim = pipeline.start_worker(TOOLLEDGER_FAULT=step)
        if others:
            # Events that come before it has partitions would be the other's.
            eventually("it has partitions", lambda victim=victim: "partition_opened" in victim.said())
        events = recorded(120, salt=step)
        pipeline.send(events)
        # Rubbish and a stray reach the steps that only they pass.
        for partition in range(pipeline.partitions):
            pipeline.send_records([(b'{"rubbish":1}', partition), (events[0][1], partition)])
        eventually(f"the worker dies at {step}", lambda victim=victim: not victim.alive)
        total += len(events)
        heirs = [] if others else [pipeline.start_worker()]
        report = pipeline.settled()
        assert report.findings == (), (step, report.findings)
        assert count(pipeline, step) == (len(events), len(events)), step
        assert (report.accepted, report.rows, report.calls) == (total, total, total), step
        # It leaves the group, so that the next one need not wait for its session to end.
        for heir in heirs:
            heir.end()


def test_a_frozen_worker_that_wakes_up_late_changes_nothing(pipeline: Pipeline) -> None:
    """SIGSTOP for longer than the session timeout, another worker takes over, SIGCONT: the first one writes nothing more."""
    frozen = pipeline.start_worker()
    pipeline.send(recorded(100, salt="a"))
    pipeline.settled()
    frozen.send_signal(signal.SIGSTOP)
    pipeline.send(recorded(300, salt="b"))
    heir = pipeline.start_worker()
    report = pipeline.settled()
    assert report.accepted == 400
    frozen.send_signal(signal.SIGCONT)
    pipeline.send(recorded(200, salt="c"))
    report = pipeline.settled()
    assert report.findings == ()
    assert (report.accepted, report.rows, report.calls) == (600, 600, 600)
    assert heir.alive
    assert frozen.alive


def test_a_worker_leaves_its_partitions_and_the_group_also_while_clickhouse_hangs(pipeline: Pipeline) -> None:
    """With batches in work that get no answer: another one joins, the first is told to stop; no crash, and nothing is lost."""
    patient = {"TOOLLEDGER_STORE_TIMEOUT_MS": "600000"}
    leaving = pipeline.start_worker(**patient)
    pipeline.send(recorded(100, salt="before"))
    assert pipeline.settled().accepted == 100
    planned = kafka_admin.committed(pipeline.kafka.address)
    assert pipeline.clickhouse is not None
    pipeline.clickhouse.send_signal(signal.SIGSTOP)
    pipeline.send(recorded(200, salt="meanwhile"))

    def in_work() -> bool:
        now = kafka_admin.committed(pipeline.kafka.address)
        return all(now[partition] > planned[partition] for partition in range(pipeline.partitions))

    eventually("batches of all partitions are planned", in_work)
    staying = pipeline.start_worker(**patient)
    eventually("both are in the group", lambda: len(kafka_admin.members(pipeline.kafka.address)) == 2)
    assert leaving.end() == 0
    pipeline.clickhouse.send_signal(signal.SIGCONT)
    report = pipeline.settled()
    assert report.findings == ()
    assert (report.accepted, report.rows, report.calls) == (300, 300, 300)
    assert staying.end() == 0
    assert [word for word in ("Crashed", "worker_stopped", "Traceback") if word in leaving.said() + staying.said()] == []


def test_clickhouse_killed_under_load_loses_nothing(pipeline: Pipeline) -> None:
    """kill -9 of ClickHouse while events arrive: the worker waits, goes on by itself, and everything is there once."""
    worker = pipeline.start_worker()
    pipeline.send(recorded(200, salt="a"))
    assert pipeline.clickhouse is not None
    pipeline.clickhouse.end(signal.SIGKILL)
    pipeline.send(recorded(300, salt="b"))
    pipeline.start_clickhouse()
    report = pipeline.settled()
    assert report.findings == ()
    assert (report.accepted, report.rows, report.calls) == (500, 500, 500)
    assert worker.alive


def test_a_wiped_clickhouse_is_filled_again_from_kafka(pipeline: Pipeline) -> None:
    """All tables dropped behind the worker's back: receipts are missing, so everything Kafka retains is written again."""
    worker = pipeline.start_worker()
    pipeline.send(recorded(300, salt="a"))
    pipeline.settled()
    worker.end()
    for table in ("tool_executions", "usage_windows", "dead_letters", "progress"):
        pipeline.rows(f"TRUNCATE TABLE {table}")
    pipeline.start_worker()
    pipeline.send(recorded(100, salt="b"))
    report = pipeline.settled()
    assert report.findings == ()
    assert (report.accepted, report.rows, report.calls) == (400, 400, 400)
