"""The outcome of a check, left in ClickHouse, where each project finds its own part of it."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from deploy.verify.report import Finding, Report, Totals
from ingest.contract import store
from ingest.contract.tables import VERIFICATIONS
from query_api import verification

# Of a project, and of the whole ledger: enough to see what is wrong; the command itself says all.
FINDINGS_MAX: Final = 20
_TEXT_CHARS: Final = 1_000
COLUMNS: Final = ("project_id", "verified_at", "proved", *verification.COLUMNS, "findings", "findings_count", "kafka_partition")
_TIMEOUT_S: Final = 60.0
Row = list[Any]


def keep(clickhouse: str, report: Report, *, now_ms: int) -> None:
    """Write the outcome in the place of the last one.

    Raises:
        StoreUnavailable: ClickHouse is away, or refuses to write.
    """
    with store.told(clickhouse), contextlib.closing(store.client(clickhouse, read_timeout_s=_TIMEOUT_S)) as client:
        client.insert(VERIFICATIONS, list(rows_of(report, now_ms=now_ms)), column_names=list(COLUMNS))


def rows_of(report: Report, *, now_ms: int) -> Iterator[Row]:
    """Return a row for each project, and the ledger's under ''; each has its own findings, so none tells of another. Pure."""
    found: dict[str, list[Finding]] = {}
    for finding in report.findings:
        found.setdefault(finding.project_id or "", []).append(finding)
    yield _row("", report, found.get("", ()), now_ms=now_ms, proved=report.proved)
    for project in report.projects:
        # '' are dead letters that do not say whose they are; the ledger's row stands there.
        if project.project_id:
            own = found.get(project.project_id, ())
            yield _row(project.project_id, project, own, now_ms=now_ms, proved=not own)


def _row(project_id: str, totals: Totals, findings: Sequence[Finding], *, now_ms: int, proved: bool) -> Row:
    told = [{"kind": each.kind, "text": each.text[:_TEXT_CHARS], "action": each.action} for each in findings[:FINDINGS_MAX]]
    counts = (getattr(totals, name) for name in verification.COUNTS)
    at = datetime.fromtimestamp(now_ms / 1000, tz=UTC)
    return [project_id, at, proved, *counts, json.dumps(told), len(findings), 0]
