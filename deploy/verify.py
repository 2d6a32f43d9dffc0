"""Prove that nothing is missing and nothing counted twice: receipts against rows, rows against sums, receipts against Kafka.

Each partition is judged up to its last receipt, and only receipts that were there when the check began: it runs beside live
traffic without false alarms. All sums are made by ClickHouse; what comes over the wire is one line a finding.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from clickhouse_connect.driver.client import Client

from ingest.contract import tables
from ingest.contract.errors import BrokerUnavailable
from ingest.contract.incarnation import topic_incarnation
from ingest.contract.store import client as open_store
from ingest.contract.topics import TOOL_EXECUTIONS

_SHOWN_MAX: Final = 1000
# How often a difference is looked at again before it is believed.
_LOOKS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it must be, and what to do about it."""

    kind: str
    text: str
    action: str
    partition: int | None = None
    project_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was checked, and what was found; nothing found means proved."""

    incarnation: str
    partitions: int
    receipts: int
    records: int
    events: int
    accepted: int
    duplicates: int
    conflicts: int
    dead_letters: int
    forwarded: int
    rows: int
    calls: int
    lag_records: int
    findings: tuple[Finding, ...] = field(default=())

    @property
    def proved(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


_RESTORE: Final = "restore the tables from one backup and start the workers: what Kafka retains above it is written again"
_ACTIONS: Final = {
    "gap": _RESTORE,
    "overlap": "two owners wrote the same offsets; restore the tables from a backup, the workers write the rest again",
    "doubled_receipt": "a batch was counted twice; restore the tables from a backup, the workers write the rest again",
    "unbalanced_receipt": "the receipt contradicts itself: please report it, with the worker's log of that batch",
    "missing_rows": _RESTORE,
    "surplus_rows": "rows that no receipt accounts for: delete them by their partition and first_offset",
    "usage_differs": _RESTORE,
    "dead_letters_differ": _RESTORE,
    "lost_to_retention": "Kafka no longer has records that no receipt proves: they are lost; lengthen retention.ms",
    "ahead_of_log": "receipts reach beyond the log, so its end was lost: check the replication of the brokers",
}


def verify(kafka: str, clickhouse: str, *, progress: Callable[[str], None] | None = None) -> Report:
    """Check everything.

    Args:
        kafka: bootstrap addresses.
        clickhouse: its URL.
        progress: called with the name of each step as it begins.

    Raises:
        BrokerUnavailable: Kafka does not answer.
    """
    tell = progress or (lambda _: None)
    tell("log")
    incarnation, ends = asyncio.run(_log(kafka))
    store = open_store(clickhouse)
    try:
        return _Check(store, incarnation, ends, tell).report()
    finally:
        store.close()


async def _log(kafka: str) -> tuple[str, dict[int, tuple[int, int]]]:
    """Return the topic's id, and where each partition begins and ends."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
    try:
        await consumer.start()
        incarnation, partitions = await topic_incarnation(consumer._client, TOOL_EXECUTIONS)
        keys = [TopicPartition(TOOL_EXECUTIONS, number) for number in range(partitions)]
        starts, ends = await consumer.beginning_offsets(keys), await consumer.end_offsets(keys)
    except KafkaError as error:
        raise BrokerUnavailable(f"Kafka at {kafka} does not answer: {error!r}") from error
    finally:
        await consumer.stop()
    return incarnation, {key.partition: (starts[key], ends[key]) for key in keys}


