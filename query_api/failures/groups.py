"""Groups of failures as a question, one SQL statement, and rows. Pure.

A group is (failure class, tool, pattern); the pattern is a column that ClickHouse fills when a failed row is written
(0009_failure_pattern.sql). The statement reads the failed rows of the range twice. First it counts them by a hash of their
group, which for a million groups takes the memory of a million numbers, and keeps the hashes of the largest. Then it works out
users, times and an example of these alone, and counts everything else as one group, so that shares and counts come from the
same rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ingest.contract.tables import OWN_FAILED_USER, TOOL_EXECUTIONS
from query_api.tenant import OwnValues, Statement, Tenant
from query_api.usage.sql import filter_conditions

_GROUP: Final = "cityHash64(failure_class, tool_slug, failure_pattern)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which failures.

    Args:
        from_ms, to_ms: `[from_ms, to_ms)`, epoch ms.
        filters: column -> values, any of which must hold; "" stands for absent.
        limit: most groups to answer; shares are of everything.
    """

    from_ms: int
    to_ms: int
    limit: int
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Failures of one tool that say the same.

    Args:
        message: what they say, values left out.
        share: of all failures asked for, 0 to 1.
        users: how many were hit; nobody is not a user.
        example_log_id: the newest one; of several in its millisecond the last id.
    """

    failure_class: str
    tool_slug: str
    message: str
    calls: int
    share: float
    users: int
    first_seen_ms: int
    last_seen_ms: int
    example_log_id: str


def statement(tenant: Tenant, question: Question) -> Statement:
    """Return the statement: at most `limit` groups and one row of all others, in any order.

    Columns: whether it is a group, failure class, tool, pattern, calls, users, first moment, last moment, id of the last.
    Of two groups with as many calls the one seen last is larger, and then a hash decides, so that the order is total.
    """
    conditions, values = filter_conditions(question.filters)
    moment = "fromUnixTimestamp64Milli({%s:Int64}, 'UTC')"
    users = question.filters.get("user_id", ("",))
    if "" not in users:
        # What follows from the other two, in the form that an index has.
        conditions.append(f"{OWN_FAILED_USER} IN {{users:Array(String)}}")
        values["users"] = OwnValues(tuple(users))
    conditions += ["status = 'failed'", f"timestamp >= {moment % 'from_ms'}", f"timestamp < {moment % 'to_ms'}"]
    values |= {"from_ms": question.from_ms, "to_ms": question.to_ms}
    rows = tenant.rows_of(TOOL_EXECUTIONS, conditions)
    largest = (
        f"SELECT {_GROUP} AS of {rows} GROUP BY of ORDER BY count() DESC, max(timestamp) DESC, of LIMIT {question.limit:d}"
    )
    keys = ", ".join(f"if(shown, toString({column}), '') AS {column}_" for column in ("failure_class", "tool_slug"))
    text = (
        f"SELECT {_GROUP} IN ({largest}) AS shown, {keys}, if(shown, failure_pattern, '') AS pattern,\n"
        "count() AS calls, uniqExactIf(user_id, shown AND user_id != '') AS users,\n"
        "toUnixTimestamp64Milli(min(timestamp)) AS first, max((toUnixTimestamp64Milli(timestamp), id)) AS newest,\n"
        f"max({_GROUP}) AS of\n"
        f"{rows}\nGROUP BY shown, failure_class_, tool_slug_, pattern"
    )
    return Statement(tenant=tenant, text=text, values=values)


def groups(found: Sequence[Sequence[Any]]) -> tuple[Group, ...]:
    """Read the rows of `statement`: groups in order, the largest first."""
    total = sum(row[4] for row in found)
    shown = [row for row in found if row[0]]
    shown.sort(key=lambda row: (-row[4], -row[7][0], row[8]))
    return tuple(
        Group(
            failure_class=failure_class,
            tool_slug=tool_slug,
            message=pattern,
            calls=calls,
            share=calls / total,
            users=users,
            first_seen_ms=first_ms,
            last_seen_ms=newest[0],
            example_log_id=newest[1],
        )
        for _, failure_class, tool_slug, pattern, calls, users, first_ms, newest, _ in shown
    )
