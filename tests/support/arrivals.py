"""Batches as workers write them, one step at a time: rows, then the receipt with its parts by project in one block.

For tests of what follows receipts. Offsets go up in each partition; times do what the test says.
"""

import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from clickhouse_connect.driver.client import Client

from ingest.contract.tables import (
    KIND_PROJECT_RECEIPT,
    KIND_RECEIPT,
    NO_FIRST_CALL,
    TOOL_EXECUTIONS,
    USAGE_WINDOWS,
)
from tests.support.rows import DEFAULTS, _moment

HOUR_MS = 3_600_000
MONTH = 202611


class Arrivals:
    """What one incarnation of the topic brings."""

    def __init__(self, client: Client, *, incarnation: str = "one") -> None:
        self.client = client
        self.incarnation = incarnation
        self.next_offset: dict[int, int] = defaultdict(int)

    def batch(
        self, partition: int, records: Sequence[Sequence[Mapping[str, Any]]], *, record_ms: int, hole: int = 0
    ) -> "Batch":
        """Take the next offsets of a partition for some records (of some events each); nothing is written yet.

        Args:
            record_ms: acceptance of the newest record; an event may say `accepted_at` of its own.
            hole: offsets at the batch's beginning that hold nothing.
        """
        first = self.next_offset[partition]
        self.next_offset[partition] = first + hole + len(records)
        rows = [
            {"accepted_at": record_ms, **DEFAULTS, **event, "kafka_offset": first + hole + offset, "kafka_index": index}
            for offset, events in enumerate(records)
            for index, event in enumerate(events)
        ]
        return Batch(self, partition, first, self.next_offset[partition], rows, record_ms)


class Batch:
    """One batch, to be written in two steps."""

    def __init__(
        self, arrivals: Arrivals, partition: int, first: int, following: int, rows: Sequence[dict[str, Any]], record_ms: int
    ) -> None:
        self.arrivals, self.partition, self.first, self.following = arrivals, partition, first, following
        self.rows, self.record_ms = rows, record_ms

    def write_rows(self) -> None:
        """Step 3 of the ledger."""
        of_event = [name for name in DEFAULTS if name != "kafka_partition"]
        names = ["batch_month", "timestamp", "id", *of_event, "accepted_at", "incarnation"]
        names += ["kafka_partition", "first_offset", "kafka_offset", "kafka_index"]
        data = [
            [
                MONTH,
                _moment(row["timestamp"]),
                row["id"],
                *(row[name] for name in of_event),
                _moment(row["accepted_at"]),
                self.arrivals.incarnation,
                self.partition,
                self.first,
                row["kafka_offset"],
                row["kafka_index"],
            ]
            for row in self.rows
        ]
        if data:
            self.arrivals.client.insert(TOOL_EXECUTIONS, data, column_names=names, settings=_token())

    def prove(self) -> None:
        """Step 4: the receipt and its parts, in one block."""
        counts = Counter(row["project_id"] for row in self.rows)
        lines = [(KIND_RECEIPT, "", len(self.rows)), *((KIND_PROJECT_RECEIPT, name, count) for name, count in counts.items())]
        hour = _moment(self.record_ms - self.record_ms % HOUR_MS)
        batch = [self.arrivals.incarnation, self.partition, hour, self.first, NO_FIRST_CALL]
        records = [self.following, self.following - self.first]
        data = [[MONTH, kind, project, *batch, 1, *records, count, count, self.record_ms] for kind, project, count in lines]
        names = ["batch_month", "kind", "project_id", "incarnation", "kafka_partition", "window_start", "first_offset"]
        names += ["first_call", "receipts", "next_offset", "records", "events", "accepted", "newest_record_ms"]
        self.arrivals.client.insert(USAGE_WINDOWS, data, column_names=names, settings=_token())

    def write(self) -> None:
        """Do both."""
        self.write_rows()
        self.prove()


def _token() -> dict[str, Any]:
    # Equal batches of a test are not the same batch.
    return {"insert_deduplication_token": uuid.uuid4().hex}
