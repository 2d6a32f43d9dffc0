"""Random requests for each operation of the query service: names of one's own, of others and of nobody, right and wrong."""

from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from hypothesis import strategies as st

from query_api.filters import FIELDS, OPERATORS
from query_api.internal_items import FIELDS as INTERNAL_FIELDS
from query_api.internal_items import OPERATIONS as INTERNAL_OPERATIONS
from tests.support import worlds

_EVENTS: Final = worlds.events()
_GROUPS: Final = ("tool_slug", "toolkit_slug", "user_id", "session_id", "status", "failure_class")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request.

    Args:
        path: encoded.
        cursor: which of the cursors that were given to anybody it carries, by number; None: none.
        told_in_body: whether a cursor goes into the body, else into the query string.
    """

    path: str
    body: Any = None
    parameters: tuple[tuple[str, str], ...] = field(default=())
    cursor: int | None = None


def _pool(*names: str) -> st.SearchStrategy[str]:
    """Values of some columns, of whatever project; what nobody has; and parts of what others have."""
    known = sorted({event.get(name, "") for event in _EVENTS for name in names})
    marks = [*worlds.MARKERS.values(), *(mark.lower()[3:8] for mark in worlds.MARKERS.values())]
    return st.sampled_from([*known, *marks, "", "nobody", "%", "_", "'", "proj_b"])


log_ids: Final = st.sampled_from(
    [
        *sorted({event["id"] for event in _EVENTS}),
        "log_nowhere",
        "log_1/..",
        "log_%",
        "%00",
        "MARKERBBB",
        *worlds.letter_ids()[:3],
    ]
)
_letter_ids: Final = st.sampled_from(
    [*worlds.letter_ids(), f"{worlds.INCARNATION}-0-99-0", f"{2:032x}-0-1-0", "log_1", f"{worlds.INCARNATION}-1-1-0"]
)
_instants: Final = st.sampled_from(
    [0, worlds.T0, worlds.END_MS, worlds.COMPLETE_MS, *(event["timestamp"] + step for event in _EVENTS[::9] for step in (0, 1))]
)
_ranges: Final = st.tuples(_instants, _instants).map(lambda pair: {"from": min(pair), "to": max(pair)})
_cursors: Final = st.none() | st.integers(0, 10_000)
_projects: Final = st.lists(st.sampled_from([*worlds.PROJECTS, "proj_nowhere", ""]), max_size=3)


def _maybe(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=members)


def _filters(fields: tuple[str, ...], operators: tuple[str, ...], operator: str) -> st.SearchStrategy[list[dict[str, str]]]:
    columns = {"log_id": "id", "text": "message"}
    one = st.sampled_from(fields).flatmap(
        lambda name: st.fixed_dictionaries(
            {
                "field": st.just(name),
                operator: st.sampled_from(operators),
                "value": _pool(columns.get(name, name), "id", "user_id", "error_message", "trace_id"),
            }
        )
    )
    return st.lists(one, max_size=3)


_limits: Final = st.sampled_from([1, 2, 5, 100])
_search: Final = _maybe(limit=_limits, filters=_filters(FIELDS, OPERATORS, "operator"), time_range=_ranges)
_listing: Final = st.tuples(
    _maybe(
        limit=_limits,
        case_sensitive=st.booleans(),
        search_params=_filters(tuple(INTERNAL_FIELDS), tuple(INTERNAL_OPERATIONS), "operation"),
    ),
    st.just({}) | _ranges,
).map(lambda parts: parts[0] | parts[1])
_usage_filters: Final = _maybe(
    user_id=st.lists(_pool("user_id"), max_size=3), session_id=st.lists(_pool("session_id"), max_size=3), project_id=_projects
)
_summary: Final = st.tuples(
    _ranges, _maybe(filters=_usage_filters, entity_types=st.just(["tool_calls"]) | st.just(["sessions"]))
).map(lambda parts: parts[0] | parts[1])
_breakdown: Final = st.tuples(
    _ranges,
    _maybe(
        filters=_usage_filters,
        limit=_limits,
        group_by=st.sampled_from([*_GROUPS, "connected_account_id", "project_id"]),
        order_by=st.sampled_from(["key", "total_quantity", "event_count"]),
        order_direction=st.sampled_from(["asc", "desc"]),
    ),
).map(lambda parts: parts[0] | parts[1])
_entities: Final = st.sampled_from(["tool_calls", "sessions", "tool", "toolkit", "user", "session", "nonsense", "MARKERBBB"])


def _parameters(
    *, single: dict[str, st.SearchStrategy[Any]], ranged: bool = True
) -> st.SearchStrategy[tuple[tuple[str, str], ...]]:
    """Parameters of our own routes; the range is always told, because without one it would depend on the clock."""
    filters = st.lists(st.sampled_from(_GROUPS).flatmap(lambda name: st.tuples(st.just(name), _pool(name))), max_size=3)
    return st.tuples(_ranges if ranged else st.just({}), _maybe(**single), filters).map(
        lambda parts: (*((name, str(value)) for name, value in (parts[0] | parts[1]).items()), *parts[2])
    )


def _posted(path: str, body: st.SearchStrategy[Any], *, paged: bool = False) -> st.SearchStrategy[Question]:
    return st.builds(Question, path=st.just(path), body=body, cursor=_cursors if paged else st.none())


def _got(
    path: str, parameters: st.SearchStrategy[tuple[tuple[str, str], ...]], *, paged: bool = False
) -> st.SearchStrategy[Question]:
    return st.builds(Question, path=st.just(path), parameters=parameters, cursor=_cursors if paged else st.none())


def _by_id(path: str, ids: st.SearchStrategy[str], **more: Any) -> st.SearchStrategy[Question]:
    return st.builds(Question, path=ids.map(lambda one: path.format(id=quote(one, safe=""))), **more)


_grouped: Final = st.lists(st.sampled_from(_GROUPS), min_size=1, max_size=2, unique=True).map(",".join)
_usage: Final = _parameters(
    single={
        "group_by": _grouped,
        "interval": st.sampled_from(["hour", "day"]),
        "timezone": st.sampled_from(["UTC", "Asia/Kolkata"]),
        "limit": _limits,
        "metrics": st.sampled_from(["calls", "p95_ms,sessions", "active_users,error_rate"]),
        "order_by": st.sampled_from(["calls", "key", "p95_ms", "sessions", "active_users"]),
    }
)
_corrections: Final = _parameters(single={"group_by": _grouped, "limit": _limits, "window_from": _instants})
_letters: Final = st.tuples(
    _maybe(limit=_limits, reason=st.sampled_from(["invalid_json", "missing_member", "MARKERBBB"])), st.just({}) | _ranges
).map(lambda parts: tuple((name, str(value)) for name, value in (parts[0] | parts[1]).items()))
_mended: Final = st.sampled_from([None, {}, {"tool_slug": "T", "status": "success", "duration_ms": 1}, [1]])

_chosen: Final = st.lists(
    st.tuples(
        st.sampled_from(FIELDS), st.sampled_from(OPERATORS), _pool("user_id", "session_id", "tool_slug", "message", "id")
    ).map(lambda one: ("filter", ":".join(one))),
    max_size=2,
)
_export: Final = st.tuples(
    _maybe(format=st.sampled_from(["ndjson", "csv", "parquet"]), data=st.sampled_from(["true", "false"])),
    st.just({}) | _ranges,
    _chosen,
).map(lambda parts: (*((name, str(value)) for name, value in (parts[0] | parts[1]).items()), *parts[2]))
# A tail ends where it has a limit and finds as many: so every project has to have them.
_tail: Final = st.tuples(st.sampled_from(["1", "2", "3"]), st.sampled_from([(), (("status", "failed"),)])).map(
    lambda parts: (("from", str(worlds.T0)), ("limit", parts[0]), *parts[1])
)
TAIL: Final = "/v1/logs/stream"

_V31: Final = "/api/v3.1"
# By method and path of the service's own table of operations.
QUESTIONS: Final[dict[tuple[str, str], st.SearchStrategy[Question]]] = {
    ("POST", f"{_V31}/logs/tool_execution"): _posted(f"{_V31}/logs/tool_execution", _search, paged=True),
    ("GET", f"{_V31}/logs/tool_execution/{{id:path}}"): _by_id(f"{_V31}/logs/tool_execution/{{id}}", log_ids),
    ("POST", f"{_V31}/project/usage/summary"): _posted(f"{_V31}/project/usage/summary", _summary),
    ("POST", f"{_V31}/project/usage/{{entity_type}}"): _by_id(f"{_V31}/project/usage/{{id}}", _entities, body=_breakdown),
    ("POST", f"{_V31}/org/usage/summary"): _posted(f"{_V31}/org/usage/summary", _summary),
    ("POST", f"{_V31}/org/usage/{{entity_type}}"): _by_id(f"{_V31}/org/usage/{{id}}", _entities, body=_breakdown),
    ("POST", f"{_V31}/internal/action_execution/logs"): _posted(f"{_V31}/internal/action_execution/logs", _listing, paged=True),
    ("GET", f"{_V31}/internal/action_execution/fields"): _got(f"{_V31}/internal/action_execution/fields", st.just(())),
    ("GET", f"{_V31}/internal/action_execution/log/{{id:path}}"): _by_id(
        f"{_V31}/internal/action_execution/log/{{id}}", log_ids
    ),
    ("POST", f"{_V31}/internal/trigger/logs"): _posted(f"{_V31}/internal/trigger/logs", _listing, paged=True),
    ("GET", f"{_V31}/internal/trigger/log/{{id:path}}"): _by_id(f"{_V31}/internal/trigger/log/{{id}}", log_ids),
    ("GET", "/v1/usage"): _got("/v1/usage", _usage),
    ("GET", "/v1/usage/corrections"): _got("/v1/usage/corrections", _corrections, paged=True),
    ("GET", "/v1/failures"): _got("/v1/failures", _parameters(single={"limit": _limits})),
    ("GET", "/v1/logs/export"): _got("/v1/logs/export", _export),
    ("GET", TAIL): _got(TAIL, _tail, paged=True),
    ("GET", "/v1/freshness"): _got("/v1/freshness", st.just(())),
    ("GET", "/v1/verification"): _got("/v1/verification", st.just(())),
    ("GET", "/v1/key"): _got("/v1/key", st.just(())),
    ("GET", "/v1/dead-letters"): _got("/v1/dead-letters", _letters, paged=True),
    ("GET", "/v1/dead-letters/{id}"): _by_id("/v1/dead-letters/{id}", _letter_ids),
    ("POST", "/v1/dead-letters/{id}/replay"): _by_id("/v1/dead-letters/{id}/replay", _letter_ids, body=_mended),
}
# Questions whose pages give cursors, for others to be tried with them.
PAGED: Final[tuple[tuple[str, Question], ...]] = (
    ("POST", Question(path=f"{_V31}/logs/tool_execution", body={"limit": 1})),
    ("POST", Question(path=f"{_V31}/logs/tool_execution", body={"limit": 2, "time_range": {"from": 0, "to": worlds.END_MS}})),
    ("POST", Question(path=f"{_V31}/internal/action_execution/logs", body={"limit": 1})),
    ("POST", Question(path=f"{_V31}/internal/action_execution/logs", body={"limit": 5})),
    ("GET", Question(path="/v1/usage/corrections", parameters=(("limit", "1"), ("group_by", "user_id")))),
    ("GET", Question(path="/v1/dead-letters", parameters=(("limit", "2"),))),
    ("GET", Question(path=TAIL, parameters=(("from", str(worlds.T0)), ("limit", "1")))),
)
