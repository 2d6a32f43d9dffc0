"""What producers wrote to Kafka, read beside the worker, and what became of it: the two must agree."""

import asyncio
import json
from dataclasses import dataclass

from ingest.contract.partitioning import event_key, home_partition
from ingest.contract.topics import HEADER_FORWARDED_AMONG
from tests.support.ingest_service import ends, records_since
from tests.support.pipeline import Pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What happened since a moment, as receipts say it."""

    accepted: int
    duplicates: int
    dead_letters: int
    forwarded: int


class Books:
    """Compares what receipts, logs, usage and Kafka itself say."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._before = pipeline.settled()
        self._offsets = asyncio.run(ends(pipeline.kafka.address))

    def counted(self) -> Counted:
        """Wait until all is proved; see that nothing is found and that the totals agree; return what came since the start."""
        report = self._pipeline.settled()
        # A receipt may land after the ends of the log were asked for, and what it forwarded lies behind them.
        while self._pipeline.lag():
            report = self._pipeline.settled()
        assert report.findings == ()
        assert report.accepted == report.rows == report.calls
        return Counted(**{name: getattr(report, name) - getattr(self._before, name) for name in Counted.__dataclass_fields__})

    def strays(self, project: str) -> int:
        """Count the events with ids that producers wrote to another partition than their home, as Kafka itself has them."""
        found = 0
        for record in asyncio.run(records_since(self._pipeline.kafka.address, self._offsets)):
            if record.value and not any(name == HEADER_FORWARDED_AMONG for name, _ in record.headers):
                found += sum(
                    home_partition(event_key(project, event_id), self._pipeline.partitions) != record.partition
                    for event_id in _ids(record.value)
                )
        return found

    def logs(self, project: str) -> list[str]:
        """Return the ids of a project's logs, every row, so that a double would be seen."""
        query = f"SELECT id FROM tool_executions WHERE project_id = '{project}' ORDER BY id"
        return [row[0] for row in self._pipeline.rows(query)]

    def calls(self, project: str) -> int:
        """Return a project's calls as usage has them."""
        report = self._pipeline.verify()
        return sum(one.calls for one in report.projects if one.project_id == project)


def _ids(value: bytes) -> list[str]:
    try:
        whole = json.loads(value)
        events = whole if isinstance(whole, list) else [whole]
    except ValueError:
        events = [json.loads(line) for line in value.splitlines() if line.strip()]
    return [event["id"] for event in events if event.get("id")]
