"""When fetched records of a partition become a run. Pure: the clock's time is given.

A batch costs the store the same few milliseconds and two parts for one event as for thousands. So at the log's end, where
records come in drops, runs begin an interval apart; the first one after a pause begins at once, and while there is a backlog
nothing waits.

    records   x  xx x   xxx  x x x  x             x
    runs      |--------------|--------------|     |      first at once, then one an interval, at once after a pause
"""

from collections.abc import Sequence
from typing import Any


class Gathering:
    """Records of one partition that wait to become a run.

    Args:
        interval_s: between the beginnings of two runs at the log's end.
        bytes_max: a run is due once it holds as many, whatever the time.
    """

    def __init__(self, *, interval_s: float, bytes_max: int) -> None:
        self._interval_s = interval_s
        self._bytes_max = bytes_max
        self._records: list[Any] = []
        self._nbytes = 0
        self._behind = False
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

    def take(self, now_s: float) -> tuple[list[Any], int]:
        """Return the records and their bytes, and begin anew: an interval later, unless there is more in the log already."""
        records, nbytes = self._records, self._nbytes
        self._records, self._nbytes = [], 0
        self.due_s = now_s if self._behind else now_s + self._interval_s
        return records, nbytes