class _Check:
    def __init__(self, store: Client, incarnation: str, log: dict[int, tuple[int, int]], tell: Callable[[str], None]) -> None:
        self._store = store
        self._incarnation = incarnation
        self._log = log
        self._tell = tell
        # Everything is judged up to here: what lands later belongs to the next check.
        self._proved = {
            partition: next_offset
            for partition, next_offset in self._rows(
                f"SELECT kafka_partition, max(next_offset) FROM {tables.USAGE_WINDOWS}"
                " WHERE kind = {receipt:String} AND project_id = '' AND incarnation = {incarnation:String}"
                " GROUP BY kafka_partition"
            )
        }

    def report(self) -> Report:
        findings = [
            *self._receipts(),
            *self._log_ends(),
            *self._rows_of_batches(),
            *self._dead_letters(),
            *self._usage(),
        ]
        totals = self._rows(
            "SELECT sum(receipts), sum(records), sum(events), sum(accepted), sum(duplicates), sum(conflicts),"
            f" sum(dead_letters), sum(forwarded) FROM {tables.USAGE_WINDOWS} WHERE kind = {{receipt:String}}"
            f" AND project_id = '' AND incarnation = {{incarnation:String}} AND {self._within('first_offset')}"
        )[0]
        names = ("receipts", "records", "events", "accepted", "duplicates", "conflicts", "dead_letters", "forwarded")
        rows = self._rows(
            f"SELECT count() FROM {tables.TOOL_EXECUTIONS} WHERE incarnation = {{incarnation:String}}"
            f" AND {self._within('kafka_offset')}"
        )[0][0]
        calls = self._rows(f"SELECT sum(calls) FROM {tables.USAGE_WINDOWS} WHERE kind = '{tables.KIND_TOOL_MINUTE}'")[0][0]
        return Report(
            incarnation=self._incarnation,
            partitions=len(self._log),
            rows=rows,
            calls=calls,
            lag_records=sum(max(0, end - self._proved.get(partition, start)) for partition, (start, end) in self._log.items()),
            findings=tuple(findings[:_SHOWN_MAX]),
            **dict(zip(names, (int(total) for total in totals), strict=True)),
        )

    def _receipts(self) -> Iterator[Finding]:
        """Receipts of each partition leave no gap and no overlap, each is there once, and each adds up."""
        self._tell("receipts")
        rows = self._rows(
            "SELECT kafka_partition, first_offset, next_offset, before, n, balanced FROM ("
            " SELECT kafka_partition, first_offset, next_offset, n, balanced,"
            "  lagInFrame(next_offset, 1, first_offset) OVER"
            "   (PARTITION BY kafka_partition ORDER BY first_offset, next_offset"
            "    ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS before"
            " FROM (SELECT kafka_partition, first_offset, max(next_offset) AS next_offset, sum(receipts) AS n,"
            "   sum(events) = sum(accepted) + sum(duplicates) + sum(dead_letters) + sum(forwarded) AS balanced"
            f"  FROM {tables.USAGE_WINDOWS} WHERE kind = {{receipt:String}} AND project_id = ''"
            f"  AND incarnation = {{incarnation:String}} AND {self._within('first_offset')}"
            "  GROUP BY kafka_partition, first_offset))"
            f" WHERE before != first_offset OR n != 1 OR NOT balanced ORDER BY 1, 2 LIMIT {_SHOWN_MAX}"
        )
        for partition, first_offset, next_offset, before, n, balanced in rows:
            where = f"partition {partition}, batch [{first_offset}, {next_offset})"
            if before < first_offset:
                yield _finding("gap", f"partition {partition}: no receipt proves [{before}, {first_offset})", partition)
            if before > first_offset:
                yield _finding("overlap", f"{where}: the receipt before ends at {before}", partition)
            if n != 1:
                yield _finding("doubled_receipt", f"{where}: {n} receipts", partition)
            if not balanced:
                yield _finding(
                    "unbalanced_receipt", f"{where}: events != accepted + duplicates + dead letters + forwarded", partition
                )

    def _log_ends(self) -> Iterator[Finding]:
        """Where receipts end, Kafka still has the rest."""
        for partition, (start, end) in self._log.items():
            proved = self._proved.get(partition)
            if proved is not None and proved < start:
                yield _finding("lost_to_retention", f"partition {partition}: [{proved}, {start}) is gone unproved", partition)
            if proved is not None and proved > end:
                yield _finding(
                    "ahead_of_log", f"partition {partition}: proved up to {proved}, the log ends at {end}", partition
                )

    def _rows_of_batches(self) -> Iterator[Finding]:
        """Of each batch and project, as many rows as its receipt accepted."""
        self._tell("rows")
        yield from self._compare(
            tables.TOOL_EXECUTIONS, "accepted", many="surplus_rows", few="missing_rows", what="rows in tool_executions"
        )

    def _dead_letters(self) -> Iterator[Finding]:
        self._tell("dead letters")
        yield from self._compare(
            tables.DEAD_LETTERS, "dead_letters", many="dead_letters_differ", few="dead_letters_differ", what="dead letters"
        )

    def _compare(self, table: str, column: str, *, many: str, few: str, what: str) -> Iterator[Finding]:
        rows = self._rows(
            "SELECT kafka_partition, first_offset, project_id, sum(promised) AS promised, sum(there) AS there FROM ("
            f" SELECT kafka_partition, first_offset, project_id, sum({column}) AS promised, 0 AS there"
            f"  FROM {tables.USAGE_WINDOWS} WHERE kind = {{project_receipt:String}}"
            f"  AND incarnation = {{incarnation:String}} AND {self._within('first_offset')}"
            "  GROUP BY kafka_partition, first_offset, project_id"
            " UNION ALL"
            f" SELECT kafka_partition, first_offset, project_id, 0, count() FROM {table}"
            f"  WHERE incarnation = {{incarnation:String}} AND {self._within('first_offset')}"
            "  GROUP BY kafka_partition, first_offset, project_id)"
            " GROUP BY kafka_partition, first_offset, project_id HAVING promised != there"
            f" ORDER BY 1, 2, 3 LIMIT {_SHOWN_MAX}"
        )
        for partition, first_offset, project_id, promised, there in rows:
            yield _finding(
                many if there > promised else few,
                f"partition {partition}, batch at {first_offset}, project {project_id!r}:"
                f" the receipt says {promised}, {what}: {there}",
                partition,
                project_id,
            )

    def _usage(self) -> Iterator[Finding]:
        """Logs = usage: of each project and hour as many rows as calls, in every kind of usage row.

        A batch lands as rows first and as sums after, so a difference counts only where it is still there for rows of batches
        that a receipt proves: rows above the last receipt are left out, and sums cannot run ahead of rows.
        """
        self._tell("usage")
        kinds = (tables.KIND_TOOL_MINUTE, tables.KIND_USER_HOUR, tables.KIND_SESSION_HOUR)
        for kind in kinds:
            only = "session_id != ''" if kind == tables.KIND_SESSION_HOUR else "1"
            query = (
                "SELECT project_id, hour, status, sum(logs) AS logs, sum(calls) AS calls FROM ("
                " SELECT project_id, toStartOfHour(timestamp) AS hour, status, count() AS logs, 0 AS calls"
                f"  FROM {tables.TOOL_EXECUTIONS} WHERE {only} AND (incarnation, kafka_partition, first_offset) IN ("
                f"   SELECT incarnation, kafka_partition, first_offset FROM {tables.USAGE_WINDOWS}"
                "     WHERE kind = {receipt:String} AND project_id = '')"
                "  GROUP BY project_id, hour, status"
                " UNION ALL"
                " SELECT project_id, toDateTime(toStartOfHour(window_start), 'UTC'), status, 0, sum(calls)"
                f"  FROM {tables.USAGE_WINDOWS} WHERE kind = '{kind}' GROUP BY 1, 2, 3)"
                f" GROUP BY project_id, hour, status HAVING logs != calls ORDER BY 1, 2, 3 LIMIT {_SHOWN_MAX}"
            )
            found = self._steady(query)
            for project_id, hour, status, logs, calls in found.values():
                yield _finding(
                    "usage_differs",
                    f"project {project_id!r}, hour {hour:%Y-%m-%dT%H:00Z}, {status}: {logs} logs, {calls} calls in {kind}",
                    None,
                    project_id,
                )

    def _steady(self, query: str) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        """Return differences that stay. A batch that lands between the halves of a query makes one that does not."""
        found = {row[:3]: row for row in self._rows(query)}
        for _ in range(_LOOKS):
            if not found:
                break
            again = {row[:3]: row for row in self._rows(query)}
            found = {
                key: row for key, row in found.items() if key in again and row[3] - row[4] == again[key][3] - again[key][4]
            }
        return found

    def _within(self, column: str) -> str:
        """Only what lies below the last receipt of its partition, as of the start of the check."""
        parts = [f"(kafka_partition = {partition} AND {column} < {end})" for partition, end in self._proved.items()]
        return "(" + (" OR ".join(parts) or "0") + ")"

    def _rows(self, query: str) -> Any:
        names = {
            "incarnation": self._incarnation,
            "receipt": tables.KIND_RECEIPT,
            "project_receipt": tables.KIND_PROJECT_RECEIPT,
        }
        used = {name: value for name, value in names.items() if "{" + name + ":" in query}
        return self._store.query(query, used).result_rows


