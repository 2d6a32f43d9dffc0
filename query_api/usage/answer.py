"""From the rows of a usage statement to metrics by row. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ingest.contract import sketch
from query_api.usage import calendar
from query_api.usage.question import Question
from query_api.usage.sql import PERCENTILES, columns

Metrics = dict[str, Any]

_COUNTS: Final = ("calls", "failed", "active_users", "active_sessions", "sessions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One row of an answer: the interval's start where a series was asked for, the key in the order of `group_by`."""

    start_ms: int | None
    key: tuple[str, ...]
    metrics: Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Rows in the order asked for, totals of everything, and whether there were more rows than the limit."""

    groups: tuple[Group, ...]
    totals: Metrics
    truncated: bool


def answer(question: Question, rows: Sequence[Sequence[Any]]) -> Answer:
    """Read the rows of `query_api.usage.sql.statement(question)`.

    An ungrouped series gets a row for every interval, an ungrouped question one row equal to the totals.
    """
    names = columns(question)
    total: Metrics | None = None
    groups: list[Group] = []
    for row in rows:
        values = dict(zip(names, row, strict=True))
        if values["total"]:
            total = _metrics(question, values)
            continue
        key = tuple(values[f"k{index}"] for index in range(len(question.group_by)))
        groups.append(Group(start_ms=values.get("start"), key=key, metrics=_metrics(question, values)))
    totals = total or _metrics(question, {})
    if question.runs is not None and not question.group_by:
        groups, truncated = _every_interval(question, groups)
    elif question.runs is None and not question.group_by:
        groups, truncated = [Group(start_ms=None, key=(), metrics=totals)], False
    else:
        truncated = len(groups) > question.limit
    return Answer(groups=tuple(groups[: question.limit]), totals=totals, truncated=truncated)


def _every_interval(question: Question, groups: Sequence[Group]) -> tuple[list[Group], bool]:
    """Put rows of zeros where nothing was called."""
    assert question.runs is not None
    known = {group.start_ms: group for group in groups}
    empty = _metrics(question, {})
    in_time = question.order.by in ("start", "key")
    starts = list(calendar.starts(question.runs))
    if in_time and question.order.descending:
        starts.reverse()
    truncated = len(starts) > question.limit
    if in_time:
        # The statement gave the first ones that have calls, which are enough for as many intervals.
        starts = starts[: question.limit]
    filled = [known.get(start) or Group(start_ms=start, key=(), metrics=empty) for start in starts]
    if not in_time:
        # Nulls last in both directions; sorting keeps the order of equals, reversed too, so the earlier interval comes first.
        valued = [group for group in filled if group.metrics[question.order.by] is not None]
        nulls = [group for group in filled if group.metrics[question.order.by] is None]
        ordered = sorted(valued, key=lambda group: group.metrics[question.order.by], reverse=question.order.descending)
        filled = [*ordered, *nulls]
    return filled, truncated


def _metrics(question: Question, values: Mapping[str, Any]) -> Metrics:
    """Return what was asked for; zeros and nulls of an empty row."""
    asked = question.metrics
    found: Metrics = {}
    if "calls" in asked:
        calls, failed = values.get("calls", 0), values.get("failed", 0)
        found |= {"calls": calls, "failed": failed, "error_rate": failed / calls if calls else None}
    if "durations" in asked:
        for percent in PERCENTILES:
            index = values.get(f"p{percent}")
            found[f"p{percent}_ms"] = None if index is None else sketch.value(index)
    return found | {name: values.get(name, 0) for name in _COUNTS[2:] if name in asked}
