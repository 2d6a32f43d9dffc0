"""What the ledger needs of Kafka, of ClickHouse, and of a thread beside the loop."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import polars as pl

from processors.batch import Batch, Candidates, Forward, Prepared
from processors.consumer_thread import Committed
from processors.decode import DeadLetter, Record
from processors.dedupe import SeenFilter
from processors.opening import Proof

T = TypeVar("T")


class Broker(Protocol):
    """Kafka, as far as the ledger needs it."""

    async def topic(self) -> tuple[str, int]:
        """Return the topic's incarnation and its number of partitions, as of a moment ago."""

    async def barrier(self, generation: int) -> bool:
        """See that offsets read from now on are no older than this moment; False if the group has moved on."""

    async def committed(self, partitions: Sequence[int]) -> Mapping[int, Committed]:
        """Return the group's offsets and their metadata, of those partitions that have any."""

    async def plan(self, partition: int, offset: int, metadata: str, generation: int) -> bool:
        """Commit under exactly this generation; False if the group has moved on."""

    async def log_start(self, partition: int) -> int:
        """Return the first offset Kafka still has."""

    async def read(self, partition: int, first_offset: int, next_offset: int) -> Sequence[Record]:
        """Return the records of [first_offset, next_offset) that Kafka still has.

        Raises:
            BrokerUnavailable: nobody answered.
        """

    async def forward(self, forwards: Sequence[Forward], letters: Sequence[DeadLetter], origin: Batch) -> Mapping[int, int]:
        """Send strays home and copies of dead letters to their topic; returns once Kafka has all of it.

        Returns:
            Home partition -> the offset behind the last stray sent to it.
        """

    def in_touch(self) -> bool:
        """Whether the group heard from this worker within the session timeout."""


class Store(Protocol):
    """ClickHouse, as far as the ledger needs it. Every call may raise StoreUnavailable."""

    async def proof(self, incarnation: str, partition: int, *, began: int | None) -> Proof | None:
        """Return what the receipts of a partition prove, None where there is none.

        Args:
            began: where they should begin, as far as it is known.
        """

    async def proved(self, incarnation: str) -> Mapping[int, int]:
        """Return the next offset of the last receipt of each partition that has one."""

    async def newest_below(self, incarnation: str, partition: int, offset: int) -> int:
        """Return the latest record time that receipts of batches below an offset cover, 0 where there is none."""

    async def receipted(self, batch: Batch) -> bool:
        """Tell whether the receipt of a batch is there."""

    async def known(self, candidates: Candidates) -> dict[int, int]:
        """Return place -> content hash of those suspects whose id is in ClickHouse from outside this batch."""

    async def landed(self, batch: Batch) -> pl.DataFrame:
        """Return the rows of a batch that are in `tool_executions`."""

    async def landed_dead_letters(self, batch: Batch) -> Mapping[str, int]:
        """Return how many dead letters of a batch are in their table, by project."""

    async def write_dead_letters(self, prepared: Prepared) -> None: ...

    async def write_executions(self, prepared: Prepared) -> None: ...

    async def write_usage(self, prepared: Prepared) -> None: ...

    async def remove(
        self, incarnation: str, partition: int, from_offset: int, to_offset: int | None, *, before_rewind: int
    ) -> int:
        """Take away rows and dead letters of a partition within [from, to), or from an offset on; return how many that were.

        Args:
            before_rewind: only those that were written before the partition went back under this number.
        """

    async def load_ids(self, seen: SeenFilter, *, partition: int, partitions: int) -> None:
        """Fill a filter with the ids whose home is this partition: all that are written, be they proved or not."""


class InThread(Protocol):
    """Runs a pure function beside the loop, so that other partitions go on meanwhile."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]: ...
