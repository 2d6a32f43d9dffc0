"""Answer usage questions by counting events one by one: slow, obvious, and made without any of the planner's ideas."""

import bisect
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from query_api.usage.question import Question

Event = Mapping[str, Any]
Key = tuple[Any, ...]


def count(
    events: Sequence[Event], question: Question, starts: Sequence[int] | None
) -> tuple[dict[Key, dict[str, Any]], dict[str, Any]]:
    """Return metrics by (start, *group) for rows with a call, and the totals.

    Args:
        starts: start of each interval, None without a series.
    """
    matching = [event for event in events if _matches(event, question)]
    created = [event for event in _first_calls(events) if _matches(event, question)]
    groups: dict[Key, list[Event]] = defaultdict(list)
    begun: dict[Key, int] = defaultdict(int)
    for event in matching:
        groups[_key(event, question, starts)].append(event)
    for event in created:
        begun[_key(event, question, starts)] += 1
    rows = {key: _metrics(members, begun[key]) for key, members in groups.items()}
    return rows, _metrics(matching, len(created))


def _first_calls(events: Sequence[Event]) -> list[Event]:
    first: dict[tuple[str, str], Event] = {}
    for event in sorted(events, key=lambda event: (event["timestamp"], event["id"].encode())):
        if event["session_id"]:
            first.setdefault((event["project_id"], event["session_id"]), event)
    return list(first.values())


def _matches(event: Event, question: Question) -> bool:
    within = question.from_ms <= event["timestamp"] < question.to_ms
    return within and all(event[column] in allowed for column, allowed in question.filters.items())


def _key(event: Event, question: Question, starts: Sequence[int] | None) -> Key:
    start = None if starts is None else starts[bisect.bisect_right(starts, event["timestamp"]) - 1]
    return (start, *(event[column] for column in question.group_by))


def _metrics(events: Sequence[Event], sessions: int) -> dict[str, Any]:
    durations = sorted(event["duration_ms"] for event in events)
    failed = sum(event["status"] == "failed" for event in events)
    found: dict[str, Any] = {
        "calls": len(events),
        "failed": failed,
        "error_rate": failed / len(events) if events else None,
        "active_users": len({event["user_id"] for event in events} - {""}),
        "active_sessions": len({event["session_id"] for event in events} - {""}),
        "sessions": sessions,
    }
    for percent in (50, 95, 99):
        rank = -(-percent * len(events) // 100)
        found[f"p{percent}_ms"] = durations[rank - 1] if events else None
    return found


def same(ours: Mapping[str, Any], counted: Mapping[str, Any]) -> bool:
    """Tell whether an answer's metrics are those counted: exactly, and percentiles within 1 %."""
    for name, value in ours.items():
        expected = counted[name]
        if name.startswith("p") and value is not None and expected is not None:
            if not math.isclose(value, expected, rel_tol=0.01, abs_tol=1e-6):
                return False
        elif value != expected:
            return False
    return True


def starts(unit: str, timezone: str, from_ms: int, to_ms: int) -> list[int]:
    """Return the start of each interval that meets `[from_ms, to_ms)`, found by looking at a clock every quarter of an hour.

    No zone has changed its clock but at a quarter since 2015. A minute begins every minute; an hour when the clock shows a full
    hour, or another hour than just before; a day when the clock shows a later date than ever before.
    """
    if from_ms >= to_ms:
        return []
    zone, epoch = ZoneInfo(timezone), datetime(1970, 1, 1, tzinfo=UTC)
    step_ms = 60_000 if unit == "minute" else 900_000
    found: list[int] = []
    before = latest = None
    at_ms = (from_ms - 4 * 86_400_000) // step_ms * step_ms if unit != "minute" else from_ms // step_ms * step_ms
    while at_ms < to_ms:
        clock = (epoch + timedelta(milliseconds=at_ms)).astimezone(zone)
        if unit == "day":
            begins = latest is not None and clock.date() > latest
            latest = clock.date() if latest is None else max(latest, clock.date())
        else:
            begins = unit == "minute" or clock.minute == 0 or (clock.date(), clock.hour) != before
            before = (clock.date(), clock.hour)
        if begins:
            found.append(at_ms)
        at_ms += step_ms
    return found[bisect.bisect_right(found, from_ms) - 1 :]


def ordered(rows: Mapping[Key, Mapping[str, Any]], order_by: str | None, direction: str | None) -> list[Key]:
    """Return the keys of rows in the order asked for; ties by key ascending, then by time; nulls last.

    Args:
        rows: metrics by (start, *group); start None without a series.
    """
    series = any(start is not None for start, *_ in rows)

    def by_key(row: Key) -> list[bytes]:
        return [part.encode() for part in row[1:]]

    found = sorted(rows, key=lambda row: (by_key(row), row[0] or 0))
    if order_by is None:
        found.sort(key=lambda row: -rows[row]["calls"])
        if not series:
            return found if direction != "asc" else sorted(found, key=lambda row: rows[row]["calls"])
        return sorted(found, key=lambda row: row[0], reverse=direction == "desc")
    descending = direction != "asc"
    if order_by == "key":
        grouped = any(len(row) > 1 for row in rows)
        return sorted(found, key=by_key if grouped else lambda row: row[0] or 0, reverse=descending)
    valued = [row for row in found if rows[row][order_by] is not None]
    nulls = [row for row in found if rows[row][order_by] is None]
    return [*sorted(valued, key=lambda row: rows[row][order_by], reverse=descending), *nulls]
