"""Which ids are surely new: a filter in slices of time, and the rule for whom ClickHouse must be asked. Pure: no I/O, no clock.

ClickHouse is the truth. The filter holds a few bits of every id accepted within its reach and errs to one side only: what it
has not seen was not accepted within its reach.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from ingest.contract.event import TIMESTAMP_AHEAD_MS_MAX, WORKER_SLACK_MS

# Split block Bloom filter: a block is one cache line of eight words, an id sets one bit in each. With 16 bits an id, about one
# unknown id in 700 is taken for a known one.
# Source: Putze, Sanders, Singler, "Cache-, hash- and space-efficient Bloom filters", 2007; Apache Parquet's BloomFilter.md.
_BITS_PER_ID: Final = 16
_WORDS: Final = 8
# Slices grow fourfold from a 64th of the budget to a quarter of it: a young worker is small, an old one has few slices to ask,
# and each slice asked adds its own false positives.
_GROWTH: Final = 4
_FIRST_OF_BUDGET: Final = 64
_LAST_OF_BUDGET: Final = 4

# An event may be stamped this far ahead of its acceptance, so an id can be older than its timestamp says by this much.
AHEAD_MS: Final = TIMESTAMP_AHEAD_MS_MAX + WORKER_SLACK_MS


def id_hashes(keys: Sequence[bytes]) -> NDArray[np.uint64]:
    """Return xxh3 of each `project_id/id`; ClickHouse's `xxh3` is the same function."""
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter((digest(key) for key in keys), dtype=np.uint64, count=len(keys))


# Odd constants that spread one hash over eight words. Source: Parquet's salts, each doubled to 64 bits.
_SALTS: Final = np.array(
    [0x47B6137B44974D91, 0x8824AD5BA2B7289D, 0x705495C72DF1424B, 0x9EFC49475C6BFB31] * 2, dtype=np.uint64
) ^ np.array([0] * 4 + [0x5851F42D4C957F2C] * 4, dtype=np.uint64)


def _masks(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the eight one-bit words of each id, shape (ids, 8)."""
    return np.uint64(1) << ((hashes[:, None] * _SALTS) >> np.uint64(58))


class _Slice:
    """Ids accepted one after another, none later than `end_ms`."""

    def __init__(self, *, nbytes: int) -> None:
        self._words = np.zeros((max(1, nbytes // 64), _WORDS), dtype=np.uint64)
        self.capacity = self._words.nbytes * 8 // _BITS_PER_ID
        self.count = 0
        self.end_ms = 0

    @property
    def nbytes(self) -> int:
        return self._words.nbytes

    def add(self, hashes: NDArray[np.uint64]) -> None:
        # A block is chosen by the upper half of the hash, so sorted hashes are in the order of their blocks. Ids of one block
        # are put together first, or the second would overwrite what the first set.
        ordered = np.sort(hashes)
        rows = self._rows(ordered)
        starts = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
        self._words[rows[starts]] |= np.bitwise_or.reduceat(_masks(ordered), starts, axis=0)
        self.count += len(hashes)

    def maybe(self, hashes: NDArray[np.uint64], masks: NDArray[np.uint64]) -> NDArray[np.bool_]:
        return np.asarray(((self._words[self._rows(hashes)] & masks) == masks).all(axis=1))

    def _rows(self, hashes: NDArray[np.uint64]) -> NDArray[np.intp]:
        # The upper half by multiplication; the bits come from the whole hash times a salt.
        return (((hashes >> np.uint64(32)) * np.uint64(len(self._words))) >> np.uint64(32)).astype(np.intp)


class SeenFilter:
    """The ids accepted within its reach.

    Args:
        budget_bytes: memory it never passes; oldest slices go first, and `reach_ms` says so.
        reach_ms: from when on (epoch ms of acceptance) all ids are in it; 0 if all there ever were.
    """

    def __init__(self, *, budget_bytes: int, reach_ms: int = 0) -> None:
        self._budget_bytes = budget_bytes
        self._slices: list[_Slice] = []
        self._first_bytes = budget_bytes // _FIRST_OF_BUDGET
        self.reach_ms = reach_ms

    def begin(self, *, expected: int, reach_ms: int) -> None:
        """Forget everything and begin anew.

        Args:
            expected: ids that will be added at once; the first slice is made for them, so that as many as fit stay.
            reach_ms: as above.
        """
        self._slices.clear()
        wanted = min(expected * _BITS_PER_ID // 8, self._budget_bytes // _LAST_OF_BUDGET)
        self._first_bytes = max(self._budget_bytes // _FIRST_OF_BUDGET, wanted)
        self.reach_ms = reach_ms

    @property
    def capacity(self) -> int:
        """Ids it can hold."""
        return self._budget_bytes * 8 // _BITS_PER_ID

    @property
    def count(self) -> int:
        """Ids in it."""
        return sum(part.count for part in self._slices)

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return sum(part.nbytes for part in self._slices)

    def add(self, hashes: NDArray[np.uint64], *, accepted_ms: int) -> None:
        """Take in ids that were accepted at about one time.

        Args:
            hashes: as `id_hashes` gives them.
            accepted_ms: the latest acceptance among them, epoch ms.
        """
        done = 0
        while done < len(hashes):
            if not self._slices or self._slices[-1].count >= self._slices[-1].capacity:
                self._grow()
            last = self._slices[-1]
            piece = hashes[done : done + last.capacity - last.count]
            last.add(piece)
            last.end_ms = max(last.end_ms, accepted_ms)
            done += len(piece)

    def maybe(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Tell for each id whether it may have been accepted within reach; False is certain."""
        result = np.zeros(len(hashes), dtype=np.bool_)
        masks = _masks(hashes)
        for part in self._slices:
            result |= part.maybe(hashes, masks)
        return result

    def _grow(self) -> None:
        if self._slices:
            need = min(self._slices[-1].nbytes * _GROWTH, self._budget_bytes // _LAST_OF_BUDGET)
        else:
            need = self._first_bytes
        while self._slices and self.nbytes + need > self._budget_bytes:
            self._drop()
        self._slices.append(_Slice(nbytes=need))

    def _drop(self) -> None:
        gone = self._slices.pop(0)
        self.reach_ms = max(self.reach_ms, gone.end_ms + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspects:
    """Places in a batch whose ids must be asked of the truth."""

    by_id: list[int]
    by_time: list[int]


def suspects(
    *,
    seen: SeenFilter,
    hashes: NDArray[np.uint64],
    timestamps_ms: NDArray[np.int64],
    places: NDArray[np.intp],
    always: NDArray[np.intp] | None = None,
) -> Suspects:
    """Choose whom to ask about.

    What the filter may know is asked by id. What it does not know is new, unless the event is old enough to have been accepted
    before the filter's reach: then it is asked by its primary key (project, timestamp, id), where a backfill lies together.

    Args:
        places: those of the batch that are candidates, the first of each id.
        always: those of them that are asked by id whatever the filter says.
    """
    maybe = seen.maybe(hashes[places])
    if always is not None and len(always):
        maybe |= np.isin(places, always)
    old = ~maybe & (timestamps_ms[places] - AHEAD_MS < seen.reach_ms)
    return Suspects(by_id=places[maybe].tolist(), by_time=places[old].tolist())
