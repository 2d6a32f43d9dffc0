"""What corrections must be there, by plain counting over rows and the records they came from."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from processors.decode import Record

HOUR_MS: Final = 3_600_000
KEYS: Final = (
    "project_id",
    "tool_slug",
    "toolkit_slug",
    "status",
    "failure_class",
    "user_id",
    "connected_account_id",
    "session_id",
)


def partition_times(records: Iterable[Record]) -> dict[int, int]:
    """Return of each offset the latest record time up to it."""
    found, newest_ms = {}, 0
    for record in records:
        newest_ms = max(newest_ms, record.timestamp_ms)
        found[record.offset] = newest_ms
    return found


def late_calls(
    executions: Iterable[Mapping[str, Any]], *, logs: Mapping[int, Sequence[Record]], close_ms: int
) -> Counter[tuple[Any, ...]]:
    """Count late rows by window (its start in s), moment and KEYS.

    Args:
        executions: rows with `timestamp` in epoch ms; those of partitions without a log are passed over.
        logs: by partition.
    """
    times = {partition: partition_times(records) for partition, records in logs.items()}
    found: Counter[tuple[Any, ...]] = Counter()
    for row in executions:
        if row["kafka_partition"] not in times:
            continue
        start_ms = row["timestamp"] // HOUR_MS * HOUR_MS
        counted_ms = times[row["kafka_partition"]][row["kafka_offset"]]
        if counted_ms >= start_ms + HOUR_MS + close_ms:
            found[(start_ms // 1000, counted_ms, *(row[name] for name in KEYS))] += 1
    return found


def corrected_calls(usage: Iterable[Mapping[str, Any]]) -> Counter[tuple[Any, ...]]:
    """Sum rows of kind `correction` up by window, moment and KEYS."""
    found: Counter[tuple[Any, ...]] = Counter()
    for row in usage:
        if row["kind"] == "correction":
            found[(row["window_start"], row["newest_record_ms"], *(row[name] for name in KEYS))] += row["calls"]
    return found


def wrong_corrections(
    executions: Sequence[Mapping[str, Any]],
    usage: Sequence[Mapping[str, Any]],
    *,
    logs: Mapping[int, Sequence[Record]],
    close_ms: int,
) -> list[str]:
    """Compare; corrections of partitions without a log are held to the rows alone."""
    found = []
    if logs and len({row["kafka_partition"] for row in executions} - logs.keys()) == 0:
        expected, there = late_calls(executions, logs=logs, close_ms=close_ms), corrected_calls(usage)
        found += [f"late {key}: {expected[key]} calls, corrections {there[key]}" for key in expected | there
                  if expected[key] != there[key]]  # fmt: skip
    late = sum(row["late_at_ms"] != 0 for row in executions)
    corrected = sum(row["calls"] for row in usage if row["kind"] == "correction")
    if late != corrected:
        found.append(f"{late} late rows, {corrected} calls in corrections")
    return found
