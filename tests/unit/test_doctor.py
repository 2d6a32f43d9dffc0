"""What `toolledger doctor` makes of what it sees: nothing wrong passes for well, and each fault says what to do."""

from dataclasses import replace

import pytest

from deploy.doctor import clickhouse, finding, kafka, machine
from deploy.doctor.clickhouse import Heartbeat
from deploy.doctor.kafka import Partition
from deploy.topics import Existing, plan
from ingest.contract.errors import BrokerUnavailable
from ingest.contract.tables import SCHEMA_VERSION
from ingest.contract.topics import CONTROL, TOOL_EXECUTIONS, topics

_GIB = 1024**3
_NOW_MS = 1_800_000_000_000


def led(topic: str, number: int, *, in_sync: tuple[int, ...] = (1, 2, 3), leader: int = 1) -> Partition:
    return Partition(topic=topic, number=number, leader=leader, replicas=(1, 2, 3), in_sync=in_sync)


def beat(partition: int, **members: object) -> Heartbeat:
    usual = Heartbeat(
        incarnation="now",
        partition=partition,
        partitions=2,
        next_offset=10,
        end_offset=10,
        complete_until_ms=_NOW_MS - 900,
        reported_ms=_NOW_MS - 400,
        worker="worker-a",
    )
    return replace(usual, **members)  # type: ignore[arg-type]


def states(found: list[finding.Finding]) -> list[str]:
    assert all(each.fix for each in found if each.state != "ok"), "each fault says what to do"
    return [each.state for each in found]


@pytest.mark.parametrize(
    ("free", "total", "state"),
    [
        (0, 100, "failed"),
        (_GIB - 1, 100 * _GIB, "failed"),
        (_GIB, 100 * _GIB, "warning"),
        (10 * _GIB - 1, 100 * _GIB, "warning"),
        (10 * _GIB, 100 * _GIB, "ok"),
        (50 * _GIB, 4_000 * _GIB, "ok"),
        (2 * _GIB, 10 * _GIB, "ok"),
    ],
)
def test_a_disk_is_judged_by_what_is_free_and_by_its_share(free: int, total: int, state: str) -> None:
    assert states([machine.disk("data", free=free, total=total)]) == [state]


def test_settings_that_a_service_would_refuse_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLLEDGER_QUERY_TIME_S_MAX", "soon")
    found = machine.settings()
    assert states([found]) == ["failed"]
    assert "TOOLLEDGER_QUERY_TIME_S_MAX" in found.text
    monkeypatch.setenv("TOOLLEDGER_QUERY_TIME_S_MAX", "20")
    found = machine.settings()
    assert (found.state, "TOOLLEDGER_QUERY_TIME_S_MAX" in found.text) == ("ok", True)


def test_topics_that_are_missing_or_lose_what_counts_hang_on_fail_and_choices_do_not() -> None:
    wanted = topics(partitions=2)
    there = [led(topic.name, number) for topic in wanted for number in range(topic.partitions)]
    as_wanted = {topic.name: Existing(partitions=topic.partitions, config=topic.config) for topic in wanted}
    assert states(kafka.judge_topics(plan(wanted, as_wanted), there)) == ["ok"]
    chosen = as_wanted | {TOOL_EXECUTIONS: Existing(partitions=64, config=wanted[0].config)}
    (found,) = kafka.judge_topics(plan(wanted, chosen), there)
    assert (found.state, "64 partitions" in found.text) == ("ok", True)
    for bad in ({**as_wanted, CONTROL: Existing(partitions=1, config={"cleanup.policy": "delete"})}, {}):
        assert set(states(kafka.judge_topics(plan(wanted, bad), there))) == {"failed"}


