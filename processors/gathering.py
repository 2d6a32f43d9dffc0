"""When fetched records of a partition become a run. Pure: the clock's time is given.

A batch costs the store the same few milliseconds and two parts for one event as for thousands. So at the log's end, where
records come in drops, runs begin an interval apart; the first one after a pause begins at once, and while there is a backlog
nothing waits.

    records   x  xx x   xxx  x x x  x             x
    runs      |--------------|--------------|     |      first at once, then one an interval, at once after a pause

The interval grows with what a batch takes to be written, so that many partitions with little in each do not keep the store busy
with the cost of batches alone.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

# Of the time that passes, what writing the batches of all partitions of a worker may take together, one after the other.
_SHARE: Final = 0.5
# What came in is seen a while after this at the latest, however long writing takes.
_INTERVAL_S_MAX: Final = 2.0


class Gathering:
    """Records of one partition that wait to become a run.

    Args:
        interval_s: between the beginnings of two runs at the log's end, at least; 0: nothing waits.
        bytes_max: a run is due once it holds as many, whatever the time.
    """

    def __init__(self, *, interval_s: float, bytes_max: int) -> None:
        self._interval_s = interval_s
        self._bytes_max = bytes_max
        self._records: list[Any] = []
        self._nbytes = 0
        self._behind = False
        # When runs were taken that are not written yet, when the last one was, and how long it took.
        self._taken: deque[float] = deque()
        self._written_s = 0.0
        self._took_s = 0.0
        self.due_s = 0.0

    def __len__(self) -> int:
        return len(self._records)

    @property
    def full(self) -> bool:
        """Whether nothing more should be fetched before it is taken."""
        return self._nbytes >= self._bytes_max

    def add(self, records: Sequence[Any], *, behind: bool) -> int:
        """Take in what was fetched next; return its bytes.

        Args:
            behind: whether the log holds more than that already.
        """
        nbytes = sum(len(record.value) for record in records if record.value is not None)
        self._records += records
        self._nbytes += nbytes
        self._behind = behind
        return nbytes

    def ready(self, now_s: float) -> bool:
        """Tell whether there are records, and whether they are due."""
        return bool(self._records) and (self.full or now_s >= self.due_s)

    def take(self, now_s: float, *, sharers: int) -> tuple[list[Any], int]:
        """Return the records and their bytes, and begin anew: an interval later, unless there is more in the log already.

        Args:
            sharers: how many partitions of this worker write, this one among them.
        """
        records, nbytes = self._records, self._nbytes
        self._records, self._nbytes = [], 0
        self._taken.append(now_s)
        self.due_s = now_s if self._behind or not self._interval_s else now_s + self._pause_s(sharers)
        return records, nbytes

    def written(self, now_s: float) -> None:
        """The first run that was taken and not written yet is written; one of an earlier assignment is not known here."""
        if not self._taken:
            return
        began_s = max(self._taken.popleft(), self._written_s)
        self._took_s = now_s - began_s
        self._written_s = now_s

    def _pause_s(self, sharers: int) -> float:
        return max(self._interval_s, min(_INTERVAL_S_MAX, sharers * self._took_s / _SHARE))
