"""What a worker says of its partitions once a second: how far they are proved, and until when they are complete.

It is said in `progress`, and read back before it is said again: where it is gone, ClickHouse went back in time under a worker
that goes on writing, and the worker must start again from the receipts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from ingest.contract import metrics
from ingest.contract.errors import LedgerInvariantBroken
from ingest.contract.logs import logger
from processors.dedupe import SeenFilter
from processors.held import Held
from processors.progress import progress

log = logger(__name__)

# So often in a row a heartbeat must be missing to be believed gone: a replica may answer that has not heard of it yet.
_MISSED_MAX: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The newest heartbeat of a partition, whoever wrote it. Offsets, and epoch ms."""

    next_offset: int
    complete_until_ms: int
    reported_ms: int


class Ledger(Protocol):
    """What is asked of a partition's ledger."""

    @property
    def proved_offset(self) -> int: ...

    @property
    def newest_record_ms(self) -> int: ...

    @property
    def held(self) -> Held: ...

    @property
    def seen(self) -> SeenFilter | None: ...


class Broker(Protocol):
    """Kafka, as far as heartbeats need it. Calls may raise BrokerUnavailable."""

    async def topic(self) -> tuple[str, int]: ...

    async def log_ends(self, partitions: Sequence[int]) -> Mapping[int, int]: ...


class Store(Protocol):
    """ClickHouse, as far as heartbeats need it. Calls may raise StoreUnavailable."""

    async def said(self, incarnation: str) -> Mapping[int, Said]:
        """Return the newest heartbeat of each partition."""

    async def report(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write heartbeats: rows in the order of `progress`'s columns."""


class Heartbeat:
    """Of one worker.

    Args:
        name: as it appears in `progress`.
        skew_ms: how far this clock may be ahead of the broker's.
    """

    def __init__(self, name: str, *, broker: Broker, store: Store, skew_ms: int) -> None:
        self._name = name
        self._broker, self._store = broker, store
        self._skew_ms = skew_ms
        self._complete: dict[int, int] = {}
        self._reported: dict[int, int] = {}
        self._missed = 0

    def forget(self, partition: int) -> None:
        """A partition was opened anew: others may have spoken for it meanwhile."""
        self._complete.pop(partition, None)
        self._reported.pop(partition, None)

    async def beat(self, owned: Mapping[int, Ledger], *, incarnation: str, partitions: int, now_ms: int) -> None:
        """Say how far the owned partitions are.

        Args:
            owned: those that are open; strays they sent before they were opened are held for, see `hold`.
            incarnation, partitions: of the topic as it was when they were opened.
            now_ms: the clock, before anything is asked.

        Raises:
            TransportError: nothing was said, or it is unknown whether it was.
            LedgerInvariantBroken: ClickHouse has lost what was said before.
        """
        proofs = {partition: ledger.proved_offset for partition, ledger in owned.items()}
        newest = {partition: ledger.newest_record_ms for partition, ledger in owned.items()}
        if await self._broker.topic() != (incarnation, partitions):
            # What is known is about another topic, or not all of it: the rebalance that comes brings the rest.
            return
        ends = await self._broker.log_ends(sorted(owned))
        said = await self._store.said(incarnation)
        self._require_said(said)
        proved = {partition: one.next_offset for partition, one in said.items()} | proofs
        rows, reported_ms = [], {}
        for partition, ledger in sorted(owned.items()):
            ledger.held.release(proved)
            at = progress(
                next_offset=proofs[partition],
                end_offset=ends[partition],
                asked_ms=now_ms,
                newest_record_ms=newest[partition],
                former_ms=self._complete.get(partition, 0),
                skew_ms=self._skew_ms,
                held_ms=ledger.held.bound_ms(),
            )
            self._complete[partition] = at.complete_until_ms
            metrics.PARTITION_LAG.labels(str(partition)).set(max(0, at.end_offset - at.next_offset))
            # The newest counts, so it must be newer than what a former owner said whose clock was ahead.
            reported_ms[partition] = max(now_ms, said[partition].reported_ms + 1 if partition in said else 0)
            rows.append(
                (
                    incarnation,
                    partition,
                    partitions,
                    at.next_offset,
                    at.end_offset,
                    datetime.fromtimestamp(at.complete_until_ms / 1000, tz=UTC),
                    ledger.seen.count if ledger.seen is not None else 0,
                    datetime.fromtimestamp(ledger.seen.reach_ms / 1000 if ledger.seen is not None else 0, tz=UTC),
                    self._name,
                    datetime.fromtimestamp(reported_ms[partition] / 1000, tz=UTC),
                )
            )
        await self._store.report(rows)
        self._reported.update(reported_ms)

    async def hold(self, partition: int, held: Held, *, incarnation: str, partitions: int) -> None:
        """Hold a partition that was just opened at what was last said of it, until the others have proved what they hold now.

        Whoever owned it before may have sent strays home that are not proved there yet, and only he knew.

        Raises:
            TransportError: it could not be found out.
        """
        others = [number for number in range(partitions) if number != partition]
        if not others:
            return
        said = await self._store.said(incarnation)
        at_ms = said[partition].complete_until_ms if partition in said else 0
        for home, end_offset in (await self._broker.log_ends(others)).items():
            held.until(home, end_offset, at_ms)

    def _require_said(self, said: Mapping[int, Said]) -> None:
        gone = [
            partition
            for partition, reported_ms in self._reported.items()
            if partition not in said or said[partition].reported_ms < reported_ms
        ]
        self._missed = self._missed + 1 if gone else 0
        if self._missed >= _MISSED_MAX:
            raise LedgerInvariantBroken(
                f"ClickHouse no longer has the heartbeats of partitions {gone}: it was wiped or restored;"
                " starting again from its receipts"
            )
