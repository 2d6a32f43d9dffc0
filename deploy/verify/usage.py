"""Logs = usage in each project: of each hour and status as many rows as calls, in every kind of usage row, of the same tools,
users, sessions and durations.

That they are the same is told by fingerprints: the sum of a hash of each call's keys, modulo 2^64. It does not depend on order
or on what was merged, and it needs no more room than a count does.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from deploy.verify.presence import Proved, presence
from deploy.verify.purged import Purged
from deploy.verify.report import Finding, ProjectTotals, finding
from deploy.verify.store import Store
from ingest.contract import tables
from ingest.contract.sketch import LN_GAMMA, TINY_MS, ZERO_BUCKET

# Kind of usage row -> which rows of `tool_executions` it sums up.
_KINDS: Final = {
    tables.KIND_TOOL_MINUTE: "1",
    tables.KIND_TOOL_HOUR: "1",
    tables.KIND_TOOL_DAY: "1",
    tables.KIND_USER_HOUR: "1",
    tables.KIND_SESSION_HOUR: "session_id != ''",
    tables.KIND_CORRECTION: "late_at_ms != 0",
}


def _keys(*, user: bool = True, session: bool = True, minute: str = "0", moment: str = "0") -> str:
    """SQL: a hash of what a call is counted by beside project, hour and status. What a kind does not tell is empty in it."""
    by_tool = "cityHash64(tool_slug, toolkit_slug, failure_class)"
    by_user = f"cityHash64({by_tool}, {'user_id, connected_account_id' if user else repr('') + ', ' + repr('')})"
    return f"cityHash64({by_user}, {'session_id' if session else repr('')}, toUInt64({minute}), toUInt64({moment}))"


# Of a usage row of any kind, and of a row of `tool_executions` as each kind counts it.
_KEYS_OF_USAGE: Final = _keys(minute="toMinute(window_start)", moment="newest_record_ms")
_KEYS_OF_ROWS: Final = {
    tables.KIND_TOOL_MINUTE: _keys(user=False, session=False, minute="toMinute(timestamp)"),
    tables.KIND_TOOL_HOUR: _keys(user=False, session=False),
    tables.KIND_TOOL_DAY: _keys(user=False, session=False),
    tables.KIND_USER_HOUR: _keys(session=False),
    tables.KIND_SESSION_HOUR: _keys(),
    tables.KIND_CORRECTION: _keys(moment="late_at_ms"),
}
_TELLS: Final = {
    tables.KIND_TOOL_MINUTE: "minutes, tools or failure classes",
    tables.KIND_TOOL_HOUR: "tools or failure classes",
    tables.KIND_TOOL_DAY: "tools or failure classes",
    tables.KIND_USER_HOUR: "tools, failure classes or users",
    tables.KIND_SESSION_HOUR: "tools, failure classes, users or sessions",
    tables.KIND_CORRECTION: "tools, failure classes, users, sessions or moments",
}
# The bucket of a duration, as the worker finds it; `greatest` keeps the logarithm of zero from being taken.
_PLACE: Final = f"(log(greatest(duration_ms, {TINY_MS!r})) / {LN_GAMMA!r})"
_BUCKET: Final = f"if(duration_ms < {TINY_MS!r}, toInt16({ZERO_BUCKET}), toInt16(ceil({_PLACE})))"
# Two libraries may round a logarithm differently, so durations are not judged where one lies at the edge of its bucket. 1 ms
# lies at an edge, but its logarithm is 0 to everybody.
_AT_AN_EDGE: Final = f"duration_ms != 1 AND abs({_PLACE} - round({_PLACE})) < 1e-8"
_COUNTS: Final = ("events", "accepted", "duplicates", "conflicts", "dead_letters", "forwarded")
# A worker that fills a hole has rows below the last receipt that no receipt proves yet; such a difference passes.
_LOOKS: Final = 3
_PAUSE_S: Final = 0.5

_DAY_S: Final = 24 * 3600

# Small projects are asked about together: so many at most, of so many calls in all unless one alone has more.
_TOGETHER_MAX: Final = 200
_TOGETHER_CALLS_MAX: Final = 1_000_000

Hour = tuple[str, int, str]  # (project; start, epoch s; status); of a kind with windows of a day the hour it starts


class _Tally(NamedTuple):
    """What one side says of an hour: calls, the fingerprint of their keys, that of their durations, and those at an edge."""

    calls: int = 0
    keys: int = 0
    durations: int = 0
    at_an_edge: int = 0

    def plus(self, other: "_Tally") -> "_Tally":
        return _Tally(*((one + more) % 2**64 for one, more in zip(self, other, strict=True)))


_NONE: Final = _Tally()


class ProjectUsage:
    """Asks `usage_windows` once for some projects, which sees each batch whole or not, then counts just those batches' rows."""

    def __init__(self, store: Store, purged: Purged) -> None:
        self._store = store
        self._purged = purged

    def projects(self) -> list[list[str]]:
        """List all projects that receipts name, those together that are asked about at once.

        '' is of dead letters that do not say whose they are.
        """
        rows = self._store.rows(
            f"SELECT project_id, sum(accepted) FROM {tables.USAGE_WINDOWS} WHERE kind != '{tables.KIND_RECEIPT}'"
            " GROUP BY project_id ORDER BY project_id"
        )
        together: list[list[str]] = []
        calls = 0
        for project, accepted in rows:
            if not together or len(together[-1]) == _TOGETHER_MAX or calls + accepted > _TOGETHER_CALLS_MAX:
                together.append([])
                calls = 0
            together[-1].append(project)
            calls += accepted
        return together

    def check(self, projects: Sequence[str]) -> tuple[list[ProjectTotals], list[Finding]]:
        """Compare projects' rows and sums; a difference counts if it stays."""
        for look in range(_LOOKS):
            totals, findings, proved = self._look(projects)
            if not findings:
                break
            if look < _LOOKS - 1:
                # Nothing tells when a worker has filled a hole; it takes a batch.
                time.sleep(_PAUSE_S)
        return totals, [*findings, *presence(self._store, projects, proved, self._purged)]

    def _look(self, projects: Sequence[str]) -> tuple[list[ProjectTotals], list[Finding], Proved]:
        receipts: dict[str, Counter[str]] = {project: Counter() for project in projects}
        # One question saw each batch of all of them whole or not at all, so its end is that of each.
        proved: dict[tuple[str, int], int] = {}
        calls: dict[str, dict[Hour, _Tally]] = {kind: {} for kind in _KINDS}
        for project, kind, incarnation, partition, hour, status, tally, next_offset, *counts in self._sums(projects):
            if kind == tables.KIND_PROJECT_RECEIPT:
                proved[incarnation, partition] = max(next_offset, proved.get((incarnation, partition), 0))
                receipts[project].update(dict(zip(_COUNTS, counts, strict=True)))
            else:
                calls[kind][project, hour, status] = _Tally(*tally)
        rows: dict[str, dict[Hour, _Tally]] = {kind: {} for kind in _KINDS}
        for project, hour, status, at_an_edge, *of_kinds in self._rows(projects, proved):
            for kind, (count, keys, durations) in zip(_KINDS, of_kinds, strict=True):
                key = project, hour - hour % _DAY_S if kind == tables.KIND_TOOL_DAY else hour, status
                rows[kind][key] = rows[kind].get(key, _NONE).plus(_Tally(count, keys, durations, at_an_edge))
        findings = [each for kind in _KINDS for each in _differences(kind, calls[kind], rows[kind])]
        logs, counted = (_by_project(of[tables.KIND_TOOL_MINUTE]) for of in (rows, calls))
        totals = [
            ProjectTotals(
                project_id=project,
                rows=logs[project],
                calls=counted[project],
                purged=self._purged.calls.get(project, 0),
                **{name: receipts[project][name] for name in _COUNTS},
            )
            for project in projects
        ]
        findings += self._taken(totals)
        return totals, findings, proved

    def _taken(self, totals: Sequence[ProjectTotals]) -> Iterator[Finding]:
        """What is missing of a project is what its retention took, no more and no less."""
        for one in totals:
            if one.project_id in self._purged.since:
                for count, kind, what in ((one.rows, "missing_rows", "logs"), (one.calls, "usage_differs", "calls in usage")):
                    if one.accepted != count + one.purged:
                        yield finding(
                            kind,
                            f"project {one.project_id!r}: {one.accepted} accepted, but {count} {what} and {one.purged} past"
                            " their retention",
                            None,
                            one.project_id,
                        )

    def _sums(self, projects: Sequence[str]) -> Any:
        receipt = f"kind = '{tables.KIND_PROJECT_RECEIPT}'"
        counts = ", ".join(f"sum({name})" for name in _COUNTS)
        sketches = (
            f"arraySum((bucket, n) -> n * cityHash64({_KEYS_OF_USAGE}, bucket), mapKeys(durations), mapValues(durations))"
        )
        return self._store.rows(
            f"SELECT project_id, kind, if({receipt}, incarnation, '') AS i, if({receipt}, kafka_partition, 0) AS p,"
            f" if({receipt}, 0, toUnixTimestamp(toStartOfHour(window_start))) AS hour, status,"
            f" (sum(calls), sum(calls * {_KEYS_OF_USAGE}), sum({sketches})), max(next_offset), {counts}"
            f" FROM {tables.USAGE_WINDOWS} WHERE project_id IN {{projects:Array(String)}}"
            f" AND (kind = '{tables.KIND_PROJECT_RECEIPT}'"
            f" OR kind IN ({', '.join(map(repr, _KINDS))}){self._purged.kept('window_start')})"
            " GROUP BY project_id, kind, i, p, hour, status",
            projects=list(projects),
            **self._purged.parameters,
        )

    def _rows(self, projects: Sequence[str], proved: Proved) -> Any:
        within = " OR ".join(
            f"(incarnation = '{incarnation}' AND kafka_partition = {partition} AND first_offset < {end})"
            for (incarnation, partition), end in proved.items()
        )
        counts = ", ".join(
            f"(countIf({only}), sumIf({_KEYS_OF_ROWS[kind]}, {only}), {_durations(kind, only)})"
            for kind, only in _KINDS.items()
        )
        return self._store.rows(
            f"SELECT project_id, toUnixTimestamp(toStartOfHour(timestamp)) AS hour, status, countIf({_AT_AN_EDGE}), {counts}"
            f" FROM {tables.TOOL_EXECUTIONS} WHERE project_id IN {{projects:Array(String)}} AND ({within or '0'})"
            f"{self._purged.kept('timestamp')} GROUP BY project_id, hour, status",
            projects=list(projects),
            **self._purged.parameters,
        )