def test_partitions_that_refuse_writes_fail_and_replicas_behind_are_a_warning() -> None:
    asked = {TOOL_EXECUTIONS: 2}
    whole = [led(TOOL_EXECUTIONS, 0), led(TOOL_EXECUTIONS, 1)]
    assert states(kafka.judge_replicas(whole, asked)) == ["ok"]
    assert states(kafka.judge_replicas([*whole, led(TOOL_EXECUTIONS, 2, in_sync=(1, 2))], asked)) == ["warning"]
    assert states(kafka.judge_replicas([*whole, led(TOOL_EXECUTIONS, 2, in_sync=(1,))], asked)) == ["failed"]
    (found,) = kafka.judge_replicas([*whole, led(TOOL_EXECUTIONS, 2, in_sync=(), leader=-1)], asked)
    assert (found.state, "tool-executions 2" in found.text) == ("failed", True)


def test_a_schema_behind_fails_and_one_ahead_is_a_warning() -> None:
    assert states([clickhouse.schema([], SCHEMA_VERSION)]) == ["ok"]
    assert states([clickhouse.schema([], SCHEMA_VERSION + 1)]) == ["warning"]
    assert clickhouse.schema(["0013_failures_of_users"], 12) == finding.failed(
        "schema", "not applied yet: 0013_failures_of_users", "run toolledger migrate"
    )


@pytest.mark.parametrize(
    ("version", "state"), [("26.1.9.9", "failed"), ("25.12.1.1", "failed"), ("26.2.1.1", "ok"), ("26.10.1.1", "ok")]
)
def test_versions_of_clickhouse_are_compared_as_numbers(version: str, state: str) -> None:
    assert states([clickhouse.server("http://store", version, "from --clickhouse")]) == [state]


@pytest.mark.parametrize(
    ("ahead_ms", "doubt_ms", "state"),
    [(0, 1, "ok"), (90, 1, "ok"), (-150, 1, "warning"), (150, 60, "ok"), (2_000, 1, "failed"), (-2_000, 1, "failed")],
)
def test_a_clock_is_judged_by_what_is_sure_of_it(ahead_ms: float, doubt_ms: float, state: str) -> None:
    assert states([clickhouse.clock(ahead_ms, doubt_ms)]) == [state]


def test_partitions_that_are_silent_behind_or_of_another_topic_do_not_pass_for_well() -> None:
    def judged(*beats: Heartbeat, incarnation: str = "now") -> list[str]:
        return states(clickhouse.progress(beats, now_ms=_NOW_MS, incarnation=incarnation))

    assert judged(beat(0), beat(1)) == ["ok"]
    assert judged(beat(0), beat(1), beat(2, incarnation="before", reported_ms=0)) == ["ok"]
    assert judged(beat(0), beat(1), incarnation="") == ["ok"]
    assert judged() == ["failed"]
    assert judged(beat(0)) == ["failed"]
    assert judged(beat(0), beat(1), incarnation="another") == ["failed"]
    assert judged(beat(0), beat(1, reported_ms=_NOW_MS - 60_000, complete_until_ms=_NOW_MS - 60_500)) == ["failed"]
    assert judged(beat(0), beat(1, complete_until_ms=_NOW_MS - 60_000, end_offset=90)) == ["warning"]
    (found,) = clickhouse.progress(
        [beat(0), beat(1, complete_until_ms=_NOW_MS - 60_000, end_offset=90)], now_ms=_NOW_MS, incarnation="now"
    )
    assert found.text == "behind by 60 s, 80 records wait: partition 1 (last worker: worker-a)"


def test_a_server_that_is_away_is_told_with_the_place_of_its_address_and_what_to_do() -> None:
    error = BrokerUnavailable("no Kafka answers at here:1: start it, or name its address in TOOLLEDGER_KAFKA")
    found = finding.away("kafka", error, "from --kafka")
    assert found.text == "no Kafka answers at here:1 (address from --kafka)"
    assert found.fix == "start it, or name its address in TOOLLEDGER_KAFKA"
    assert states([finding.away("kafka", TimeoutError(), "from --kafka")]) == ["failed"]
