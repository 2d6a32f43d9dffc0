"""What `toolledger topics` would do for a given cluster."""

from dataclasses import replace

from deploy.topics import Existing, plan
from ingest.contract.topics import CONTROL, DEAD_LETTERS, TOOL_EXECUTIONS, topics


def _as_wanted() -> dict[str, Existing]:
    return {topic.name: Existing(partitions=topic.partitions, config=topic.config) for topic in topics()}


def test_nothing_is_to_do_where_all_is_as_wanted() -> None:
    assert plan(topics(), _as_wanted()) == []


def test_what_is_missing_is_created_in_order() -> None:
    changes = plan(topics(), {})
    assert [(change.kind, change.topic.name) for change in changes] == [
        ("create", TOOL_EXECUTIONS),
        ("create", DEAD_LETTERS),
        ("create", CONTROL),
    ]


def test_a_setting_that_correctness_hangs_on_is_mended() -> None:
    there = _as_wanted()
    there[TOOL_EXECUTIONS] = Existing(
        partitions=8, config={**there[TOOL_EXECUTIONS].config, "message.timestamp.type": "CreateTime", "max.message.bytes": "1"}
    )
    (change,) = plan(topics(), there)
    assert change.kind == "mend"
    assert change.config == {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "4194304"}


def test_a_larger_record_limit_is_never_lowered() -> None:
    there = _as_wanted()
    larger = {**there[TOOL_EXECUTIONS].config, "max.message.bytes": "99999999"}
    there[TOOL_EXECUTIONS] = replace(there[TOOL_EXECUTIONS], config=larger)
    assert plan(topics(), there) == []


def test_retention_and_partitions_are_the_operators_choice_and_only_shown() -> None:
    there = _as_wanted()
    there[TOOL_EXECUTIONS] = Existing(partitions=24, config={**there[TOOL_EXECUTIONS].config, "retention.ms": "-1"})
    assert [change.kind for change in plan(topics(), there)] == ["differs", "differs"]
