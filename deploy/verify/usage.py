"""Logs = usage, project by project: of each hour and status as many rows as calls, in every kind of usage row."""

import time
from collections import Counter
from collections.abc import Iterator
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

Hour = tuple[int, str]  # (start, epoch s; status); of a kind with windows of a day the hour it starts


class ProjectUsage:
    """Asks `usage_windows` once a project, which sees each batch whole or not, then counts the rows of just those batches."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def projects(self) -> list[str]:
        """List all projects that receipts name; '' is of dead letters that do not say whose they are."""
        rows = self._store.rows(
            f"SELECT DISTINCT project_id FROM {tables.USAGE_WINDOWS} WHERE kind != '{tables.KIND_RECEIPT}' ORDER BY 1"
        )
        return [project for (project,) in rows]

    def check(self, project_id: str) -> tuple[ProjectTotals, list[Finding]]:
        """Compare a project's rows and sums; a difference counts if it stays."""
        for look in range(_LOOKS):
            totals, findings, proved = self._look(project_id)
            if not findings:
                break
            if look < _LOOKS - 1:
                # Nothing tells when a worker has filled a hole; it takes a batch.
                time.sleep(_PAUSE_S)
        return totals, [*findings, *presence(self._store, project_id, proved)]

    def _look(self, project_id: str) -> tuple[ProjectTotals, list[Finding], Proved]:
        receipts: Counter[str] = Counter()
        proved: dict[tuple[str, int], int] = {}
        calls: dict[str, dict[Hour, int]] = {kind: {} for kind in _KINDS}
        for kind, incarnation, partition, hour, status, count, next_offset, *counts in self._sums(project_id):
            if kind == tables.KIND_PROJECT_RECEIPT:
                proved[incarnation, partition] = next_offset
                receipts.update(dict(zip(_COUNTS, counts, strict=True)))
            else:
                calls[kind][hour, status] = count
        rows: dict[str, dict[Hour, int]] = {kind: {} for kind in _KINDS}
        for hour, status, *of_kinds in self._rows(project_id, proved):
            for kind, count in zip(_KINDS, of_kinds, strict=True):
                start = hour - hour % _DAY_S if kind == tables.KIND_TOOL_DAY else hour
                rows[kind][start, status] = rows[kind].get((start, status), 0) + count
        findings = [each for kind in _KINDS for each in _differences(project_id, kind, calls[kind], rows[kind])]
        totals = ProjectTotals(
            project_id=project_id,
            rows=sum(rows[tables.KIND_TOOL_MINUTE].values()),
            calls=sum(calls[tables.KIND_TOOL_MINUTE].values()),
            **{name: receipts[name] for name in _COUNTS},
        )
        return totals, findings, proved

    def _sums(self, project_id: str) -> Any:
        receipt = f"kind = '{tables.KIND_PROJECT_RECEIPT}'"
        sums = ", ".join(f"sum({name})" for name in _COUNTS)
        return self._store.rows(
            f"SELECT kind, if({receipt}, incarnation, '') AS i, if({receipt}, kafka_partition, 0) AS p,"
            f" if({receipt}, 0, toUnixTimestamp(toStartOfHour(window_start))) AS hour, status, sum(calls), max(next_offset),"
            f" {sums} FROM {tables.USAGE_WINDOWS} WHERE project_id = {{project:String}}"
            f" AND kind IN ({', '.join(repr(kind) for kind in (*_KINDS, tables.KIND_PROJECT_RECEIPT))})"
            " GROUP BY kind, i, p, hour, status",
            project=project_id,
        )

    def _rows(self, project_id: str, proved: Proved) -> Any:
        within = " OR ".join(
            f"(incarnation = '{incarnation}' AND kafka_partition = {partition} AND first_offset < {end})"
            for (incarnation, partition), end in proved.items()
        )
        counts = ", ".join(f"countIf({only})" for only in _KINDS.values())
        return self._store.rows(
            f"SELECT toUnixTimestamp(toStartOfHour(timestamp)) AS hour, status, {counts}"
            f" FROM {tables.TOOL_EXECUTIONS} WHERE project_id = {{project:String}} AND ({within or '0'}) GROUP BY hour, status",
            project=project_id,
        )


def _differences(project_id: str, kind: str, calls: dict[Hour, int], rows: dict[Hour, int]) -> Iterator[Finding]:
    for hour, status in sorted(calls.keys() | rows.keys()):
        logs, counted = rows.get((hour, status), 0), calls.get((hour, status), 0)
        if logs != counted:
            at = f"{datetime.fromtimestamp(hour, tz=UTC):%Y-%m-%dT%H:00Z}"
            yield finding(
                "usage_differs",
                f"project {project_id!r}, hour {at}, {status}: {logs} logs, {counted} calls in {kind}",
                None,
                project_id,
            )
