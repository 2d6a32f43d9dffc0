"""A usage question as a value: range, grouping, intervals, filters, metrics, order. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from query_api.usage.calendar import Run

# What a question may ask for. `calls` brings `failed` with it, `durations` the percentiles.
Metric = Literal["calls", "durations", "active_users", "active_sessions", "sessions"]
ALL_METRICS: Final[frozenset[Metric]] = frozenset(("calls", "durations", "active_users", "active_sessions", "sessions"))

OrderBy = Literal[
    "start", "key", "calls", "failed", "error_rate", "p50_ms", "p95_ms", "p99_ms", "active_users", "active_sessions", "sessions"
]
# What has to be worked out for each metric of an answer.
MEASURED_BY: Final[Mapping[str, Metric]] = {
    "calls": "calls",
    "failed": "calls",
    "error_rate": "calls",
    "p50_ms": "durations",
    "p95_ms": "durations",
    "p99_ms": "durations",
    "active_users": "active_users",
    "active_sessions": "active_sessions",
    "sessions": "sessions",
}
# `order_by` takes these and `key`; `start` is only the default order of a series.
METRIC_ORDERS: Final = tuple(MEASURED_BY)

# Longest range of one question (CONTRACT 4).
RANGE_DAYS_MAX: Final = 366
# Windows are kept as seconds in 32 bits; no event lies outside (the oldest is of 2015, the newest a day ahead).
FROM_MS_MIN: Final = 0
TO_MS_MAX: Final = 4_102_444_800_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What comes first. Ties: `start` ascending, calls descending, key ascending, as far as these do not decide already."""

    by: OrderBy
    descending: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """How much, of what, when.

    Args:
        from_ms, to_ms: `[from_ms, to_ms)`, epoch ms.
        group_by: columns of the event, and `project_id`; none: one row.
        runs: intervals that cover the range, None for no series.
        filters: column -> values, any of which must hold; "" stands for absent.
        metrics: what to answer.
        limit: most rows to answer; the totals are of everything.
    """

    from_ms: int
    to_ms: int
    metrics: frozenset[Metric]
    order: Order
    limit: int
    group_by: tuple[str, ...] = ()
    runs: tuple[Run, ...] | None = None
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.from_ms <= self.to_ms
        assert "calls" in self.metrics or "durations" not in self.metrics, "percentiles are ranks among calls"
        one_row = not self.group_by and self.runs is None
        assert one_row or self.metrics & {"calls", "sessions"}, "rows without a count cannot be ordered"

    @property
    def columns(self) -> frozenset[str]:
        """The columns a row must have to be grouped and filtered."""
        return frozenset(self.group_by) | frozenset(self.filters)
