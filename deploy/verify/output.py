"""The command's output: a progress bar while it works, and what it found."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime

from deploy.verify.check import Tell, verify
from deploy.verify.kept import keep
from deploy.verify.report import Report
from ingest.contract.errors import StoreUnavailable


def main(kafka: str, clickhouse: str, *, as_json: bool = False) -> int:
    """Check, leave the outcome in ClickHouse, and say it on standard output; return 0 if all is proved, else 1.

    Raises:
        TransportError: Kafka or ClickHouse does not answer, so nothing is known.
    """
    with _bar(shown=sys.stderr.isatty() and not as_json) as tell:
        report = verify(kafka, clickhouse, progress=tell)
    try:
        keep(clickhouse, report, now_ms=time.time_ns() // 1_000_000)
    except StoreUnavailable as error:
        # What was found is found, whoever may not write it down.
        print(f"toolledger: the page will not show this outcome: {error}", file=sys.stderr)
    if as_json:
        print(json.dumps({"proved": report.proved, **asdict(report)}))
    else:
        print("\n".join(_lines(report)))
    return 0 if report.proved else 1


@contextlib.contextmanager
def _bar(*, shown: bool) -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("checking {task.description:<13}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as progress:
        task = progress.add_task("log", total=None)

        def tell(step: str, done: int, total: int) -> None:
            progress.update(task, description=step, completed=done, total=total)

        yield tell


def _lines(report: Report) -> Iterator[str]:
    yield (
        f"{report.receipts:,} receipts over {report.partitions} partitions prove {report.records:,} records:"
        f" {report.events:,} events = {report.accepted:,} accepted + {report.duplicates:,} duplicates"
        f" + {report.dead_letters:,} dead letters + {report.forwarded:,} forwarded"
    )
    same = "=" if report.accepted == report.rows + report.purged == report.calls + report.purged else "against"
    past = f" + {report.purged:,} past retention" if report.purged else ""
    yield f"{report.accepted:,} accepted {same} {report.rows:,} logs{past} {same} {report.calls:,} calls in usage{past}"
    if report.conflicts:
        yield f"{report.conflicts:,} of the duplicates had other content than the first of their id, which was kept"
    if report.known_ids or report.horizon_ms:
        yield f"an id is known for sure {_since(report.horizon_ms)}; the workers' filters hold {report.known_ids:,} ids"
    if report.lag_records:
        yield f"{report.lag_records:,} records are not proved yet"
    for each in report.findings:
        yield f"{each.kind}: {each.text}\n  -> {each.action}"
    yield "proved: nothing is missing, nothing counted twice" if report.proved else f"{len(report.findings)} findings"


def _since(horizon_ms: int) -> str:
    if not horizon_ms:
        return "for ever so far"
    at = datetime.fromtimestamp(horizon_ms / 1000, tz=UTC)
    return f"if accepted since {at:%Y-%m-%dT%H:%MZ} ({(time.time() - horizon_ms / 1000) / 86400:.1f} days)"
