"""What closed windows gained from late events, as a question, one SQL statement, and rows. Pure.

A correction has two times: the hour of usage it belongs to, and the moment it was counted. A question is about moments
[from, to) that lie wholly in the past of `complete_until`, so the answer to it never changes: whoever goes on from `to`
misses nothing and gets nothing twice, and pages of one answer fit together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ingest.contract.tables import USAGE_CORRECTIONS
from query_api.tenant import Statement, Tenant
from query_api.usage.grains import HOUR_MS
from query_api.usage.question import TO_MS_MAX
from query_api.usage.sql import filter_conditions

# Windows are kept in seconds.
_SECOND_MS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The last row of a page: the next one begins behind it."""

    window_start_ms: int
    key: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What was corrected, when, of which windows.

    Args:
        from_ms, to_ms: moments of correction, `[from_ms, to_ms)`, epoch ms.
        window_from_ms, window_to_ms: starts of windows, `[window_from_ms, window_to_ms)`; None: any.
        group_by: columns; none: one row a window.
        filters: column -> values, any of which must hold; "" stands for absent.
        limit: most rows on the page; totals are of everything.
        after: where the page before ended.
    """

    from_ms: int
    to_ms: int
    window_from_ms: int | None = None
    window_to_ms: int | None = None
    group_by: tuple[str, ...] = ()
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    limit: int
    descending: bool = False
    after: Place | None = None

    def until(self, complete_until_ms: int, *, after: Place | None) -> "Question":
        """Return the part of it that can be answered for good, behind a place; nothing if `from` lies beyond."""
        return replace(self, to_ms=max(self.from_ms, min(self.to_ms, complete_until_ms)), after=after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Rows by window, then by key; what all corrections asked for add up to; and where the next page begins."""

    rows: tuple[dict[str, Any], ...]
    totals: dict[str, int]
    following: Place | None


def statement(tenant: Tenant, question: Question) -> Statement:
    """Return the statement of a page: first the totals, then at most `limit + 1` rows behind `after`.

    Columns: total, window start (epoch s), k0, k1, calls, failed, first moment, last moment.
    """
    conditions, values = filter_conditions(question.filters)
    conditions += ["corrected_ms >= {from_ms:Int64}", "corrected_ms < {to_ms:Int64}"]
    values |= {"from_ms": question.from_ms, "to_ms": question.to_ms}
    for bound, sign in ((question.window_from_ms, ">="), (question.window_to_ms, "<")):
        if bound is not None:
            conditions.append(f"window_start {sign} toDateTime({_seconds(bound):d}, 'UTC')")
    keys = [f"k{index}" for index in range(len(question.group_by))]
    inner = ["toUInt8(1) AS part", "toUnixTimestamp(window_start) AS start"]
    inner += [f"toString({column}) AS {key}" for column, key in zip(question.group_by, keys, strict=True)]
    inner += ["calls AS c", "if(status = 'failed', calls, 0) AS f", "corrected_ms AS m"]
    place = ["start", *keys]
    having = ""
    if question.after is not None:
        values |= {"after": question.after.window_start_ms // _SECOND_MS}
        values |= {f"after_{key}": value for key, value in zip(keys, question.after.key, strict=True)}
        after = ["{after:UInt32}", *(f"{{after_{key}:String}}" for key in keys)]
        sign = "<" if question.descending else ">"
        having = f"HAVING total = 1 OR ({', '.join(place)}) {sign} ({', '.join(after)})\n"
    direction = "DESC" if question.descending else "ASC"
    outputs = ["1 - part AS total", *place, "sum(c) AS calls", "sum(f) AS failed", "min(m) AS first", "max(m) AS last"]
    text = (
        f"SELECT {', '.join(outputs)}\n"
        f"FROM (SELECT {', '.join(inner)} {tenant.rows_of(USAGE_CORRECTIONS, conditions)})\n"
        f"GROUP BY GROUPING SETS ((part, {', '.join(place)}), ())\n{having}"
        f"ORDER BY total DESC, {', '.join(f'{name} {direction}' for name in place)}\n"
        # One more than the page shows that there is another; the totals are a row of their own.
        f"LIMIT {question.limit + 2:d}"
    )
    return Statement(tenant=tenant, text=text, values=values)


def page(question: Question, found: Sequence[Sequence[Any]]) -> Page:
    """Read the rows of `statement(question)`."""
    totals = {"calls": 0, "failed": 0}
    rows: list[dict[str, Any]] = []
    for total, start, *key, calls, failed, first_ms, last_ms in found:
        if total:
            totals = {"calls": calls, "failed": failed}
            continue
        start_ms = start * _SECOND_MS
        rows.append(
            {
                "window_start": start_ms,
                "window_end": start_ms + HOUR_MS,
                **dict(zip(question.group_by, key, strict=True)),
                "calls": calls,
                "failed": failed,
                "first_corrected_at": first_ms,
                "last_corrected_at": last_ms,
            }
        )
    following = None
    if len(rows) > question.limit:
        rows = rows[: question.limit]
        last = rows[-1]
        following = Place(window_start_ms=last["window_start"], key=tuple(last[name] for name in question.group_by))
    return Page(rows=tuple(rows), totals=totals, following=following)


def _seconds(at_ms: int) -> int:
    """Return the first whole second at or after an instant, within what a window can be."""
    return -(-min(max(at_ms, 0), TO_MS_MAX) // _SECOND_MS)