def _durations(kind: str, only: str) -> str:
    if kind == tables.KIND_CORRECTION:
        return "toUInt64(0)"  # which holds no sketch
    return f"sumIf(cityHash64({_KEYS_OF_ROWS[kind]}, {_BUCKET}), {only})"


def _by_project(tallies: dict[Hour, _Tally]) -> Counter[str]:
    made: Counter[str] = Counter()
    for (project, _, _), tally in tallies.items():
        made[project] += tally.calls
    return made


def _differences(kind: str, calls: dict[Hour, _Tally], rows: dict[Hour, _Tally]) -> Iterator[Finding]:
    for project_id, hour, status in sorted(calls.keys() | rows.keys()):
        key = project_id, hour, status
        logs, counted = rows.get(key, _NONE), calls.get(key, _NONE)
        if (how := _difference(kind, logs, counted)) is not None:
            at = f"{datetime.fromtimestamp(hour, tz=UTC):%Y-%m-%dT%H:00Z}"
            yield finding(
                "usage_differs",
                f"project {project_id!r}, hour {at}, {status}: {logs.calls} logs, {counted.calls} calls in {kind}{how}",
                None,
                project_id,
            )


def _difference(kind: str, logs: _Tally, counted: _Tally) -> str | None:
    """Tell how two sides differ beyond their counts; None where they do not differ at all."""
    if logs.calls != counted.calls:
        return ""
    if logs.keys != counted.keys:
        return f", of other {_TELLS[kind]}"
    if logs.durations != counted.durations and not logs.at_an_edge:
        return ", of other durations"
    return None
