"""Our own routes of usage and freshness: SURFACE section 7."""

import time
from collections.abc import Sequence
from typing import Any, Final, cast

import orjson
from starlette.requests import Request

from query_api.http.caller import Caller
from query_api.http.edge import Answer, Services
from query_api.http.members import Parameters
from query_api.http.usage import FILTER_VALUES_MAX, ask, checked_range
from query_api.log_items import iso
from query_api.usage import calendar
from query_api.usage.answer import Group
from query_api.usage.calendar import Run, Unit
from query_api.usage.question import MEASURED_BY, METRIC_ORDERS, Metric, Order, OrderBy, Question

GROUPS: Final = ("tool_slug", "toolkit_slug", "user_id", "session_id", "status", "failure_class")
GROUP_BY_MAX: Final = 2
FILTERS: Final = GROUPS
LIMIT_DEFAULT: Final = 1000
LIMIT_MAX: Final = 10_000
# A series that is ordered by a metric, or has a row for each interval, is held whole; a month of minutes fits.
INTERVALS_MAX: Final = 50_000

_SINGLE: Final = ("from", "to", "interval", "timezone", "limit", "order_by", "order_direction")
UNITS: Final = ("minute", "hour", "day")


async def usage(request: Request, caller: Caller, services: Services) -> Answer:
    """Answer calls, error rates, percentiles, active users and sessions, by group and interval."""
    asked = Parameters(request.query_params.multi_items(), known=_SINGLE, repeated=("group_by", "metrics", *FILTERS))
    shown = metrics_of(asked)
    question, unit, timezone = _question(asked, shown, now_ms=_now_ms())
    asked.faults.check()
    found, complete_until_ms = await ask(question, caller.tenant(), services)
    body = {
        "from": question.from_ms,
        "to": question.to_ms,
        "interval": unit,
        "timezone": timezone,
        "group_by": question.group_by,
        "rows": [_row(question, group, shown) for group in found.groups],
        "totals": {name: found.totals[name] for name in shown},
        "truncated": found.truncated,
        "complete_until": iso(complete_until_ms),
    }
    return Answer(body=orjson.dumps(body), complete_until_ms=complete_until_ms)


async def freshness(request: Request, _: Caller, services: Services) -> Answer:
    """Answer until when the key's project is complete: events spread over all partitions, so the slowest one decides."""
    asked = Parameters(request.query_params.multi_items(), known=(), repeated=())
    asked.faults.check()
    found = await services.freshness.get()
    partitions = [
        {
            "partition": one.partition,
            "next_offset": one.next_offset,
            "end_offset": one.end_offset,
            "lag_records": max(0, one.end_offset - one.next_offset),
            "complete_until_ms": one.complete_until_ms,
        }
        for one in found.partitions
    ]
    body = {
        "complete_until": iso(found.complete_until_ms),
        "complete_until_ms": found.complete_until_ms,
        "lag_ms": max(0, _now_ms() - found.complete_until_ms),
        "partitions": partitions,
    }
    return Answer(body=orjson.dumps(body), complete_until_ms=found.complete_until_ms)


def _question(asked: Parameters, shown: Sequence[str], *, now_ms: int) -> tuple[Question, str | None, str]:
    """Read a question; what is wrong is in `asked.faults`, and the question then only fills the place."""
    faults = asked.faults
    from_ms, to_ms = checked_range(asked.instant("from"), asked.instant("to"), faults, now_ms=now_ms)
    group_by = group_by_of(asked)
    unit = asked.one_of("interval", UNITS, default="") or None
    timezone = asked.text("timezone") or "UTC"
    zone = calendar.zone(timezone)
    if zone is None:
        faults.add("timezone", "not a time zone by its IANA name, as in Europe/Berlin")
    limit = asked.whole("limit", low=1, high=LIMIT_MAX, default=LIMIT_DEFAULT)
    order = _order(asked, unit)
    runs: tuple[Run, ...] | None = None
    if unit is not None and zone is not None and not faults.any:
        runs = calendar.intervals(cast(Unit, unit), zone, from_ms, to_ms)
        if calendar.count(runs) > INTERVALS_MAX:
            faults.add("interval", f"gives more than {INTERVALS_MAX} intervals: take a longer interval or a shorter range")
    question = Question(
        from_ms=min(from_ms, to_ms),
        to_ms=to_ms,
        metrics=_measured(shown, order, rows=bool(group_by) or runs is not None),
        order=order,
        limit=limit,
        group_by=group_by,
        runs=runs,
        filters=filters_of(asked),
    )
    return question, unit, timezone


def filters_of(asked: Parameters) -> dict[str, tuple[str, ...]]:
    """Read the filters: column -> values, any of which must hold; an empty value finds calls without."""
    return {name: values for name in FILTERS if (values := asked.all(name, most=FILTER_VALUES_MAX))}


def group_by_of(asked: Parameters) -> tuple[str, ...]:
    """Read what rows are grouped by, as repeated parameters or with commas."""
    names = [name.strip() for value in asked.all("group_by", most=GROUP_BY_MAX) for name in value.split(",") if name.strip()]
    for name in names:
        if name not in GROUPS:
            asked.faults.add("group_by", f"must be of {', '.join(GROUPS)}")
            return ()
    if len(names) > GROUP_BY_MAX or len(set(names)) < len(names):
        asked.faults.add("group_by", f"takes at most {GROUP_BY_MAX} different names")
        return ()
    return tuple(names)


def metrics_of(asked: Parameters) -> tuple[str, ...]:
    """Read which metrics are answered, as repeated parameters or with commas; none: all."""
    names = {name.strip() for value in asked.all("metrics", most=len(MEASURED_BY)) for name in value.split(",") if name.strip()}
    if not names <= MEASURED_BY.keys():
        asked.faults.add("metrics", f"must be of {', '.join(MEASURED_BY)}")
        return tuple(MEASURED_BY)
    return tuple(name for name in MEASURED_BY if name in names) or tuple(MEASURED_BY)


def _measured(shown: Sequence[str], order: Order, *, rows: bool) -> frozenset[Metric]:
    """Return what has to be worked out.

    That is the metrics shown, and of several rows the one that orders them and calls, which decide what has a row.
    """
    measured = {MEASURED_BY[name] for name in (*shown, *(("calls", order.by) if rows else ())) if name in MEASURED_BY}
    # Percentiles are ranks among calls.
    return frozenset(measured | {"calls"} if "durations" in measured else measured)


def _order(asked: Parameters, unit: str | None) -> Order:
    """Return the order: by `start` or calls unless asked; `order_by` alone means descending."""
    by = asked.one_of("order_by", (*METRIC_ORDERS, "key"), default="")
    first = "calls" if unit is None else "start"
    direction = asked.one_of("order_direction", ("asc", "desc"), default="asc" if not by and first == "start" else "desc")
    return Order(by=cast(OrderBy, by or first), descending=direction == "desc")


def _row(question: Question, group: Group, shown: Sequence[str]) -> dict[str, Any]:
    start = {} if group.start_ms is None else {"start": group.start_ms}
    return start | dict(zip(question.group_by, group.key, strict=True)) | {name: group.metrics[name] for name in shown}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
