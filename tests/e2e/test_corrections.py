"""Late events through the real parts: a correction for each, whoever dies, and the same ones after ClickHouse was wiped."""

import asyncio
import json
import time
from collections import Counter
from typing import Any

import pytest

from ingest.contract.partitioning import event_key, home_partition
from tests.support.corrections_oracle import HOUR_MS
from tests.support.pipeline import Pipeline, eventually
from tests.support.query_service import query_service

pytestmark = pytest.mark.real

PROJECT = "proj_a"
# The hour before this one is still open, those before it have closed.
CLOSE_MS = 2 * HOUR_MS
SETTING = {"TOOLLEDGER_WINDOW_CLOSE_MS": str(CLOSE_MS)}
EVERY_CORRECTION = (
    "SELECT toUnixTimestamp(window_start), corrected_ms, tool_slug, user_id, session_id, status, kafka_partition, kafka_offset,"
    " sum(calls) FROM usage_corrections GROUP BY ALL ORDER BY ALL"
)


def make(salt: str, count: int, now_ms: int) -> list[tuple[str, dict[str, Any]]]:
    """Events of this hour and of some before, a third of them in hours that have closed."""
    hours = (0, 0, 1, 1, 4, 30)
    return [
        (
            f"{salt}{number}",
            {
                "id": f"{salt}{number}",
                "tool_slug": "GMAIL_SEND_EMAIL",
                "status": "failed" if number % 5 == 0 else "success",
                "duration_ms": number,
                "user_id": f"u{number % 3}",
                "session_id": f"s{number % 7}" if number % 4 else "",
                "timestamp": now_ms - hours[number % len(hours)] * HOUR_MS,
            },
        )
        for number in range(count)
    ]


def closed(event: dict[str, Any], now_ms: int) -> bool:
    return event["timestamp"] // HOUR_MS * HOUR_MS + HOUR_MS + CLOSE_MS <= now_ms


def test_each_late_event_leaves_its_correction_and_no_crash_or_wipe_changes_one(pipeline: Pipeline) -> None:
    """A worker dies between rows and sums, and another makes the corrections; strays count at home; wiped: the same ones."""
    now_ms = time.time_ns() // 1_000_000
    sent = dict(make("a", 150, now_ms) + make("b", 60, now_ms))
    raw = [(event_id, json.dumps(event).encode()) for event_id, event in sent.items()]
    victim = pipeline.start_worker(TOOLLEDGER_FAULT="executions", **SETTING)
    pipeline.send(raw[:150], project=PROJECT, pack=20)
    eventually("the worker dies between rows and sums", lambda: not victim.alive)
    heir = pipeline.start_worker(**SETTING)
    # Away from home, and each sent twice.
    homes = [home_partition(event_key(PROJECT, event_id), pipeline.partitions) for event_id, _ in raw[150:]]
    strays = [(value, (home + 1) % pipeline.partitions) for (_, value), home in zip(raw[150:], homes, strict=True)]
    pipeline.send_records(strays + strays, project=PROJECT, wait_each=False)
    eventually("every stray came home", lambda: counted(pipeline) == len(sent))
    assert pipeline.settled().findings == ()
    late = [event for event in sent.values() if closed(event, now_ms)]
    expected = Counter((event["timestamp"] // HOUR_MS * 3600, event["user_id"], event["session_id"], event["status"])
                       for event in late)  # fmt: skip
    before = pipeline.rows(EVERY_CORRECTION)
    found: Counter[tuple[Any, ...]] = Counter()
    for start, _, _, user, session, status, _, _, calls in before:
        found[start, user, session, status] += calls
    assert found == expected
    in_rows = "SELECT kafka_partition, late_at_ms, count() FROM tool_executions WHERE late_at_ms != 0 GROUP BY ALL ORDER BY ALL"
    in_corrections = "SELECT kafka_partition, corrected_ms, sum(calls) FROM usage_corrections GROUP BY ALL ORDER BY ALL"
    assert pipeline.rows(in_rows) == pipeline.rows(in_corrections)
    # The moment is when Kafka took the record that counted, at home: never before it was found elsewhere.
    assert pipeline.rows("SELECT min(late_at_ms - toUnixTimestamp64Milli(accepted_at)) >= 0 FROM tool_executions"
                         " WHERE late_at_ms != 0")[0][0]  # fmt: skip
    asyncio.run(told_over_http(pipeline, expected))
    heir.end()
    for table in ("tool_executions", "usage_windows", "dead_letters", "progress"):
        pipeline.rows(f"TRUNCATE TABLE {table}")
    # Other batches this time.
    pipeline.start_worker(TOOLLEDGER_BATCH_EVENTS="7", **SETTING)
    eventually("everything is written again", lambda: counted(pipeline) == len(sent))
    assert moments(pipeline.rows(EVERY_CORRECTION)) == moments(before)


def counted(pipeline: Pipeline) -> int:
    return int(pipeline.rows("SELECT sum(calls) FROM usage_windows WHERE kind = 'tool_minute'")[0][0])


def moments(found: Any) -> Counter[tuple[Any, ...]]:
    """What is said of which window at which moment, however it was parted into rows."""
    told: Counter[tuple[Any, ...]] = Counter()
    for *key, _, calls in found:
        told[tuple(key)] += calls
    return told


async def told_over_http(pipeline: Pipeline, expected: Counter[tuple[Any, ...]]) -> None:
    """Read once what is complete, go on from there, and find nothing new."""
    newest = "(SELECT max(corrected_ms) FROM usage_corrections)"
    reported = f"SELECT min(toUnixTimestamp64Milli(complete_until)) > {newest} FROM progress FINAL"
    await asyncio.to_thread(eventually, "all is complete", lambda: pipeline.rows(reported)[0][0])
    async with query_service(pipeline.clickhouse_url) as service:
        first = (await service.get("/v1/usage/corrections", {"group_by": "user_id,status"})).body
        assert first["totals"]["calls"] == expected.total()
        by_window = Counter[tuple[Any, ...]]()
        for (start, user, _, status), calls in expected.items():
            by_window[start * 1000, user, status] += calls
        assert {(row["window_start"], row["user_id"], row["status"]): row["calls"] for row in first["rows"]} == by_window
        after = (await service.get("/v1/usage/corrections", {"from": first["complete_until"]})).body
        assert after["rows"] == []
