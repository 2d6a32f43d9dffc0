"""The older listing of logs as SQL, and its cursor, which the wire wants as a number. Pure.

A number that every client keeps exactly has 53 bits: too few for a place (timestamp, id). So a cursor is a millisecond and a
landmark in it:

    cursor = (timestamp ms - `_BASE_MS`) * 8192 + landmark         landmark 0:       that millisecond was given to its end
                                                                   landmark 1..8191: a hash of the last id that was given

The next page begins behind the row that the landmark names, in the order of all logs (timestamp, id; newest first). A landmark
is only given if one row alone of its millisecond and question has it; a page whose last row shares its hash goes on to the
first row that does not, so it may be a few rows longer than its limit. Among ten rows of one millisecond
that is the case once in a thousand pages, among three thousand once in three. Where tens of thousands share one
millisecond the question is refused (`EXTRA_ROWS`), never answered with a gap: the public search has no such bound.

Guarantee: like a place, a landmark does not move when rows arrive before or behind it. If a row arrives that shares hash and
millisecond with it (1 in 8191), the earlier one counts: rows may repeat, none is left out. A cursor holds no more than a time
and a hash; whose rows are read is decided by the key alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ingest.contract.tables import OWN, OWN_ID, TOOL_EXECUTIONS
from query_api.filters import VALUE_CHARS_MAX, folded
from query_api.logs import ITEM_COLUMNS
from query_api.tenant import OwnValues, Statement, Tenant

# 2014-12-01: a month before the oldest event, so that page numbers and epoch times, which are no cursors, are refused as such.
_BASE_MS: Final = 1_417_392_000_000
_OLDEST_MS: Final = 1_420_066_800_000
_LANDMARKS: Final = 8192
# 2^40 milliseconds and 2^13 landmarks are the 53 bits of a double; they last until 2049.
_CURSOR_MAX: Final = 2**53 - 1
# How much longer a page may become, in search of a row that can be named. Enough up to some 25,000 rows of one millisecond.
EXTRA_ROWS: Final = 100

COLUMNS: Final = (*ITEM_COLUMNS, "landmark")
# ClickHouse searches for no more than 255 at once.
_SEARCHED_MAX: Final = 250
_LANDMARK: Final = f"toUInt16(sipHash64(id) % {_LANDMARKS - 1} + 1)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """A millisecond, and the landmark behind which the next page begins; 0: behind that millisecond."""

    at_ms: int
    landmark: int

    def number(self) -> int:
        """Return the cursor as the wire has it, a whole number of at most 53 bits."""
        return (self.at_ms - _BASE_MS) * _LANDMARKS + self.landmark


def parse(number: float) -> Cursor | None:
    """Return the cursor that a number stands for, None if no listing can have given it."""
    if number != int(number) or not 0 < number <= _CURSOR_MAX:
        return None
    after_ms, landmark = divmod(int(number), _LANDMARKS)
    at_ms = _BASE_MS + after_ms
    return Cursor(at_ms=at_ms, landmark=landmark) if at_ms >= _OLDEST_MS else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One page of the older listing, newest first.

    Args:
        limit: rows on the page.
        equal: column -> values, any of which must hold: a client sends a list as one condition a value.
        others: (column, operator, value) that must all hold; operators `!=`, `contains`, `not_contains`.
        case_sensitive: None: `==` and `!=` exact, `contains` and `not_contains` without regard to case, as everywhere.
            A log's id equals exactly in any case: two that differ are two logs, and only so is one found by its index.
        from_ms, to_ms: `[from_ms, to_ms)`, epoch ms; None: all that is retained.
    """

    limit: int
    equal: Mapping[str, Sequence[str]] = field(default_factory=dict)
    others: Sequence[tuple[str, str, str]] = ()
    case_sensitive: bool | None = None
    from_ms: int | None = None
    to_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """Where a page begins: behind a whole millisecond, or behind one row of it."""

    at_ms: int
    id: str | None = None


def page_statement(tenant: Tenant, listing: Listing, behind: Behind | None) -> Statement:
    """Return the statement of a page: rows of `COLUMNS`, one more than the page holds where there is a next one."""
    where, values = _conditions(listing)
    if behind is not None:
        values["after_ms"] = behind.at_ms
        after = _moment("after_ms")
        if behind.id is None:
            where.append(f"timestamp < {after}")
        else:
            # The first condition alone would do; the second is what the primary key can use.
            where.append(f"timestamp < {after} OR (timestamp = {after} AND id < {{after_id:String}})")
            where.append(f"timestamp <= {after}")
            values["after_id"] = behind.id
    return Statement(tenant=tenant, text=_rows(tenant, where, limit=listing.limit + 1), values=values)


def rest_statement(tenant: Tenant, listing: Listing, behind: Behind) -> Statement:
    """Return the statement of what follows a row within its millisecond: rows of `COLUMNS`, at most `EXTRA_ROWS + 1`."""
    where, values = _conditions(listing)
    where += [f"timestamp = {_moment('at_ms')}", "id < {after_id:String}"]
    text = _rows(tenant, where, limit=EXTRA_ROWS + 1)
    return Statement(tenant=tenant, text=text, values={**values, "at_ms": behind.at_ms, "after_id": behind.id})


def landmarks_statement(tenant: Tenant, listing: Listing, at_ms: int) -> Statement:
    """Return the statement of the landmarks of a millisecond that name one row alone."""
    where, values = _conditions(listing)
    where.append(f"timestamp = {_moment('at_ms')}")
    text = f"SELECT {_LANDMARK} AS landmark {tenant.rows_of(TOOL_EXECUTIONS, where)} GROUP BY landmark HAVING count() = 1"
    return Statement(tenant=tenant, text=text, values={**values, "at_ms": at_ms})


