"""Until when answers are complete: the heartbeats of the partitions' owners, read before the data they vouch for.

They vouch only for tables of this program's schema: in older ones rows may be missing that questions rely on.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ingest.contract.errors import StoreUnavailable
from ingest.contract.tables import PROGRESS, SCHEMA_MIGRATIONS, SCHEMA_VERSION
from query_api.store import Reader

# What is said where nothing is proved: a time before all events, true and readable by every client.
UNKNOWN_MS: Final = 0
# How many times as old as the cache allows an answer may be while the next one is on its way: a heartbeat's second by default.
_KEPT: Final = 5

HEARTBEATS: Final = (
    "SELECT incarnation, kafka_partition, partitions, next_offset, end_offset,"
    " toUnixTimestamp64Milli(complete_until), toUnixTimestamp64Milli(reported_at),"
    f" (SELECT max(version) FROM {SCHEMA_MIGRATIONS})"
    f" FROM {PROGRESS} ORDER BY reported_at DESC LIMIT 1 BY incarnation, kafka_partition"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionProgress:
    """How far one partition is proved; offsets as of the last heartbeat."""

    partition: int
    next_offset: int
    end_offset: int
    complete_until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the newest incarnation of the topic has proved.

    Args:
        complete_until_ms: everything Kafka accepted before it is in the answers; `UNKNOWN_MS` while a partition never reported.
        partitions: those that reported, in order.
    """

    complete_until_ms: int
    partitions: tuple[PartitionProgress, ...]


def progress(heartbeats: Sequence[Sequence[Any]], *, now_ms: int) -> Progress:
    """Fold heartbeats, newest first, into one answer. Pure.

    A topic made anew starts over: heartbeats of its former life say nothing about it. The answer never lies ahead of the clock.
    """
    if not heartbeats:
        return Progress(complete_until_ms=UNKNOWN_MS, partitions=())
    incarnation, _, count, *_ = heartbeats[0]
    found = {
        partition: PartitionProgress(
            partition=partition, next_offset=next_offset, end_offset=end_offset, complete_until_ms=min(until_ms, now_ms)
        )
        for of, partition, _, next_offset, end_offset, until_ms, *_ in heartbeats
        if of == incarnation
    }
    complete = all(partition in found for partition in range(count))
    until_ms = min((one.complete_until_ms for one in found.values()), default=UNKNOWN_MS) if complete else UNKNOWN_MS
    return Progress(complete_until_ms=until_ms, partitions=tuple(found[key] for key in sorted(found)))


def require_schema(heartbeats: Sequence[Sequence[Any]]) -> None:
    """Raise StoreUnavailable unless ClickHouse has all migrations that this program was made for."""
    if heartbeats and (version := heartbeats[0][-1]) < SCHEMA_VERSION:
        raise StoreUnavailable(
            f"ClickHouse's tables are of version {version} and this service needs {SCHEMA_VERSION}: run toolledger migrate"
        )


class Freshness:
    """Keeps what `progress` says for a moment; requests that come together share one question.

    A while longer it is still told while the next one is asked for, so that requests that come all the time wait for none.

    Args:
        cache_s: how old it may be without asking anew; `_KEPT` times as old where it is asked anew meanwhile.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        cache_s: float,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = reader
        self._cache_s = cache_s
        self._now = now
        self._monotonic = monotonic
        self._known: tuple[float, Progress] | None = None
        self._asking: asyncio.Task[Progress] | None = None

    async def get(self) -> Progress:
        """Return progress; an older one is still true, only less fresh.

        Raises:
            StoreUnavailable, QueryError: as `Reader.rows`; also where migrations are still to come.
        """
        fresh = self._known_within(self._cache_s)
        if fresh is not None:
            return fresh
        asking = self._ask()
        kept = self._known_within(self._cache_s * _KEPT)
        # Whoever asked first may go away before the answer comes; the others wait on.
        return kept if kept is not None else await asyncio.shield(asking)

    async def close(self) -> None:
        """Ask no more; to be called in the end, before the reader is closed."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))

    def _ask(self) -> asyncio.Task[Progress]:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._asked())
            # A failure that nobody waits for is told to whoever asks once what is known is too old.
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._asking

    async def _asked(self) -> Progress:
        asked_at = self._monotonic()
        rows = await self._reader.system_rows(HEARTBEATS)
        require_schema(rows)
        fresh = progress(rows, now_ms=int(self._now() * 1000))
        self._known = (asked_at, fresh)
        return fresh

    def _known_within(self, age_s: float) -> Progress | None:
        if self._known is not None and self._monotonic() - self._known[0] < age_s:
            return self._known[1]
        return None
