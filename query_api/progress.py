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

_HEARTBEATS: Final = (
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
    """Keeps what `progress` says for a moment; requests that come together share one question."""

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
        self._asking = asyncio.Lock()

    async def get(self) -> Progress:
        """Return progress at most `cache_s` old; an older one is still true, only less fresh.

        Raises:
            StoreUnavailable, QueryError: as `Reader.rows`; also where migrations are still to come.
        """
        fresh = self._fresh()
        if fresh is not None:
            return fresh
        async with self._asking:
            fresh = self._fresh()
            if fresh is None:
                asked_at = self._monotonic()
                rows = await self._reader.system_rows(_HEARTBEATS)
                require_schema(rows)
                fresh = progress(rows, now_ms=int(self._now() * 1000))
                self._known = (asked_at, fresh)
            return fresh

    def _fresh(self) -> Progress | None:
        if self._known is not None and self._monotonic() - self._known[0] < self._cache_s:
            return self._known[1]
        return None
