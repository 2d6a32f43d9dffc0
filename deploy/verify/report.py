"""What a check says: what was counted, and what was found, each with what to do about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

FINDINGS_MAX: Final = 1000

_HEAL: Final = (
    "restart the worker that has this partition: it writes what Kafka still has again; what it no longer has comes back only"
    " with a backup of all tables"
)
_RESTORE: Final = (
    "stop the workers, restore all tables from one backup, start the workers: what Kafka retains above it is written again"
)
ACTIONS: Final = {
    "gap": _HEAL,
    "overlap": f"two owners wrote the same offsets; {_RESTORE}",
    "doubled_receipt": f"a batch was counted twice; {_RESTORE}",
    "unbalanced_receipt": "the receipt contradicts itself: please report it, with the worker's log of that batch",
    "missing_rows": f"rows were deleted behind the ledger's back; {_RESTORE}",
    "surplus_rows": "no receipt accounts for these rows: delete them by incarnation, kafka_partition and first_offset",
    "usage_differs": f"usage was changed behind the ledger's back, or rows were; {_RESTORE}",
    "dead_letters_differ": f"dead letters were changed behind the ledger's back; {_RESTORE}",
    "lost_to_retention": "Kafka had deleted these records before they were read: they are lost; send them again from their"
    " source if it has them, and lengthen retention.ms or add workers",
    "ahead_of_log": "receipts reach beyond the log, so the brokers lost its end: check their replication and disks",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it must be, and what to do about it."""

    kind: str
    text: str
    action: str
    partition: int | None = None
    project_id: str | None = None


def finding(kind: str, text: str, partition: int | None = None, project_id: str | None = None) -> Finding:
    """Make a finding of a known kind."""
    return Finding(kind=kind, text=text, action=ACTIONS[kind], partition=partition, project_id=project_id)


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What receipts say, and what logs and usage hold of the same batches.

    Args:
        events: each is in exactly one of accepted, duplicates, dead_letters and forwarded; conflicts are among the duplicates.
        rows, calls: in logs and in usage.
        purged: what retention has taken out of both.
    """

    events: int
    accepted: int
    duplicates: int
    conflicts: int
    dead_letters: int
    forwarded: int
    rows: int
    calls: int
    purged: int = 0


@dataclass(frozen=True, kw_only=True)
class ProjectTotals(Totals):
    """The totals of one project."""

    project_id: str


@dataclass(frozen=True, kw_only=True)
class Report(Totals):
    """What was checked, over all projects, and what was found; nothing found means proved.

    Args:
        receipts, records: of all partitions.
        lag_records: offsets that no receipt covers yet.
        lost_records: offsets Kafka had deleted before they were read.
        known_ids: ids the workers' filters hold.
        horizon_ms: since when (epoch ms of acceptance) every id is known, whatever its timestamp; 0: all there ever were.
        projects: the same by project.
    """

    incarnation: str
    partitions: int
    receipts: int
    records: int
    lag_records: int
    lost_records: int
    known_ids: int
    horizon_ms: int
    projects: Sequence[ProjectTotals] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def proved(self) -> bool:
        """Whether nothing was found."""
        return not self.findings
