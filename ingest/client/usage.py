"""`ledger.usage`: how much was called, as the Usage API tells it."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from ingest.client.reading import Answered, Reader

_PATH: Final = "/api/v3.1/project/usage/"

Entity = Literal["tool", "toolkit", "user", "session", "tool_calls", "sessions"]


class Quantity(msgspec.Struct, kw_only=True):
    """How many of one kind. `total_quantity` is a decimal number as text, as the API has it."""

    unit: str = "count"
    total_quantity: str = "0"
    event_count: int = 0


class UsageSummary(Answered, kw_only=True):
    """Quantities by entity: `tool_calls` and `sessions`."""

    entities: dict[str, Quantity]

    @property
    def tool_calls(self) -> int:
        """Calls, successful or not."""
        return self.entities["tool_calls"].event_count if "tool_calls" in self.entities else 0

    @property
    def sessions(self) -> int:
        """Sessions created."""
        return self.entities["sessions"].event_count if "sessions" in self.entities else 0


class UsageGroup(Quantity, kw_only=True):
    """How many with one key; `""` is the key of calls without one."""

    key: str


class UsageBreakdown(Answered, kw_only=True):
    """Quantities by key, most first; the totals are of all groups, whatever the limit returned. Iterating gives the groups."""

    entity_type: str
    groups: list[UsageGroup]
    unit: str = "count"
    total_quantity: str = "0"
    event_count: int = 0

    def __iter__(self) -> Iterator[UsageGroup]:
        return iter(self.groups)


class Usage:
    """Counts calls; each question waits for its answer, and raises what `Logs` raises."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def summary(
        self,
        *,
        time_range: Mapping[str, int] | None = None,
        entity_types: Sequence[str] | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> UsageSummary:
        """Return how many calls were made and sessions created.

        Args:
            time_range: `{"from": ..., "to": ...}` in epoch milliseconds, `to` excluded; by default the 30 days before now.
            entity_types: of `tool_calls` and `sessions`; both by default.
            filters: `{"user_id": [...], "session_id": [...]}`: any of the values.
        """
        body: dict[str, Any] = {**(time_range or {}), "entity_types": entity_types, "filters": filters}
        return self._reader.post(f"{_PATH}summary", body, UsageSummary)

    def breakdown(
        self,
        entity: Entity,
        *,
        group_by: str | None = None,
        time_range: Mapping[str, int] | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
        order_by: Literal["key", "total_quantity", "event_count"] | None = None,
        order_direction: Literal["asc", "desc"] | None = None,
        limit: int | None = None,
    ) -> UsageBreakdown:
        """Return how many calls each tool, toolkit, user or session made.

        Args:
            entity: `tool`, `toolkit`, `user` or `session`; or what is counted, `tool_calls` or `sessions`, with `group_by`.
            group_by: of `tool_calls`: `tool_slug`, `toolkit_slug`, `connected_account_id`, `user_id`, `session_id`.
            time_range: as in `summary`.
            filters: as in `summary`.
            order_by: most first by default.
            order_direction: `desc` by default.
            limit: 1 to 1000; 100 by default.
        """
        body: dict[str, Any] = {
            **(time_range or {}),
            "group_by": group_by,
            "filters": filters,
            "order_by": order_by,
            "order_direction": order_direction,
            "limit": limit,
        }
        return self._reader.post(_PATH + entity, body, UsageBreakdown)


class AsyncUsage:
    """As `Usage`, awaited; the questions wait in a thread, not in the loop."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage

    async def summary(self, **asked: Any) -> UsageSummary:
        """Return how many calls were made and sessions created. Takes what `Usage.summary` takes."""
        return await asyncio.to_thread(self._usage.summary, **asked)

    async def breakdown(self, entity: Entity, **asked: Any) -> UsageBreakdown:
        """Return how many calls each tool, toolkit, user or session made. Takes what `Usage.breakdown` takes."""
        return await asyncio.to_thread(self._usage.breakdown, entity, **asked)
