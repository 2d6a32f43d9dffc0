"""Receipts against each other, and rows and dead letters against receipts, batch by batch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from deploy.verify.purged import Purged
from deploy.verify.report import FINDINGS_MAX, Finding, finding
from deploy.verify.store import Store
from ingest.contract import tables

_RECEIPT: Final = f"kind = '{tables.KIND_RECEIPT}' AND project_id = ''"
# Of one batch, by incarnation: the parts by project together are the whole.
_PARTS: Final = ("events", "accepted", "duplicates", "conflicts", "dead_letters", "forwarded")


class Receipts:
    """Everything is judged up to the receipts that were there when the check began; what lands later belongs to the next one.

    Args:
        incarnation: the topic's present one; receipts of former ones are checked as well.
        began: where the receipts of a partition should begin.
    """

    def __init__(self, store: Store, *, incarnation: str, began: Mapping[int, int]) -> None:
        self._store = store
        self._incarnation = incarnation
        self._began = began
        self._proved = {
            (of, partition): next_offset
            for of, partition, next_offset in store.rows(
                f"SELECT incarnation, kafka_partition, max(next_offset) FROM {tables.USAGE_WINDOWS} WHERE {_RECEIPT}"
                " GROUP BY incarnation, kafka_partition"
            )
        }

    @property
    def proved_now(self) -> dict[int, int]:
        """Next offset of the last receipt of each partition of the present topic."""
        return {partition: end for (of, partition), end in self._proved.items() if of == self._incarnation}

    def totals(self) -> tuple[int, int, int]:
        """Return (records, receipts, lost offsets)."""
        ((records, count, lost),) = self._store.rows(
            f"SELECT sum(records), sum(receipts), sum(lost) FROM {tables.USAGE_WINDOWS} WHERE {_RECEIPT} AND {self._within()}"
        )
        return records, count, lost

    def chain(self) -> Iterator[Finding]:
        """Receipts of each partition leave no gap and no overlap, each is there once, and each adds up."""
        rows = self._store.rows(
            "SELECT incarnation, kafka_partition, first_offset, next_offset, before, place, n, balanced, lost FROM ("
            " SELECT *, max(next_offset) OVER before_it AS before, row_number() OVER all_of_it AS place FROM ("
            "  SELECT incarnation, kafka_partition, first_offset, max(next_offset) AS next_offset, sum(receipts) AS n,"
            "   sum(events) = sum(accepted) + sum(duplicates) + sum(dead_letters) + sum(forwarded) AS balanced,"
            f"  sum(lost) AS lost FROM {tables.USAGE_WINDOWS} WHERE {_RECEIPT} AND {self._within()}"
            "  GROUP BY incarnation, kafka_partition, first_offset)"
            " WINDOW all_of_it AS (PARTITION BY incarnation, kafka_partition ORDER BY first_offset),"
            "  before_it AS (PARTITION BY incarnation, kafka_partition ORDER BY first_offset"
            "   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING))"
            " WHERE (place > 1 AND before != first_offset) OR place = 1 OR n != 1 OR NOT balanced OR lost > 0"
            f" ORDER BY 1, 2, 3 LIMIT {FINDINGS_MAX}"
        )
        for incarnation, partition, first_offset, next_offset, before, place, n, balanced, lost in rows:
            where = f"partition {partition}{self._of(incarnation)}, batch [{first_offset}, {next_offset})"
            reached = before
            if place == 1:
                reached = self._began.get(partition, first_offset) if incarnation == self._incarnation else first_offset
            if reached < first_offset:
                yield finding(
                    "gap",
                    f"partition {partition}{self._of(incarnation)}: no receipt proves [{reached}, {first_offset})",
                    partition,
                )
            if reached > first_offset:
                yield finding("overlap", f"{where}: the receipt before ends at {reached}", partition)
            if n != 1:
                yield finding("doubled_receipt", f"{where}: {n} receipts", partition)
            if not balanced:
                yield finding(
                    "unbalanced_receipt", f"{where}: events != accepted + duplicates + dead letters + forwarded", partition
                )
            if lost:
                yield finding("lost_to_retention", f"{where}: {lost} offsets were gone before they were read", partition)
        yield from self._parts()

    def _parts(self) -> Iterator[Finding]:
        """The receipt of a batch is the sum of its parts by project."""
        differs = " OR ".join(
            f"sumIf({name}, kind = '{tables.KIND_RECEIPT}') != sumIf({name}, kind != '{tables.KIND_RECEIPT}')"
            for name in _PARTS
        )
        rows = self._store.rows(
            f"SELECT incarnation, kafka_partition, first_offset FROM {tables.USAGE_WINDOWS}"
            f" WHERE kind IN ('{tables.KIND_RECEIPT}', '{tables.KIND_PROJECT_RECEIPT}') AND {self._within()}"
            f" GROUP BY incarnation, kafka_partition, first_offset HAVING {differs} ORDER BY 1, 2, 3 LIMIT {FINDINGS_MAX}"
        )
        for incarnation, partition, first_offset in rows:
            yield finding(
                "unbalanced_receipt",
                f"partition {partition}{self._of(incarnation)}, batch at {first_offset}: its parts by project differ from it",
                partition,
            )

    def rows(self, purged: Purged) -> Iterator[Finding]:
        """Of each batch and project, as many rows as its receipt accepted; fewer where retention took some.

        Of such a project it is judged by all its batches together how many may be missing (`usage`).
        """
        yield from self._compare(
            tables.TOOL_EXECUTIONS,
            "accepted",
            many="surplus_rows",
            few="missing_rows",
            what="rows in tool_executions",
            fewer=purged.projects,
        )

    def dead_letters(self) -> Iterator[Finding]:
        """Of each batch and project, as many dead letters as its receipt says."""
        yield from self._compare(
            tables.DEAD_LETTERS, "dead_letters", many="dead_letters_differ", few="dead_letters_differ", what="dead letters"
        )

    def _compare(
        self, table: str, column: str, *, many: str, few: str, what: str, fewer: Sequence[str] = ()
    ) -> Iterator[Finding]:
        keys = "incarnation, kafka_partition, first_offset, project_id"
        rows = self._store.rows(
            f"SELECT {keys}, sum(promised) AS promised, sum(there) AS there FROM ("
            f" SELECT {keys}, {column} AS promised, 0 AS there FROM {tables.USAGE_WINDOWS}"
            f"  WHERE kind = '{tables.KIND_PROJECT_RECEIPT}' AND {self._within()}"
            " UNION ALL"
            f" SELECT {keys}, 0, count() FROM {table} WHERE {self._within()} GROUP BY {keys})"
            f" GROUP BY {keys} HAVING promised != there"
            " AND (there > promised OR project_id NOT IN {fewer:Array(String)})"
            f" ORDER BY {keys} LIMIT {FINDINGS_MAX}",
            fewer=list(fewer),
        )
        for incarnation, partition, first_offset, project_id, promised, there in rows:
            yield finding(
                many if there > promised else few,
                f"partition {partition}{self._of(incarnation)}, batch at {first_offset}, project {project_id!r}:"
                f" the receipt says {promised}, {what}: {there}",
                partition,
                project_id,
            )

    def _within(self) -> str:
        """Only batches below the last receipt of their partition, as of the start of the check."""
        parts = [
            f"(incarnation = '{incarnation}' AND kafka_partition = {partition} AND first_offset < {end})"
            for (incarnation, partition), end in self._proved.items()
        ]
        return "(" + (" OR ".join(parts) or "0") + ")"

    def _of(self, incarnation: str) -> str:
        return "" if incarnation == self._incarnation else f" of the former topic {incarnation}"
