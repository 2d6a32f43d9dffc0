"""How far the partitions are proved by their receipts: followed cheaply, once for everybody who asks."""

import asyncio
from typing import Any

from ingest.contract.tables import KIND_RECEIPT, USAGE_WINDOWS
from query_api.live.position import HOUR_S, Mark, Position
from query_api.live.sql import proved_text
from query_api.store import Reader


class Proved:
    """The end of what is proved, in the newest incarnation of the topic.

    A topic made anew is another incarnation, and follows the former ones in the order of their first receipts. Offsets never
    go back here: what is written again after ClickHouse was wiped has the offsets it had.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._position = Position()
        self._order: list[str] = []
        self._asking = asyncio.Lock()

    @property
    def position(self) -> Position:
        """Return what was found last."""
        return self._position

    async def advance(self) -> Position:
        """Look how far it is now; the same object where nothing is new.

        Raises:
            StoreUnavailable, QueryError: as `Reader.rows`.
        """
        async with self._asking:
            text, values = proved_text(self._order, self._position)
            rows = await self._reader.system_rows(text, values)
            if rows:
                self._take(rows)
            return self._position

    async def since(self, from_ms: int) -> Position:
        """Return where to begin in order to see what Kafka accepted from a moment on, to within a batch."""
        position = self._position
        text = (
            "SELECT kafka_partition, min(first_offset), argMin(intDiv(toUnixTimestamp(window_start), 3600), first_offset)"
            f" FROM {USAGE_WINDOWS} WHERE kind = '{KIND_RECEIPT}' AND project_id = '' AND incarnation = {{own:String}}"
            " AND window_start >= toDateTime({from_s:UInt32}, 'UTC') AND newest_record_ms >= {from_ms:Int64}"
            " GROUP BY kafka_partition"
        )
        values = {"own": position.incarnation, "from_s": max(0, from_ms // 1000 - 2 * HOUR_S), "from_ms": from_ms}
        found = await self._reader.system_rows(text, values)
        marks = {partition: Mark(first, 0, hour) for partition, first, hour in found}
        # A partition without a receipt since then has nothing to show but what comes.
        return Position(incarnation=position.incarnation, marks={**position.marks, **marks})

    def former(self) -> tuple[str, ...]:
        """Return the incarnations before the newest one."""
        return tuple(self._order[:-1])

    def following(self, incarnation: str) -> str:
        """Return which incarnation comes after one; of one that left no receipt, the newest."""
        if not incarnation:
            return self._order[0] if self._order else ""
        if incarnation in self._order[:-1]:
            return self._order[self._order.index(incarnation) + 1]
        return self._position.incarnation

    def _take(self, rows: list[list[Any]]) -> None:
        known = set(self._order)
        first_ms: dict[str, int] = {}
        for incarnation, _, _, _, at_ms in rows:
            first_ms[incarnation] = min(at_ms, first_ms.get(incarnation, at_ms))
        self._order += sorted(set(first_ms) - known, key=lambda one: (first_ms[one], one))
        newest = self._order[-1]
        marks = dict(self._position.marks) if newest == self._position.incarnation else {}
        marks |= {partition: Mark(offset, 0, hour) for of, partition, offset, hour, _ in rows if of == newest}
        self._position = Position(incarnation=newest, marks=marks)
