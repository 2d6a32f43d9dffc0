"""What retention has taken away, as it was noted, so that a check can account for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deploy.verify.store import Store
from ingest.contract import tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """By project.

    Args:
        since: before that, epoch s, all was taken, or is about to be: nothing there is looked at any more.
        calls: how many that were.
    """

    since: Mapping[str, int] = field(default_factory=dict)
    calls: Mapping[str, int] = field(default_factory=dict)

    @property
    def projects(self) -> list[str]:
        """Those that something was taken of."""
        return sorted(self.since)

    def kept(self, column: str) -> str:
        """SQL: whether a row's time lies where nothing was taken, as a condition that goes on: ` AND ...`, or nothing."""
        return f" AND toUnixTimestamp({column}) >= {tables.PURGED_BEFORE}" if self.since else ""

    @property
    def parameters(self) -> dict[str, Any]:
        """What `kept` refers to."""
        return {"purged": list(self.since), "since": list(self.since.values())} if self.since else {}


def purged(store: Store) -> Purged:
    """Read the notes."""
    rows: Sequence[Sequence[Any]] = store.rows(
        "SELECT project_id, toUnixTimestamp(max(until)), max(calls)"
        f" FROM {tables.PURGES} WHERE kind = '{tables.PURGE_TOTALS}' GROUP BY project_id"
    )
    return Purged(
        since={project: until_s for project, until_s, _ in rows}, calls={project: calls for project, _, calls in rows}
    )
