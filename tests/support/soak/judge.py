"""What ClickHouse holds, compared with the producers' own truth by counting one by one."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ingest.contract import tables
from tests.support.soak.truth import Event, Lane, Rubbish

Query = Callable[[str], Any]
_SHOWN: Final = 20


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What was found: lost and doubled ids with the moment they were acknowledged, and every other difference as a line."""

    events: int = 0
    unacknowledged: int = 0
    lost: dict[str, float] = field(default_factory=dict)
    doubled: dict[str, float] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.differences)

    def lines(self) -> list[str]:
        """Return all of it for people."""
        return [
            *(f"lost: {each}, acknowledged at {moment_s:.1f} s" for each, moment_s in list(self.lost.items())[:_SHOWN]),
            *(f"doubled: {each}, acknowledged at {moment_s:.1f} s" for each, moment_s in list(self.doubled.items())[:_SHOWN]),
            *self.differences[:_SHOWN],
        ]


def judge(query: Query, lanes: Sequence[Lane], rubbish: Rubbish) -> Verdict:
    """Compare a settled pipeline with what its producers know.

    Each acknowledged id is there exactly once and as it was sent, the others at most once, and nothing else is. Rows alone do
    not show it, for a merge of `tool_executions` takes a doubled row away: what receipts and every kind of usage row have
    summed up must be the number of ids as well.
    """
    verdict = Verdict()
    there = _rows(query, verdict)
    events = list(_expected(lanes, there, verdict))
    verdict.events = len(events)
    _sums(query, verdict, events)
    _usage(query, verdict, events)
    _sessions(query, verdict, events)
    _rubbish(query, verdict, rubbish)
    return verdict


_MEMBERS: Final = ("project_id", "tool_slug", "status", "user_id", "session_id", "timestamp", "duration_ms")


def _rows(query: Query, verdict: Verdict) -> dict[str, tuple[Any, ...]]:
    """Return id -> members of each row."""
    rows = query(
        "SELECT id, project_id, tool_slug, status, user_id, session_id, toUnixTimestamp64Milli(timestamp), duration_ms"
        f" FROM {tables.TOOL_EXECUTIONS}"
    )
    there = {row[0]: tuple(row[1:]) for row in rows}
    for each, count in Counter(row[0] for row in rows).items():
        if count > 1:
            verdict.doubled[each] = 0.0
    return there


def _expected(lanes: Iterable[Lane], there: dict[str, tuple[Any, ...]], verdict: Verdict) -> Iterable[Event]:
    """Go through what was sent; yield the events that are there, as they were sent."""
    left = set(there)
    for lane in lanes:
        for block, moment_s in lane.blocks():
            for event in block.events:
                row = there.get(event["id"])
                left.discard(event["id"])
                verdict.unacknowledged += moment_s is None
                if event["id"] in verdict.doubled:
                    verdict.doubled[event["id"]] = moment_s or 0.0
                if row is None:
                    if moment_s is not None:
                        verdict.lost[event["id"]] = moment_s
                    continue
                full = {"user_id": "", "session_id": "", **event, "project_id": block.project}
                if row != tuple(full[name] for name in _MEMBERS):
                    verdict.differences.append(f"{event['id']} is {row}, sent was {full}")
                yield full
    verdict.differences += [f"{each} is there, and nobody sent it" for each in sorted(left)[:_SHOWN]]


def _sums(query: Query, verdict: Verdict, events: Sequence[Event]) -> None:
    """Receipts and each kind of usage row have counted every id once."""
    with_session = sum(bool(event["session_id"]) for event in events)
    for what, column, where, wanted in (
        ("accepted in receipts", "accepted", f"kind = '{tables.KIND_RECEIPT}'", len(events)),
        ("accepted in receipts by project", "accepted", f"kind = '{tables.KIND_PROJECT_RECEIPT}'", len(events)),
        ("calls by tool", "calls", f"kind = '{tables.KIND_TOOL_MINUTE}'", len(events)),
        ("calls by tool and hour", "calls", f"kind = '{tables.KIND_TOOL_HOUR}'", len(events)),
        ("calls by tool and day", "calls", f"kind = '{tables.KIND_TOOL_DAY}'", len(events)),
        ("calls by user", "calls", f"kind = '{tables.KIND_USER_HOUR}'", len(events)),
        ("calls by session", "calls", f"kind = '{tables.KIND_SESSION_HOUR}'", with_session),
    ):
        found = query(f"SELECT sum({column}) FROM {tables.USAGE_WINDOWS} WHERE {where}")[0][0]
        if found != wanted:
            verdict.differences.append(f"{found} {what}, {wanted} ids")


def _usage(query: Query, verdict: Verdict, events: Sequence[Event]) -> None:
    """Calls by project, window, tool, status and user are a plain count."""
    for kind, length_ms, keys in (
        (tables.KIND_TOOL_MINUTE, 60_000, ("tool_slug", "status")),
        (tables.KIND_TOOL_HOUR, 3_600_000, ("tool_slug", "status")),
        (tables.KIND_TOOL_DAY, 86_400_000, ("tool_slug", "status")),
        (tables.KIND_USER_HOUR, 3_600_000, ("tool_slug", "status", "user_id")),
        (tables.KIND_SESSION_HOUR, 3_600_000, ("tool_slug", "status", "user_id", "session_id")),
    ):
        rows = query(
            f"SELECT project_id, toUnixTimestamp(window_start), {', '.join(keys)}, sum(calls) FROM {tables.USAGE_WINDOWS}"
            f" WHERE kind = '{kind}' GROUP BY ALL"
        )
        counted = Counter(
            (event["project_id"], (event["timestamp"] - event["timestamp"] % length_ms) // 1000, *(event[key] for key in keys))
            for event in events
            if kind != tables.KIND_SESSION_HOUR or event["session_id"]
        )
        _differ(verdict, f"calls in {kind}", {tuple(row[:-1]): row[-1] for row in rows}, counted)


def _sessions(query: Query, verdict: Verdict, events: Iterable[Event]) -> None:
    """Each session belongs to its first call."""
    first: dict[tuple[str, str], tuple[int, str]] = {}
    for event in events:
        if event["session_id"]:
            session, call = (event["project_id"], event["session_id"]), (event["timestamp"], event["id"])
            first[session] = min(call, first.get(session, call))
    rows = query(
        f"SELECT project_id, session_id, min(first_call) FROM {tables.USAGE_WINDOWS}"
        f" WHERE kind = '{tables.KIND_SESSION_HOUR}' GROUP BY 1, 2"
    )
    _differ(verdict, "first calls of sessions", {(project, session): tuple(call) for project, session, call in rows}, first)


def _rubbish(query: Query, verdict: Verdict, rubbish: Rubbish) -> None:
    """What was no event is a dead letter, and nothing else is."""
    rows = query(f"SELECT extract(payload, 'rubbish-[a-z0-9]+-[0-9]+') FROM {tables.DEAD_LETTERS}")
    found = {row[0] for row in rows}
    for what, missing in (
        ("no dead letter", rubbish.acknowledged - found),
        ("a dead letter that nobody sent", found - rubbish.sent),
    ):
        verdict.differences += [f"{what}: {marker!r}" for marker in sorted(missing)]


def _differ(verdict: Verdict, what: str, found: dict[Any, Any], wanted: dict[Any, Any]) -> None:
    if found != wanted:
        keys = [key for key in sorted(found.keys() | wanted.keys()) if found.get(key) != wanted.get(key)]
        verdict.differences += [f"{what} {key}: {found.get(key)}, by count {wanted.get(key)}" for key in keys[:_SHOWN]]
