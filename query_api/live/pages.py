"""Read the logs of proved batches page by page: bounded in rows and bytes, complete, in order within each partition.

The table is ordered by time, not by offset, so the rows of a batch are looked for among what was accepted of late, which an
index finds; a receipt says how many there must be. Where some are missing (a replay or a stray keeps the time it was accepted
first) it is looked again, further back.
"""

import heapq
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from query_api import log_items
from query_api.live.position import Mark, Position
from query_api.live.sql import Batch, Slice, count_statement, rows_statement
from query_api.selection import Selection
from query_api.store import Reader, Row
from query_api.tenant import Statement, Tenant

ROWS_MAX: Final = 500
# How far before the newest record of the oldest batch its rows are looked for. A batch that is read live spans a moment, one
# of a worker that catches up minutes.
_LOOK_BACK_MS: Final = (5_000, 600_000)
# A line break within JSON stands between tokens only, where a space means the same; in an event stream it would end a line.
_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")


class Line(NamedTuple):
    """One log, ready to be sent.

    Args:
        partition, offset, within, hour: as in `Mark`.
        fits: for each selection asked for, 1 if the log fits it.
        body: the log as JSON in one line.
    """

    partition: int
    offset: int
    within: int
    hour: int
    fits: Sequence[int]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some logs, by time as far as the order within partitions allows, and where one stands behind them."""

    lines: Sequence[Line]
    position: Position


def one_line(body: bytes) -> bytes:
    """Return JSON without line breaks."""
    return body.translate(_ONE_LINE)


async def pages(
    reader: Reader, tenant: Tenant, position: Position, batches: Sequence[Batch], selections: Sequence[Selection]
) -> AsyncGenerator[Page]:
    """Read the logs of batches that follow a position, those that fit any of some selections.

    Args:
        tenant: of one project.
        batches: of the position's incarnation, in order within each partition, none left out.

    Raises:
        StoreUnavailable, QueryError: as `Reader.rows`; what was given before stays true.
    """
    for chunk in chunks(batches, rows_max=ROWS_MAX):
        months = sorted({batch.month for batch in chunk})
        accepted_from_ms = await _looked_for_from(reader, tenant, position.incarnation, chunk, months)
        while slices := _slices(chunk, position):
            asked, rows = await _rows(reader, tenant, position.incarnation, slices, months, accepted_from_ms, selections)
            whole = len(rows) <= asked
            hours = {batch.partition: batch.hour for batch in reversed(chunk)}
            lines = _lines(rows[:asked], hours)
            marks = dict(position.marks)
            for partition, one in sorted(slices.items()):
                if not whole and partition >= lines[-1].partition:
                    break
                marks[partition] = Mark(one.next_offset, 0, max(b.hour for b in chunk if b.partition == partition))
            if not whole:
                last = lines[-1]
                marks[last.partition] = Mark(last.offset, last.within + 1, last.hour)
            position = Position(incarnation=position.incarnation, marks=marks)
            yield Page(lines=_by_time(lines, rows), position=position)


def chunks(batches: Iterable[Batch], *, rows_max: int) -> list[list[Batch]]:
    """Part batches so that each part holds few logs; a batch stays whole, however large."""
    found: list[list[Batch]] = []
    held = rows_max
    for batch in batches:
        if held + batch.accepted > rows_max:
            found.append([])
            held = 0
        found[-1].append(batch)
        held += batch.accepted
    return found


def _slices(chunk: Sequence[Batch], position: Position) -> dict[int, Slice]:
    """Return what of some batches lies behind a position; between two batches of a project there is nothing of it."""
    found: dict[int, Slice] = {}
    for batch in chunk:
        mark = position.marks.get(batch.partition, Mark(0, 0, 0))
        if mark.offset >= batch.next_offset:
            continue
        offset, index = max((batch.first_offset, 0), (mark.offset, mark.within))
        before = found.get(batch.partition)
        begin = (offset, index) if before is None else (before.from_offset, before.from_index)
        found[batch.partition] = Slice(*begin, batch.next_offset)
    return found


async def _looked_for_from(
    reader: Reader, tenant: Tenant, incarnation: str, chunk: Sequence[Batch], months: Sequence[int]
) -> int | None:
    """Return since when all rows of some batches were accepted, None if that cannot be told."""
    expected = sum(batch.accepted for batch in chunk)
    whole = _slices(chunk, Position(incarnation=incarnation))
    for back_ms in _LOOK_BACK_MS:
        from_ms = min(batch.newest_ms for batch in chunk) - back_ms
        statement = count_statement(tenant, incarnation, whole, months=months, accepted_from_ms=from_ms)
        if (await reader.rows(statement))[0][0] >= expected:
            return from_ms
    return None


async def _rows(
    reader: Reader,
    tenant: Tenant,
    incarnation: str,
    slices: Mapping[int, Slice],
    months: Sequence[int],
    accepted_from_ms: int | None,
    selections: Sequence[Selection],
) -> tuple[int, list[Row]]:
    """Return how many rows were asked for, and up to one more."""

    def statement(limit: int) -> Statement:
        return rows_statement(
            tenant,
            incarnation,
            slices,
            months=months,
            accepted_from_ms=accepted_from_ms,
            selections=selections,
            limit=limit + 1,
        )

    return await reader.page(statement, ROWS_MAX)


def _lines(rows: Sequence[Row], hours: Mapping[int, int]) -> list[Line]:
    return [
        Line(partition, offset, index, hours[partition], fits, one_line(orjson.dumps(log_items.item(log_items.values_of(row)))))
        for partition, offset, index, fits, *row in rows
    ]


def _by_time(lines: Sequence[Line], rows: Sequence[Row]) -> list[Line]:
    """Merge partitions by time; each one's own order stays, because a position is one place in each."""
    apart: dict[int, list[tuple[Any, Line]]] = {}
    for line, row in zip(lines, rows, strict=False):
        apart.setdefault(line.partition, []).append((log_items.place_of(row[4:]).timestamp_ms, line))
    return [line for _, line in heapq.merge(*apart.values(), key=lambda one: one[0])]
