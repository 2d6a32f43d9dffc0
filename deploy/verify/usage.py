"""Logs = usage in each project: of each hour and status as many rows as calls, in every kind of usage row."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from deploy.verify.presence import Proved, presence
from deploy.verify.report import Finding, ProjectTotals, finding
from deploy.verify.store import Store
from ingest.contract import tables

# Kind of usage row -> which rows of `tool_executions` it sums up.
_KINDS: Final = {
    tables.KIND_TOOL_MINUTE: "1",
    tables.KIND_TOOL_HOUR: "1",
    tables.KIND_TOOL_DAY: "1",
    tables.KIND_USER_HOUR: "1",
    tables.KIND_SESSION_HOUR: "session_id != ''",
    tables.KIND_CORRECTION: "late_at_ms != 0",
}
_COUNTS: Final = ("events", "accepted", "duplicates", "conflicts", "dead_letters", "forwarded")
# A worker that fills a hole has rows below the last receipt that no receipt proves yet; such a difference passes.
_LOOKS: Final = 3
_PAUSE_S: Final = 0.5

_DAY_S: Final = 24 * 3600

# Small projects are asked about together: so many at most, of so many calls in all unless one alone has more.
_TOGETHER_MAX: Final = 200
_TOGETHER_CALLS_MAX: Final = 1_000_000

Hour = tuple[str, int, str]  # (project; start, epoch s; status); of a kind with windows of a day the hour it starts


class ProjectUsage:
    """Asks `usage_windows` once for some projects, which sees each batch whole or not, then counts just those batches' rows."""

    def __init__(self, store: Store) -> None:
        self._store = store

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
        return totals, [*findings, *presence(self._store, projects, proved)]

    def _look(self, projects: Sequence[str]) -> tuple[list[ProjectTotals], list[Finding], Proved]:
        receipts: dict[str, Counter[str]] = {project: Counter() for project in projects}
        # One question saw each batch of all of them whole or not at all, so its end is that of each.
        proved: dict[tuple[str, int], int] = {}
        calls: dict[str, dict[Hour, int]] = {kind: {} for kind in _KINDS}
        for project, kind, incarnation, partition, hour, status, count, next_offset, *counts in self._sums(projects):
            if kind == tables.KIND_PROJECT_RECEIPT:
                proved[incarnation, partition] = max(next_offset, proved.get((incarnation, partition), 0))
                receipts[project].update(dict(zip(_COUNTS, counts, strict=True)))
            else:
                calls[kind][project, hour, status] = count
        rows: dict[str, dict[Hour, int]] = {kind: {} for kind in _KINDS}
        for project, hour, status, *of_kinds in self._rows(projects, proved):
            for kind, count in zip(_KINDS, of_kinds, strict=True):
                key = project, hour - hour % _DAY_S if kind == tables.KIND_TOOL_DAY else hour, status
                rows[kind][key] = rows[kind].get(key, 0) + count
        findings = [each for kind in _KINDS for each in _differences(kind, calls[kind], rows[kind])]
        logs, counted = (_by_project(of[tables.KIND_TOOL_MINUTE]) for of in (rows, calls))
        totals = [
            ProjectTotals(
                project_id=project,
                rows=logs[project],
                calls=counted[project],
                **{name: receipts[project][name] for name in _COUNTS},
            )
            for project in projects
        ]
        return totals, findings, proved

    def _sums(self, projects: Sequence[str]) -> Any:
        receipt = f"kind = '{tables.KIND_PROJECT_RECEIPT}'"
        sums = ", ".join(f"sum({name})" for name in _COUNTS)
        return self._store.rows(
            f"SELECT project_id, kind, if({receipt}, incarnation, '') AS i, if({receipt}, kafka_partition, 0) AS p,"
            f" if({receipt}, 0, toUnixTimestamp(toStartOfHour(window_start))) AS hour, status, sum(calls), max(next_offset),"
            f" {sums} FROM {tables.USAGE_WINDOWS} WHERE project_id IN {{projects:Array(String)}}"
            f" AND kind IN ({', '.join(repr(kind) for kind in (*_KINDS, tables.KIND_PROJECT_RECEIPT))})"
            " GROUP BY project_id, kind, i, p, hour, status",
            projects=list(projects),
        )

    def _rows(self, projects: Sequence[str], proved: Proved) -> Any:
        within = " OR ".join(
            f"(incarnation = '{incarnation}' AND kafka_partition = {partition} AND first_offset < {end})"
            for (incarnation, partition), end in proved.items()
        )
        counts = ", ".join(f"countIf({only})" for only in _KINDS.values())
        return self._store.rows(
            f"SELECT project_id, toUnixTimestamp(toStartOfHour(timestamp)) AS hour, status, {counts}"
            f" FROM {tables.TOOL_EXECUTIONS} WHERE project_id IN {{projects:Array(String)}} AND ({within or '0'})"
            " GROUP BY project_id, hour, status",
            projects=list(projects),
        )


def _by_project(counts: dict[Hour, int]) -> Counter[str]:
    made: Counter[str] = Counter()
    for (project, _, _), count in counts.items():
        made[project] += count
    return made


def _differences(kind: str, calls: dict[Hour, int], rows: dict[Hour, int]) -> Iterator[Finding]:
    for project_id, hour, status in sorted(calls.keys() | rows.keys()):
        key = project_id, hour, status
        logs, counted = rows.get(key, 0), calls.get(key, 0)
        if logs != counted:
            at = f"{datetime.fromtimestamp(hour, tz=UTC):%Y-%m-%dT%H:00Z}"
            yield finding(
                "usage_differs",
                f"project {project_id!r}, hour {at}, {status}: {logs} logs, {counted} calls in {kind}",
                None,
                project_id,
            )
