"""Search and detail of logs as SQL. Pure; `query_api.log_items` turns rows into answers.

A search reads narrow columns in the order of the primary key, backwards from the cursor, and stops at the page's end: it never
touches `data`. A value that few logs have (an id above all) is found through its inverted index.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from ingest.contract.tables import OWN_ID, TOOL_EXECUTIONS
from query_api.filters import Filter, conditions
from query_api.paging import Place
from query_api.tenant import OwnValues, Statement, Tenant

# What DateTime64(3) can hold and events may be: wider ranges mean the same.
RANGE_MS_MIN: Final = 0
RANGE_MS_MAX: Final = 9_000_000_000_000

_STRETCH_MS: Final = 3_600_000
# Fields of which each value stands in many logs; of any other one an index finds the few there are.
_COMMON: Final = frozenset(("status", "tool_slug", "toolkit_slug", "failure_class", "parent_tool_slug"))

# What is shown of a log and told by one column, in its order (`deploy/clickhouse/0017_shown.sql`).
SHOWN: Final = (
    "status",
    "level",
    "message",
    "duration_ms",
    "tool_slug",
    "toolkit_slug",
    "user_id",
    "session_id",
    "connected_account_id",
    "auth_config_id",
    "sandbox_id",
    "request_id",
    "trace_id",
    "failure_class",
    "http_status",
    "error_message",
    "error_code",
    "error_type",
    "parent_log_id",
    "parent_tool_slug",
    "framework",
    "language",
    "host",
)
ITEM_COLUMNS: Final = ("id", "toUnixTimestamp64Milli(timestamp)", "project_id", "metadata", "shown")
DETAIL_COLUMNS: Final = (*ITEM_COLUMNS, "data")


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One page of logs, newest first.

    Args:
        limit: logs on the page.
        after: the last log of the page before, None for the first page.
        from_ms, to_ms: `[from_ms, to_ms)`, epoch ms; None: all that is retained.
    """

    limit: int
    filters: Sequence[Filter] = ()
    after: Place | None = None
    from_ms: int | None = None
    to_ms: int | None = None


def newest_stretch(search: Search, *, now_ms: int) -> Search | None:
    """Return the newest part of a search, whose rows are the answer if they fill its page; None where the whole is as quick.

    Parts of a table lie side by side in time, and each one that may hold a row costs a millisecond or two to open, in the order
    of time or not. What is common enough fills its page from the last hour, of which few parts know.
    """
    if any(one.operator == "==" and one.field not in _COMMON for one in search.filters):
        return None
    ends = (now_ms, search.to_ms, None if search.after is None else search.after.timestamp_ms)
    since_ms = min(end for end in ends if end is not None) - _STRETCH_MS
    if search.from_ms is not None and search.from_ms >= since_ms:
        return None
    return replace(search, from_ms=since_ms)


def search_statement(tenant: Tenant, search: Search) -> Statement:
    """Return the statement of a page: rows of `ITEM_COLUMNS`, one more than the page holds where there is a next one."""
    where, values = conditions(search.filters)
    if search.from_ms is not None:
        where.append(f"timestamp >= {_moment('from_ms')}")
        values["from_ms"] = _clamped(search.from_ms)
    if search.to_ms is not None:
        where.append(f"timestamp < {_moment('to_ms')}")
        values["to_ms"] = _clamped(search.to_ms)
    if search.after is not None:
        # The first condition alone would do; the second is what the primary key can use.
        after = _moment("after_ms")
        where.append(f"timestamp < {after} OR (timestamp = {after} AND id < {{after_id:String}})")
        where.append(f"timestamp <= {after}")
        values |= {"after_ms": search.after.timestamp_ms, "after_id": search.after.id}
    text = (
        f"SELECT {', '.join(ITEM_COLUMNS)} {tenant.rows_of(TOOL_EXECUTIONS, where)}"
        f" ORDER BY timestamp DESC, id DESC LIMIT {search.limit + 1:d}"
    )
    return Statement(tenant=tenant, text=text, values=values)


def detail_statement(tenant: Tenant, log_id: str) -> Statement:
    """Return the statement of one log: at most one row of `DETAIL_COLUMNS`; of several with the id, the first accepted."""
    text = (
        f"SELECT {', '.join(DETAIL_COLUMNS)} {tenant.rows_of(TOOL_EXECUTIONS, [f'{OWN_ID} IN {{id:Array(String)}}'])}"
        " ORDER BY accepted_at, timestamp LIMIT 1"
    )
    return Statement(tenant=tenant, text=text, values={"id": OwnValues((log_id,))})


def _moment(name: str) -> str:
    return f"fromUnixTimestamp64Milli({{{name}:Int64}}, 'UTC')"


def _clamped(at_ms: int) -> int:
    return min(max(at_ms, RANGE_MS_MIN), RANGE_MS_MAX)
