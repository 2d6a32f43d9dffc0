"""What holds a partition's freshness back: strays it has sent home that are not proved there yet. Pure.

A stray was accepted when it first came, long before its home may have read it. Until the home's receipts reach it, the
partition that sent it must not claim to be complete beyond its acceptance.
"""

from collections import deque
from collections.abc import Mapping
from typing import Final

# Beyond that many the newest entries of a home are put together: a little more is held, memory stays flat.
_ENTRIES_MAX: Final = 1000


class Held:
    """Offsets to be proved elsewhere, with the time before which all is complete meanwhile."""

    def __init__(self) -> None:
        self._homes: dict[int, deque[tuple[int, int]]] = {}

    def until(self, home: int, next_offset: int, at_ms: int) -> None:
        """Hold freshness at a time until a partition has proved everything below an offset.

        Args:
            home: the partition; offsets for one home only grow.
            at_ms: epoch ms.
        """
        waiting = self._homes.setdefault(home, deque())
        if len(waiting) >= _ENTRIES_MAX:
            next_offset, at_ms = max(waiting[-1][0], next_offset), min(waiting.pop()[1], at_ms)
        waiting.append((next_offset, at_ms))

    @property
    def homes(self) -> set[int]:
        """Partitions something is waited for."""
        return set(self._homes)

    def release(self, proved: Mapping[int, int]) -> None:
        """Let go of what is proved: partition -> next offset of its last receipt."""
        for home in list(self._homes):
            waiting = self._homes[home]
            while waiting and waiting[0][0] <= proved.get(home, -1):
                waiting.popleft()
            if not waiting:
                del self._homes[home]

    def bound_ms(self) -> int | None:
        """Return the earliest time held at, None where nothing is held."""
        return min((at_ms for waiting in self._homes.values() for _, at_ms in waiting), default=None)
