"""Whose question goes next. Pure: no clock, no waiting; `query_api.waiting` does that.

A tenant has at most so many questions going, so that one who asks a thousand at once leaves room for whoever comes after; where
all turns are taken, tenants who wait are served one question each, in rotation. What one tenant asks stays in its order.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

Ticket = TypeVar("Ticket", bound=Hashable)
Entry = Literal["go", "wait", "full"]


@dataclass(slots=True)
class _Line(Generic[Ticket]):
    """One tenant: how many of its questions are going, and which wait, oldest first."""

    going: int = 0
    waiting: OrderedDict[Ticket, None] = field(default_factory=OrderedDict)


class Turns(Generic[Ticket]):
    """Gives turns to tickets.

    Args:
        going_max: questions going at once.
        of_tenant_max: of these, one tenant's.
        waiting_max: one tenant's questions that wait; a bound of its own, so that nobody can fill another's.

    Guarantee: no ticket waits while a turn is free that its tenant may take; a tenant that may take one is passed over at most
    once by each other tenant.
    """

    def __init__(self, *, going_max: int, of_tenant_max: int, waiting_max: int) -> None:
        assert min(going_max, of_tenant_max) > 0
        self.going = 0
        self._going_max = going_max
        self._of_tenant_max = min(of_tenant_max, going_max)
        self._waiting_max = waiting_max
        # Only tenants with a question going or waiting.
        self._lines: dict[str, _Line[Ticket]] = {}
        # Tenants that could take a turn now, in the order they will.
        self._rotation: OrderedDict[str, None] = OrderedDict()

    def enter(self, tenant: str, ticket: Ticket) -> Entry:
        """Take in a question: it may go at once, waits, or is refused because its tenant has too many waiting."""
        line = self._lines.setdefault(tenant, _Line())
        if self.going < self._going_max and line.going < self._of_tenant_max:
            # Nobody who could take the turn waits, or would have it already.
            self._start(line)
            return "go"
        if len(line.waiting) >= self._waiting_max:
            self._place(tenant, line)
            return "full"
        line.waiting[ticket] = None
        self._place(tenant, line)
        return "wait"

    def leave(self, tenant: str) -> tuple[str, Ticket] | None:
        """End a question that went; return whose ticket goes now in its place."""
        line = self._lines[tenant]
        line.going -= 1
        self.going -= 1
        self._place(tenant, line)
        if not self._rotation:
            return None
        following, _ = self._rotation.popitem(last=False)
        line = self._lines[following]
        ticket, _ = line.waiting.popitem(last=False)
        self._start(line)
        self._place(following, line)
        return following, ticket

    def give_up(self, tenant: str, ticket: Ticket) -> None:
        """Take out a question that waits no longer; nothing happens for one that does not wait."""
        line = self._lines.get(tenant)
        if line is not None and ticket in line.waiting:
            del line.waiting[ticket]
            self._place(tenant, line)

    def at_its_limit(self, tenant: str) -> bool:
        """Tell whether a tenant's own questions are what it waits for."""
        line = self._lines.get(tenant)
        return line is not None and line.going >= self._of_tenant_max

    def waiting(self) -> int:
        """Return how many wait, of all tenants."""
        return sum(len(line.waiting) for line in self._lines.values())

    def tenants(self) -> int:
        """Return how many tenants are held in memory."""
        return len(self._lines)

    def _start(self, line: _Line[Ticket]) -> None:
        line.going += 1
        self.going += 1

    def _place(self, tenant: str, line: _Line[Ticket]) -> None:
        """Put a tenant into the rotation, at its end, or out of it, as it can or cannot take a turn; forget an idle one."""
        if line.waiting and line.going < self._of_tenant_max:
            self._rotation.setdefault(tenant, None)
        else:
            self._rotation.pop(tenant, None)
        if not line.going and not line.waiting:
            del self._lines[tenant]