def named_statement(tenant: Tenant, listing: Listing, cursor: Cursor) -> Statement:
    """Return the statement of the id that a cursor names: one row (id, how many have this landmark)."""
    where, values = _conditions(listing)
    where += [f"timestamp = {_moment('at_ms')}", f"{_LANDMARK} = {{landmark:UInt16}}"]
    text = f"SELECT max(id), count() {tenant.rows_of(TOOL_EXECUTIONS, where)}"
    return Statement(tenant=tenant, text=text, values={**values, "at_ms": cursor.at_ms, "landmark": cursor.landmark})


def last(rows: Sequence[Sequence[Any]], limit: int) -> Behind | None:
    """Return the row that a page would end with in the middle of its millisecond, None where a page ends well by itself."""
    if len(rows) <= limit or _at_ms(rows[limit]) != _at_ms(rows[limit - 1]):
        return None
    return Behind(at_ms=_at_ms(rows[limit - 1]), id=rows[limit - 1][0])


def following(rows: Sequence[Sequence[Any]], limit: int) -> Cursor | None:
    """Return the cursor of a page that ends well by itself, None for the last page."""
    return Cursor(at_ms=_at_ms(rows[limit - 1]), landmark=0) if len(rows) > limit else None


def cut(rows: Sequence[Sequence[Any]], unique: frozenset[int]) -> tuple[int, Cursor] | None:
    """Return how many rows go on a page, up to the first that can be named, and the cursor behind them.

    Args:
        rows: the last one of the page, and then those of `rest_statement`, as far as they were read.
        unique: landmarks of `landmarks_statement` in their millisecond.

    Returns:
        None where no row within `EXTRA_ROWS` can be named.
    """
    at_ms = _at_ms(rows[0])
    for size, row in enumerate(rows[: EXTRA_ROWS + 1], start=1):
        if row[-1] in unique:
            return size, Cursor(at_ms=at_ms, landmark=row[-1])
    # The millisecond itself may end here; what comes behind it may be nothing, which the next page then says.
    return None if len(rows) > EXTRA_ROWS + 1 else (len(rows), Cursor(at_ms=at_ms, landmark=0))


def _rows(tenant: Tenant, where: Sequence[str], *, limit: int) -> str:
    return (
        f"SELECT {', '.join(ITEM_COLUMNS)}, {_LANDMARK} AS landmark {tenant.rows_of(TOOL_EXECUTIONS, where)}"
        f" ORDER BY timestamp DESC, id DESC LIMIT {limit:d}"
    )


def _at_ms(row: Sequence[Any]) -> int:
    return int(row[1])


def _conditions(listing: Listing) -> tuple[list[str], dict[str, Any]]:
    texts: list[str] = []
    values: dict[str, Any] = {}
    exact = listing.case_sensitive is not False
    for column, allowed in sorted(listing.equal.items()):
        name = f"p{len(values)}"
        # Longer ones equal nothing that is stored.
        equal = sorted({value for value in allowed if len(value) <= VALUE_CHARS_MAX})
        given = f"{{{name}:Array(String)}}"
        if column == "id":
            values[name] = OwnValues(tuple(equal))
            texts.append(f"{OWN_ID} IN {given}")
        elif column in OWN and exact:
            values[name] = OwnValues(tuple(value for value in equal if value))
            texts.append(f"{OWN[column]} IN {given}" + f" OR {column} = ''" * ("" in equal))
        else:
            values[name] = equal
            texts.append(f"{column} IN {given}" if exact else f"{folded(column)} IN arrayMap(x -> caseFoldUTF8(x), {given})")
    others: dict[tuple[str, str], list[str]] = {}
    for column, operator, value in sorted(set(listing.others)):
        # A longer one is in nothing that is stored.
        if len(value) <= VALUE_CHARS_MAX:
            others.setdefault((column, operator), []).append(value)
        elif operator == "contains":
            texts.append("0")
    for (column, operator), given_values in others.items():
        for start in range(0, len(given_values), _SEARCHED_MAX):
            name = f"p{len(values)}"
            values[name] = given_values[start : start + _SEARCHED_MAX]
            texts.append(_others(column, operator, f"{{{name}:Array(String)}}", listing.case_sensitive))
    if listing.from_ms is not None:
        texts.append(f"timestamp >= {_moment('from_ms')}")
        values["from_ms"] = listing.from_ms
    if listing.to_ms is not None:
        texts.append(f"timestamp < {_moment('to_ms')}")
        values["to_ms"] = listing.to_ms
    return texts, values


def _others(column: str, operator: str, given: str, case_sensitive: bool | None) -> str:
    """Return that a column differs from, contains, or does not contain each of some values: one text, however many they are."""
    fold = not case_sensitive if operator != "!=" else case_sensitive is False
    text, searched = (folded(column), f"arrayMap(x -> caseFoldUTF8(x), {given})") if fold else (column, given)
    if operator == "!=":
        return f"{text} NOT IN {searched}"
    # Of nothing to search for there is no place to tell, and it is in everything.
    found = f"arrayCount(at -> at > 0, multiSearchAllPositions({text}, arrayFilter(x -> x != '', {searched})))"
    nothing = f"countEqual({given}, '')"
    return f"{found} + {nothing} = length({given})" if operator == "contains" else f"{found} + {nothing} = 0"


def _moment(name: str) -> str:
    return f"fromUnixTimestamp64Milli({{{name}:Int64}}, 'UTC')"
