"""What an export asks of ClickHouse. Pure.

All pages see the logs as of one moment: those that were proved then. What is proved is a place in each of Kafka's partitions,
so the condition is a simple one, and what arrives meanwhile lies beyond it, whatever its time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ingest.contract.tables import TOOL_EXECUTIONS
from query_api.live.position import Position
from query_api.logs import RANGE_MS_MAX, RANGE_MS_MIN, SHOWN
from query_api.paging import Place
from query_api.selection import Selection
from query_api.tenant import Statement, Tenant

# Each by itself, as CSV and Parquet have them; the order is theirs, too.
COLUMNS: Final = ("id", "toUnixTimestamp64Milli(timestamp)", "project_id", *SHOWN, "metadata")
COLUMNS_WITH_DATA: Final = (*COLUMNS, "data")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What was proved at one moment.

    Args:
        position: of the newest incarnation of the topic.
        former: incarnations before it, which are proved as a whole.
    """

    position: Position
    former: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """All that is asked for.

    Args:
        moment: as of when.
        from_ms, to_ms: `[from_ms, to_ms)`, epoch ms; None: all that is retained.
        data: whether payloads are wanted.
    """

    moment: Moment
    selection: Selection
    from_ms: int | None = None
    to_ms: int | None = None
    data: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of a row."""
        return COLUMNS_WITH_DATA if self.data else COLUMNS


def total_statement(tenant: Tenant, export: Export) -> Statement:
    """Return the statement of how many logs there are."""
    where, values = _where(export, export.from_ms, export.to_ms)
    return Statement(tenant=tenant, text=f"SELECT count() {tenant.rows_of(TOOL_EXECUTIONS, where)}", values=values)


def bounds_statement(tenant: Tenant, export: Export) -> Statement:
    """Return the statement of the first and the last time in the range, whatever the selection; epoch ms, 0 without a log."""
    unselected = Export(moment=export.moment, selection=Selection())
    where, values = _where(unselected, export.from_ms, export.to_ms)
    text = "SELECT toUnixTimestamp64Milli(min(timestamp)), toUnixTimestamp64Milli(max(timestamp)) " + tenant.rows_of(
        TOOL_EXECUTIONS, where
    )
    return Statement(tenant=tenant, text=text, values=values)


def page_statement(tenant: Tenant, export: Export, *, from_ms: int, to_ms: int, after: Place | None, limit: int) -> Statement:
    """Return the statement of a page, newest first: rows of `Export.columns`.

    Args:
        from_ms, to_ms: of this part of the range.
        after: the last log of the page before, None at the part's beginning.
    """
    where, values = _where(export, from_ms, to_ms)
    if after is not None:
        last = _at("after_ms")
        where.append(f"timestamp < {last} OR (timestamp = {last} AND id < {{after_id:String}})")
        where.append(f"timestamp <= {last}")
        values |= {"after_ms": after.timestamp_ms, "after_id": after.id}
    text = (
        f"SELECT {', '.join(export.columns)} {tenant.rows_of(TOOL_EXECUTIONS, where)}"
        f" ORDER BY timestamp DESC, id DESC LIMIT {limit:d}"
    )
    return Statement(tenant=tenant, text=text, values=values)


def _where(export: Export, from_ms: int | None, to_ms: int | None) -> tuple[list[str], dict[str, Any]]:
    where, values = export.selection.conditions()
    for name, comparison, at_ms in (("from_ms", ">=", from_ms), ("to_ms", "<", to_ms)):
        if at_ms is not None:
            where.append(f"timestamp {comparison} {_at(name)}")
            values[name] = min(max(at_ms, RANGE_MS_MIN), RANGE_MS_MAX)
    proved, named = _proved(export.moment)
    return [*where, *proved], values | named


def _proved(moment: Moment) -> tuple[list[str], dict[str, Any]]:
    """Return the condition of what was proved; none where there is no receipt at all."""
    if not moment.position.marks:
        return [], {}
    end = "transform(kafka_partition, {proved_p:Array(UInt32)}, {proved_o:Array(UInt64)}, 0)"
    return [
        f"(incarnation = {{proved_own:String}} AND kafka_offset < {end}) OR incarnation IN {{proved_former:Array(String)}}"
    ], {
        "proved_own": moment.position.incarnation,
        "proved_former": list(moment.former),
        "proved_p": list(moment.position.marks),
        "proved_o": [mark.offset for mark in moment.position.marks.values()],
    }


def _at(name: str) -> str:
    return f"fromUnixTimestamp64Milli({{{name}:Int64}}, 'UTC')"
