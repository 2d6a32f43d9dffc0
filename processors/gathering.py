"""When fetched records of a partition become a run. Pure: the clock's time is given.

A batch costs the store the same few milliseconds and two parts for one event as for thousands. So at the log's end, where
records come in drops, runs begin an interval apart; the first one after a pause begins at once.

    records   x  xx x   xxx  x x x  x             x
    runs      |--------------|--------------|     |      first at once, then one an interval, at once after a pause

The interval grows with what a batch takes to be written, so that many partitions with little in each do not keep the store busy
with the cost of batches alone.

While there is a backlog no time is waited for, but a run: until it is full, as long as others are in work meanwhile. What one
fetch brings is worth too little where producers pack little, or where much is fetched of other partitions beside it.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

# Of the time that passes, what writing the batches of all partitions of a worker may take together, one after the other.
_SHARE: Final = 0.5
# What came in is seen a while after this at the latest, however long writing takes.
_INTERVAL_S_MAX: Final = 2.0
# Of a backlog a run is filled for so long at most: the broker that has the rest of it may be away.
_FILL_S: Final = 2.0

Key = TypeVar("Key")


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
        # Whether the log holds more than what was added; when the first of the records came; when it was fetched
        # from last; what was added last.
        self._behind = False
        self._begun_s = 0.0
        self._asked_s = 0.0
        self.added_nbytes = 0
        self._next_s = 0.0
        # When runs were taken that are not written yet, when the last one was, and how long it took.
        self._taken: deque[float] = deque()
        self._written_s = 0.0
        self._took_s = 0.0

    def __len__(self) -> int:
        return len(self._records)

    @property
    def full(self) -> bool:
        """Whether nothing more should be fetched before it is taken."""
        return self._nbytes >= self._bytes_max

    @property
    def nbytes(self) -> int:
        """Of the records that wait."""
        return self._nbytes

    @property
    def behind(self) -> bool:
        """Whether the log held more than what was added last."""
        return self._behind

    @property
    def fills(self) -> bool:
        """Whether there are records of a backlog, and more of it is to come."""
        return self._behind and bool(self._records)

    @property
    def turn(self) -> tuple[bool, float]:
        """Sorts what was begun before what was not, then by the time of that, or of the last fetch."""
        return not self._records, self._begun_s if self._records else self._asked_s

    @property
    def due_s(self) -> float:
        """When what waits becomes a run, if no more comes."""
        return max(self._next_s, self._begun_s + _FILL_S) if self.fills and self._interval_s else self._next_s

    def add(self, records: Sequence[Any], now_s: float, *, behind: bool) -> int:
        """Take in what was fetched next, which may be nothing; return its bytes.

        Args:
            behind: whether the log holds more than that already.
        """
        nbytes = sum(len(record.value) for record in records if record.value is not None)
        if not self._records:
            self._begun_s = now_s
        self._records += records
        self._nbytes += nbytes
        self._behind = behind
        # Its turn is over even if nothing came, so that a broker that is away holds up no other's partitions.
        self._asked_s = now_s
        if records:
            self.added_nbytes = nbytes
        return nbytes

    def rests(self, now_s: float) -> bool:
        """Tell whether nothing that comes now would be due before more is there."""
        return now_s < self._next_s and not self._behind

    def ready(self, now_s: float, *, idle: bool) -> bool:
        """Tell whether there are records, and whether they are due.

        Args:
            idle: whether nothing is in work, so that filling the run would be lost time.
        """
        return bool(self._records) and (self.full or now_s >= (self._next_s if idle else self.due_s))

    def take(self, now_s: float, *, sharers: int) -> tuple[list[Any], int]:
        """Return the records and their bytes, and begin anew: an interval later, unless there is more in the log already.

        Args:
            sharers: how many partitions of this worker write, this one among them.
        """
        records, nbytes = self._records, self._nbytes
        self._records, self._nbytes = [], 0
        self._taken.append(now_s)
        self._next_s = now_s if self._behind or not self._interval_s else now_s + self._pause_s(sharers)
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


def wanted_of(gathered: Mapping[Key, Gathering], *, room_bytes: int) -> set[Key]:
    """Choose which partitions to fetch from: all that are at the log's end, and of those behind as many as there is room for.

    Args:
        gathered: what waits, of the partitions to choose among.
        room_bytes: as much more may be held; how much a partition brings is guessed by what it brought last.
    """
    wanted = {key for key, each in gathered.items() if not each.full} if room_bytes > 0 else set()
    for key in sorted(
        (key for key, each in gathered.items() if key in wanted and each.behind), key=lambda key: gathered[key].turn
    ):
        if room_bytes <= 0:
            wanted.remove(key)
        room_bytes -= gathered[key].added_nbytes
    return wanted
