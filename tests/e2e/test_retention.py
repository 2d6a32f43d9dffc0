"""Retention through the real parts: what is past it goes from logs and usage, nothing else does, and `verify` says how much."""

import asyncio
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import retention
from deploy.cli.main import main
from deploy.doctor import retention as doctor_retention
from deploy.retention import LOGS, PAYLOADS, Taken, carry_out, day
from ingest.contract.errors import StoreUnavailable
from ingest.keys import set_rules
from processors.sink import ClickHouseStore
from query_api.usage.grains import DAY_MS
from tests.support.old_calls import call
from tests.support.pipeline import Pipeline, at_work, eventually

pytestmark = pytest.mark.real

GRACE_MS = 600
DAYS = 30
KINDS = "kind NOT IN ('receipt', 'project_receipt')"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with at_work(Path(tmp_path_factory.mktemp("retention"))) as made:
        yield made


def make(salt: str, count: int, *, days: int = 40) -> list[dict[str, Any]]:
    """Events of the last days, some of them on both sides of the border to a millisecond."""
    now_ms = time.time_ns() // 1_000_000
    border_ms = until(DAYS)
    pick = random.Random(salt)
    stamps = [now_ms - pick.randrange(days * DAY_MS) for _ in range(count)] + [border_ms - 1, border_ms, border_ms + 1]
    return [call(f"{salt}{number}", number, at_ms) for number, at_ms in enumerate(stamps)]


