"""What tails ask of ClickHouse. Pure.

Receipts tell which batches are proved, and each project's part of a receipt how many of its logs a batch holds. So a tail reads
only tables' ends, asks for rows only where there are some of its project, and knows whether it found them all.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from ingest.contract.tables import KIND_PROJECT_RECEIPT, KIND_RECEIPT, TOOL_EXECUTIONS, USAGE_WINDOWS
from query_api.live.position import HOUR_S, Position
from query_api.logs import ITEM_COLUMNS
from query_api.selection import Selection
from query_api.tenant import Statement, Tenant

_HOUR: Final = f"intDiv(toUnixTimestamp(window_start), {HOUR_S})"
# The hour of a receipt is that of its newest record. Brokers' clocks may differ, so the next receipt's may be a little earlier.
_HOURS_BACK: Final = 1
_ORIGIN: Final = ("kafka_partition", "kafka_offset", "kafka_index")


class Batch(NamedTuple):
    """One project's part of a receipt: logs of `[first_offset, next_offset)` of a partition.

    Args:
        month: the table partition they are in.
        newest_ms: acceptance of the batch's newest record.
        accepted: how many logs there are.
    """

    partition: int
    first_offset: int
    next_offset: int
    month: int
    newest_ms: int
    accepted: int

    @property
    def hour(self) -> int:
        """Return the hour of its receipt."""
        return self.newest_ms // (HOUR_S * 1000)


class Slice(NamedTuple):
    """Events of a partition from (offset, index) up to and without an offset."""

    from_offset: int
    from_index: int
    next_offset: int


def proved_text(known: Sequence[str], position: Position) -> tuple[str, dict[str, Any]]:
    """Return the question of how far partitions are proved beyond a position, and its values.

    Args:
        known: incarnations to leave out, but for the position's own.

    Returns:
        Rows of incarnation, partition, next offset, hour of its receipt, and when the first one was (epoch ms).
    """
    where, values = _beyond(position)
    values |= {"own": position.incarnation, "known": list(known)}
    own = " AND ".join(f"({one})" for one in ["incarnation = {own:String}", *where])
    text = (
        f"SELECT incarnation, kafka_partition, max(next_offset), argMax({_HOUR}, next_offset),"
        f" minIf(newest_record_ms, newest_record_ms > 0) FROM {USAGE_WINDOWS}"
        f" WHERE kind = '{KIND_RECEIPT}' AND project_id = '' AND ({own} OR incarnation NOT IN {{known:Array(String)}})"
        " GROUP BY incarnation, kafka_partition"
    )
    return text, values


def batches_statement(tenant: Tenant, after: Position, until: Position | None, *, limit: int) -> Statement:
    """Return the statement of which batches hold logs of a tenant's projects, between two positions.

    Args:
        until: of the same incarnation; None: all that are proved.

    Returns:
        Rows of project and `Batch`, by time, and in order within a partition.
    """
    where, values = _beyond(after)
    values["incarnation"] = after.incarnation
    if until is not None:
        assert until.incarnation == after.incarnation
        where.append("next_offset <= transform(kafka_partition, {until_p:Array(UInt32)}, {until_o:Array(UInt64)}, 0)")
        values["until_p"] = list(until.marks)
        values["until_o"] = [mark.offset for mark in until.marks.values()]
    text = (
        "SELECT project_id, kafka_partition, first_offset, max(next_offset), any(batch_month), max(newest_record_ms) AS newest,"
        " max(accepted) AS logs "
        + tenant.rows_of(
            USAGE_WINDOWS,
            [f"kind = '{KIND_PROJECT_RECEIPT}'", "incarnation = {incarnation:String}", "accepted > 0", *where],
        )
        # Two receipts of one batch (a worker that slept through its own death) are one.
        + f" GROUP BY project_id, kafka_partition, first_offset ORDER BY newest, kafka_partition, first_offset LIMIT {limit:d}"
    )
    return Statement(tenant=tenant, text=text, values=values)


def rows_statement(
    tenant: Tenant,
    incarnation: str,
    slices: Mapping[int, Slice],
    *,
    months: Sequence[int],
    accepted_from_ms: int | None,
    selections: Sequence[Selection],
    limit: int,
) -> Statement:
    """Return the statement of the logs in slices of partitions that fit any of some selections.

    Returns:
        Rows of partition, offset, index, for each selection whether the log fits it, and `ITEM_COLUMNS`; in the order of the
        first three.
    """
    where, values = _inside(incarnation, slices, months=months, accepted_from_ms=accepted_from_ms)
    fits = []
    for number, selection in enumerate(selections):
        texts, named = selection.conditions(f"s{number}")
        fits.append(" AND ".join(f"({text})" for text in texts) or "1")
        values |= named
    wanted = "1" if "1" in fits else " OR ".join(f"({one})" for one in fits)
    text = (
        f"SELECT {', '.join(_ORIGIN)}, [{', '.join(f'toUInt8({one})' for one in fits)}], {', '.join(ITEM_COLUMNS)}"
        f" {tenant.rows_of(TOOL_EXECUTIONS, [*where, wanted])} ORDER BY {', '.join(_ORIGIN)} LIMIT {limit:d}"
    )
    return Statement(tenant=tenant, text=text, values=values)


def count_statement(
    tenant: Tenant, incarnation: str, slices: Mapping[int, Slice], *, months: Sequence[int], accepted_from_ms: int
) -> Statement:
    """Return the statement of how many logs there are in slices of partitions, accepted from a moment on."""
    where, values = _inside(incarnation, slices, months=months, accepted_from_ms=accepted_from_ms)
    return Statement(tenant=tenant, text=f"SELECT count() {tenant.rows_of(TOOL_EXECUTIONS, where)}", values=values)


def _inside(
    incarnation: str, slices: Mapping[int, Slice], *, months: Sequence[int], accepted_from_ms: int | None
) -> tuple[list[str], dict[str, Any]]:
    bound = "transform(kafka_partition, {{p:Array(UInt32)}}, {{{name}:Array(UInt64)}}, {otherwise})"
    beginning, end = bound.format(name="from_o", otherwise=0), bound.format(name="next_o", otherwise=0)
    where = [
        "batch_month IN {months:Array(UInt32)}",
        "incarnation = {incarnation:String}",
        f"kafka_offset >= {beginning}",
        f"kafka_offset < {end}",
        f"kafka_offset > {beginning} OR kafka_index >= {bound.format(name='from_i', otherwise=0)}",
    ]
    values: dict[str, Any] = {
        "months": list(months),
        "incarnation": incarnation,
        "p": list(slices),
        "from_o": [one.from_offset for one in slices.values()],
        "from_i": [one.from_index for one in slices.values()],
        "next_o": [one.next_offset for one in slices.values()],
    }
    if accepted_from_ms is not None:
        where.append("accepted_at >= fromUnixTimestamp64Milli({accepted_from_ms:Int64}, 'UTC')")
        values["accepted_from_ms"] = accepted_from_ms
    return where, values


def _beyond(position: Position) -> tuple[list[str], dict[str, Any]]:
    """Return conditions of receipts that end beyond a position; the hours are what the primary key can use."""
    if not position.marks:
        return [], {}
    newest = max(mark.hour for mark in position.marks.values())
    live = [partition for partition, mark in position.marks.items() if mark.hour >= newest - _HOURS_BACK]
    rest = {partition: mark.hour for partition, mark in position.marks.items() if mark.hour < newest - _HOURS_BACK}
    values: dict[str, Any] = {
        "marked": list(position.marks),
        "offsets": [mark.offset for mark in position.marks.values()],
        "live": live,
        "rest": list(rest),
        "live_s": _second(min(position.marks[partition].hour for partition in live)),
        "rest_s": _second(min(rest.values(), default=0)),
    }
    hours = [
        f"kafka_partition IN {{{name}:Array(UInt32)}} AND window_start >= toDateTime({{{name}_s:UInt32}}, 'UTC')"
        for name in ("live", "rest")
    ]
    return [
        "next_offset > transform(kafka_partition, {marked:Array(UInt32)}, {offsets:Array(UInt64)}, 0)",
        " OR ".join([*(f"({one})" for one in hours), "kafka_partition NOT IN {marked:Array(UInt32)}"]),
    ], values


def _second(hour: int) -> int:
    return max(0, hour - _HOURS_BACK) * HOUR_S
