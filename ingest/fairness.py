"""Who goes next, and who may hold how much: keys that share one service do not slow one another. Pure: no clock, no waiting.

Each key has a line of its own. Where more than one waits, they are served in rotation, one each; what one key sends stays in
its order.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

Ticket = TypeVar("Ticket")


class Rotation(Generic[Ticket]):
    """Tickets that wait, by key.

    Guarantee: a key with a ticket that can go is passed over at most once by each other key.
    """

    def __init__(self) -> None:
        # Only keys with a ticket, in the order they are served.
        self._lines: OrderedDict[str, deque[Ticket]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def put(self, key: str, ticket: Ticket) -> None:
        """Put a ticket at the end of its key's line."""
        self._lines.setdefault(key, deque()).append(ticket)

    def first(self, goes: Callable[[str, Ticket], bool]) -> tuple[str, Ticket] | None:
        """Return the ticket that goes next: the first in rotation that can; one that cannot stands in nobody's way."""
        return next(((key, line[0]) for key, line in self._lines.items() if goes(key, line[0])), None)

    def take(self, key: str) -> None:
        """Take out the first ticket of a key, which is served last from now on."""
        line = self._lines.pop(key)
        line.popleft()
        if line:
            self._lines[key] = line

    def drop(self, key: str, ticket: Ticket) -> None:
        """Take out a ticket that waits no longer; nothing happens for one that does not wait."""
        line = self._lines.get(key)
        if line is not None and ticket in line:
            line.remove(ticket)
            if not line:
                del self._lines[key]


class Shares:
    """Bytes of one bounded store, by key.

    A key may hold as much as is still free: alone half of all, beside one that holds its half a quarter, and so on. So whoever
    comes finds room, however many flood the service, and none is set aside for those who do not come.

    Args:
        bytes_max: of all keys together.

    Guarantee: never more than `bytes_max` is held; a key that comes while `n` others hold all they may still finds
    `bytes_max / 2**(n+1)`.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes_held = 0
        self._held: dict[str, int] = {}

    def of(self, key: str) -> int:
        """Return how much a key holds."""
        return self._held.get(key, 0)

    def has_room(self, key: str, size: int, *, alone: bool = False) -> bool:
        """Tell whether a key may hold that much more.

        Args:
            alone: whatever is held at all is of the one who asks, who may then have everything.
        """
        held = self.bytes_held + size
        return held <= self.bytes_max and (alone or self.of(key) + size <= self.bytes_max - held)

    def take(self, key: str, size: int) -> None:
        """Count what a key holds now."""
        self.bytes_held += size
        self._held[key] = self.of(key) + size

    def give_back(self, key: str, size: int) -> None:
        """Count what a key holds no longer; keys that hold nothing are forgotten."""
        self.bytes_held -= size
        left = self.of(key) - size
        if left:
            self._held[key] = left
        else:
            self._held.pop(key, None)