def until(days: int) -> int:
    return (time.time_ns() // 1_000_000 - days * DAY_MS) // DAY_MS * DAY_MS


def send(pipeline: Pipeline, project: str, events: list[dict[str, Any]]) -> None:
    pipeline.send([(event["id"], json.dumps(event).encode()) for event in events], project=project, pack=20)


def rule(pipeline: Pipeline, project: str, **changes: Any) -> None:
    asyncio.run(set_rules(pipeline.kafka.address, project, **changes))


def carried_out(pipeline: Pipeline, **more: Any) -> list[Taken]:
    return list(carry_out(pipeline.kafka.address, pipeline.clickhouse_url, grace_ms=GRACE_MS, **more))


def logs(pipeline: Pipeline, project: str) -> dict[str, int]:
    rows = pipeline.rows(f"SELECT id, toUnixTimestamp64Milli(timestamp) FROM tool_executions WHERE project_id = '{project}'")
    return dict(rows)


def hours(pipeline: Pipeline, project: str, kind: str) -> Counter[int]:
    rows = pipeline.rows(
        f"SELECT toUnixTimestamp(toStartOfHour(window_start)), sum(calls) FROM usage_windows"
        f" WHERE project_id = '{project}' AND kind = '{kind}' GROUP BY 1"
    )
    return Counter(dict(rows))


def test_what_is_past_its_retention_goes_from_logs_and_usage_and_is_accounted_for(pipeline: Pipeline) -> None:
    """Of one project the old days go, to the millisecond; another keeps all; what is sent again is refused or a duplicate."""
    events, others = make("a", 200), make("b", 50)
    send(pipeline, "short", events)
    send(pipeline, "long", others)
    rule(pipeline, "short", retention_days=DAYS)
    assert pipeline.settled().proved
    kept = {event["id"]: event["timestamp"] for event in events if event["timestamp"] >= until(DAYS)}
    old = len(events) - len(kept)
    assert 0 < old < len(events)
    expected = Taken(project_id="short", kind=LOGS, until_ms=until(DAYS), calls=old)

    assert carried_out(pipeline, dry_run=True) == [expected]
    assert len(logs(pipeline, "short")) == len(events)
    assert carried_out(pipeline) == [expected]
    assert carried_out(pipeline) == []

    assert logs(pipeline, "short") == kept
    assert logs(pipeline, "long") == {event["id"]: event["timestamp"] for event in others}
    by_hour = Counter(at_ms // 3_600_000 * 3600 for at_ms in kept.values())
    assert hours(pipeline, "short", "tool_minute") == hours(pipeline, "short", "user_hour") == by_hour
    left = pipeline.rows(f"SELECT min(toUnixTimestamp(window_start)) FROM usage_windows WHERE project_id = 'short' AND {KINDS}")
    assert left[0][0] * 1000 >= until(DAYS)
    report = pipeline.settled()
    assert report.proved
    (short,) = [each for each in report.projects if each.project_id == "short"]
    assert (short.accepted, short.rows, short.calls, short.purged) == (len(events), len(kept), len(kept), old)

    send(pipeline, "short", events)
    report = pipeline.settled()
    assert report.proved
    (again,) = [each for each in report.projects if each.project_id == "short"]
    assert (again.accepted, again.rows, again.purged) == (len(events), len(kept), old)
    assert (again.duplicates, again.dead_letters) == (len(kept), old)
    assert pipeline.rows("SELECT DISTINCT reason FROM dead_letters WHERE project_id = 'short'") == [("past_retention",)]
    assert logs(pipeline, "short") == kept


def test_the_command_says_what_goes_and_the_doctor_what_should_have_gone(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a rule the doctor says nothing of it; days past it a warning names the project; once it is done all is well."""
    addresses = pipeline.kafka.address, pipeline.clickhouse_url
    where = ["--kafka", addresses[0], "--clickhouse", addresses[1]]
    send(pipeline, "told", make("t", 30))
    assert pipeline.settled().proved
    carried_out(pipeline)
    rule(pipeline, "told", retention_days=DAYS, payload_retention_days=9)
    warned = doctor_retention.examine(*addresses)
    assert warned is not None
    assert (warned.state, warned.text) == ("warning", "days past it: logs or payloads of told")
    (dry,) = [one for one in carried_out(pipeline, dry_run=True) if one.kind == LOGS]
    capsys.readouterr()
    assert main(["retention", "--dry-run", *where]) == 0
    line = f"told: {dry.calls} logs before {day(until(DAYS))} would be taken away"
    assert line in capsys.readouterr().out.splitlines()
    carried_out(pipeline)
    assert main(["retention", *where]) == 0
    assert capsys.readouterr().out == "nothing is past its retention\n"
    well = doctor_retention.examine(*addresses)
    assert well is not None
    assert well.state == "ok"


@pytest.mark.parametrize("step", ["announce", "_note", "_change", "_change twice", "_take"])
def test_a_run_that_ends_anywhere_is_finished_by_the_next(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """It ends behind a step; `verify` proves what is there meanwhile, and in the end the same is gone and accounted for."""
    project = f"broken{step.replace(' ', '')}"
    events = make(project, 60)
    send(pipeline, project, events)
    rule(pipeline, project, retention_days=DAYS)
    assert pipeline.settled().proved
    name, _, twice = step.partition(" ")
    ends = 2 if twice else 1
    real = getattr(retention._Run, name)

    def ending(self: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal ends
        done = real(self, *arguments, **named)
        ends -= 1
        if not ends:
            raise StoreUnavailable("killed")
        return done

    with monkeypatch.context() as patch:
        patch.setattr(retention._Run, name, ending)
        with pytest.raises(StoreUnavailable, match="killed"):
            carried_out(pipeline)
    assert pipeline.verify().findings == ()
    assert sum(one.calls for one in carried_out(pipeline)) == (0 if step == "_take" else len(events) - _kept(events))
    report = pipeline.settled()
    assert report.proved
    (found,) = [each for each in report.projects if each.project_id == project]
    assert (found.rows, found.purged) == (_kept(events), len(events) - _kept(events))


def _kept(events: list[dict[str, Any]]) -> int:
    return sum(event["timestamp"] >= until(DAYS) for event in events)


def test_days_go_one_after_the_other_and_their_counts_add_up(pipeline: Pipeline) -> None:
    events = make("d", 120)
    send(pipeline, "daily", events)
    assert pipeline.settled().proved
    for days in (38, 35, 31):
        rule(pipeline, "daily", retention_days=days)
        carried_out(pipeline)
        report = pipeline.settled()
        assert report.proved
        (found,) = [each for each in report.projects if each.project_id == "daily"]
        old = sum(event["timestamp"] < until(days) for event in events)
        assert (found.rows, found.calls, found.purged) == (len(events) - old, len(events) - old, old)


@pytest.mark.parametrize("looks", [1, 2])
def test_two_runs_at_once_count_nothing_twice(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, looks: int) -> None:
    """A run with fewer days to keep does all of its own while another one counts, or before that one notes what it counted."""
    project = f"overtaken{looks}"
    events = make(project, 120)
    send(pipeline, project, events)
    rule(pipeline, project, retention_days=35)
    assert pipeline.settled().proved
    real = retention._Run._taken_so_far

    def overtaken(self: Any, project_id: str) -> tuple[int, int]:
        nonlocal looks
        found = real(self, project_id)
        looks -= 1
        if not looks:
            rule(pipeline, project, retention_days=DAYS)
            carried_out(pipeline)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(retention._Run, "_taken_so_far", overtaken)
        carried_out(pipeline)
    report = pipeline.settled()
    assert report.proved
    (found,) = [each for each in report.projects if each.project_id == project]
    assert (found.rows, found.calls, found.purged) == (_kept(events), _kept(events), len(events) - _kept(events))


def test_payloads_are_emptied_and_nothing_else_is_touched(pipeline: Pipeline) -> None:
    """Requests and responses past theirs are gone, younger ones are there; every count stays as it was."""
    events = make("p", 60)
    send(pipeline, "emptied", events)
    send(pipeline, "full", make("q", 20))
    assert pipeline.settled().proved
    carried_out(pipeline)
    rule(pipeline, "emptied", payload_retention_days=DAYS)
    before = pipeline.settled()
    old = len(events) - _kept(events)
    assert carried_out(pipeline) == [Taken(project_id="emptied", kind=PAYLOADS, until_ms=until(DAYS), calls=old)]
    assert carried_out(pipeline) == []
    rows = pipeline.rows("SELECT data, toUnixTimestamp64Milli(timestamp) FROM tool_executions WHERE project_id = 'emptied'")
    assert len(rows) == len(events)
    assert all((data == "") == (at_ms < until(DAYS)) for data, at_ms in rows)
    assert pipeline.rows("SELECT count() FROM tool_executions WHERE project_id = 'full' AND data = ''") == [(0,)]
    after = pipeline.settled()
    assert after.proved
    assert (after.rows, after.calls, after.purged) == (before.rows, before.calls, before.purged)


def test_nothing_goes_while_nobody_proves_what_was_accepted(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a worker the run says so and takes nothing; events of before the announcement still count, and go then."""
    events, more = make("w", 40), make("x", 40)
    send(pipeline, "waiting", events)
    rule(pipeline, "waiting", retention_days=DAYS)
    assert pipeline.settled().proved
    pipeline.workers[-1].end(signal.SIGKILL)
    send(pipeline, "waiting", more)
    with monkeypatch.context() as patch:
        patch.setattr(retention, "_PATIENCE_S", 2.0)
        with pytest.raises(StoreUnavailable, match="workers have not proved"):
            carried_out(pipeline)
    assert len(logs(pipeline, "waiting")) == len(events)
    pipeline.start_worker()
    eventually("they are proved", lambda: not pipeline.lag())
    assert sum(one.calls for one in carried_out(pipeline)) == len(events + more) - _kept(events + more)
    report = pipeline.settled()
    assert report.proved
    (found,) = [each for each in report.projects if each.project_id == "waiting"]
    assert found.rows == _kept(events + more)


@pytest.mark.parametrize("days", [-2, 2])
def test_nothing_goes_by_a_clock_that_cannot_be_right(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    """A machine that runs it two days away from ClickHouse is told so: what goes does not come back."""
    name, events = f"clock{days}", make(f"k{days}", 10, days=2)
    send(pipeline, name, [event for event in events if event["timestamp"] >= until(DAYS)])
    rule(pipeline, name, retention_days=1)
    assert pipeline.settled().proved
    kept = logs(pipeline, name)
    right_ns = time.time_ns
    with monkeypatch.context() as patch:
        patch.setattr("time.time_ns", lambda: right_ns() + days * DAY_MS * 1_000_000)
        for dry_run in (True, False):
            with pytest.raises(StoreUnavailable, match=r"clock is .* this machine's"):
                carried_out(pipeline, dry_run=dry_run)
    assert logs(pipeline, name) == kept
    rule(pipeline, name, retention_days=None)


def test_a_worker_that_looks_at_the_whole_ledger_finds_that_it_agrees(pipeline: Pipeline) -> None:
    """What a worker asks before it writes holes again: sums and receipts agree, with what retention took."""
    events = make("e", 80)
    send(pipeline, "agreeing", events)
    rule(pipeline, "agreeing", retention_days=DAYS)
    assert pipeline.settled().proved

    async def agrees() -> bool:
        store = ClickHouseStore(pipeline.clickhouse_url, timeout_ms=30_000, now_ms=lambda: 0, horizon_ms=1)
        try:
            return await store._agrees()
        finally:
            await store.close()

    assert asyncio.run(agrees())
    carried_out(pipeline)
    assert asyncio.run(agrees())
    store = pipeline.store()
    try:
        # By hand, behind the ledger's back: what retention did not take is missed.
        store.command(
            f"ALTER TABLE tool_executions DELETE WHERE project_id = 'agreeing' AND id = '{events[-1]['id']}'",
            settings={"mutations_sync": 2},
        )
    finally:
        store.close()
    kinds = {finding.kind for finding in pipeline.verify().findings if finding.project_id == "agreeing"}
    assert kinds == {"missing_rows", "usage_differs"}
