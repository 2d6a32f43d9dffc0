"""Answer usage questions by counting events one by one: slow, obvious, and made without any of the planner's ideas."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

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
    start = None if starts is None else max(at for at in starts if at <= event["timestamp"])
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
