"""How a tenant's calls lie over its days, roughly and as of a while ago: what decides how its sessions are counted.

Only the time of an answer depends on it, never the answer.
"""

import bisect
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from ingest.contract.tables import KIND_TOOL_DAY, USAGE_WINDOWS
from query_api.store import Reader
from query_api.tenant import Statement, Tenant
from query_api.usage.grains import DAY_MS

# A few days more or less change nothing.
_KEPT_S: Final = 3600.0
# A year of days is 6 KB.
_TENANTS_MAX: Final = 1000
# From here on the sparing way is the faster one too. Measured over 4 and 29 million sessions: deploy/decisions/0013.
_LONG: Final = 20


class Days:
    """Calls by day.

    Args:
        rows: (start of the day in epoch ms, calls of the day), in order.
    """

    def __init__(self, rows: Sequence[Sequence[Any]]) -> None:
        self._starts = array("q", (start_ms for start_ms, _ in rows))
        self._before = array("q", [0])
        for _, calls in rows:
            self._before.append(self._before[-1] + calls)

    def outweigh(self, from_ms: int, to_ms: int) -> bool:
        """Tell whether there were so many more calls on the days before a range than on its own."""
        first, end = (bisect.bisect_left(self._starts, at_ms) for at_ms in (from_ms // DAY_MS * DAY_MS, to_ms))
        return self._before[first] > _LONG * (self._before[max(first, end)] - self._before[first])


def statement(tenant: Tenant) -> Statement:
    """Return the statement of `Days`, from the few rows that a day has of each tool."""
    rows = tenant.rows_of(USAGE_WINDOWS, [f"kind = '{KIND_TOOL_DAY}'"])
    text = f"SELECT toInt64(toUnixTimestamp(window_start)) * 1000 AS day, sum(calls) {rows} GROUP BY day ORDER BY day"
    return Statement(tenant=tenant, text=text, values={})


class Past:
    """Keeps the days of the tenants that asked last."""

    def __init__(self, reader: Reader, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._reader = reader
        self._monotonic = monotonic
        self._kept: OrderedDict[tuple[str, ...], tuple[float, Days]] = OrderedDict()

    async def of(self, tenant: Tenant) -> Days:
        """Return a tenant's days, an hour old at most.

        Raises:
            StoreUnavailable, QueryError: as `Reader.rows`.
        """
        now = self._monotonic()
        asked_at, days = self._kept.get(tenant.projects, (now - _KEPT_S, None))
        if days is None or now - asked_at >= _KEPT_S:
            asked_at, days = now, Days(await self._reader.rows(statement(tenant)))
        self._kept[tenant.projects] = asked_at, days
        self._kept.move_to_end(tenant.projects)
        if len(self._kept) > _TENANTS_MAX:
            self._kept.popitem(last=False)
        return days