def _finding(kind: str, text: str, partition: int | None, project_id: str | None = None) -> Finding:
    return Finding(kind=kind, text=text, action=_ACTIONS[kind], partition=partition, project_id=project_id)


def main(kafka: str, clickhouse: str, *, as_json: bool = False) -> int:
    """Check, and say what was found on standard output; return 0 if all is proved, else 1."""
    shown = sys.stderr.isatty() and not as_json
    report = verify(kafka, clickhouse, progress=(lambda step: print(f"checking {step}", file=sys.stderr)) if shown else None)
    if as_json:
        print(json.dumps({"proved": report.proved, **asdict(report)}))
        return 0 if report.proved else 1
    print(
        f"{report.receipts:,} receipts over {report.partitions} partitions prove {report.records:,} records:"
        f" {report.events:,} events = {report.accepted:,} accepted + {report.duplicates:,} duplicates"
        f" + {report.dead_letters:,} dead letters + {report.forwarded:,} forwarded"
    )
    print(f"{report.accepted:,} accepted = {report.rows:,} logs; {report.calls:,} calls in usage over all time")
    if report.lag_records:
        print(f"{report.lag_records:,} records are not proved yet")
    for finding in report.findings:
        print(f"{finding.kind}: {finding.text}\n  -> {finding.action}")
    print("proved: nothing is missing, nothing counted twice" if report.proved else f"{len(report.findings)} findings")
    return 0 if report.proved else 1
