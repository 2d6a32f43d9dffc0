"""Turns at what all requests share: the one thread of the loop, and Kafka.

Without them a key that sends a hundred large requests at once has them worked through one after the other before the loop looks
at anybody else's connection, and fills what waits for Kafka in front of everybody else.
"""

import asyncio
from typing import Final

from ingest.fairness import Rotation, Shares

# A future, and the bytes it stands for.
_Ticket = tuple[asyncio.Future[None], int]
# Worked on between two looks at the connections: about 2 ms. Small requests have theirs without ever waiting.
LOOP_BYTES_MAX: Final = 256 * 1024


class LoopTurns:
    """Bounds the bytes that are worked on in one turn of the loop; what is beyond waits, keys in rotation."""

    def __init__(self, bytes_max: int = LOOP_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._spent = 0
        self._waiting: Rotation[_Ticket] = Rotation()

    async def turn(self, key: str, size: int) -> None:
        """Return when a key may work on that many bytes, at once, without awaiting anything in between."""
        if self._spent < self._bytes_max and not self._waiting:
            self._spent += size
            # Below the bound nothing is scheduled: single events must not have the loop turn once more for each.
            if self._spent >= self._bytes_max:
                self._schedule()
            return
        ticket = (asyncio.get_running_loop().create_future(), size)
        self._waiting.put(key, ticket)
        try:
            await ticket[0]
        except asyncio.CancelledError:
            self._waiting.drop(key, ticket)
            raise

    def _schedule(self) -> None:
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """Another turn of the loop has begun; those let in now run in it, and connections are looked at before the next."""
        self._spent = 0
        while self._spent < self._bytes_max and (found := self._waiting.first(_anybody)) is not None:
            key, (future, size) = found
            self._waiting.take(key)
            if not future.done():
                self._spent += size
                future.set_result(None)
        if self._spent >= self._bytes_max:
            self._schedule()


class KafkaTurns:
    """Bounds the bytes that are on their way to Kafka; those who wait are served in rotation.

    Args:
        bytes_max: enough to keep Kafka busy, and no more than what may stand in front of another's event. Half of it is the
            most that one key has on the way.
    """

    def __init__(self, bytes_max: int) -> None:
        self._shares = Shares(bytes_max)
        self._of_key_max = bytes_max // 2
        self._waiting: Rotation[_Ticket] = Rotation()

    async def enter(self, key: str, size: int, *, deadline: float) -> int:
        """Return, when there is room, what the key holds from now on; it is given back by `leave`.

        Args:
            deadline: on the loop's clock.

        Raises:
            TimeoutError: no turn came by then.
        """
        # What is larger than a key may ever hold goes when the key has nothing else on the way.
        size = min(size, self._of_key_max)
        shares = self._shares
        if not self._waiting and shares.bytes_held + size <= shares.bytes_max and shares.of(key) + size <= self._of_key_max:
            shares.take(key, size)
            return size
        ticket = (asyncio.get_running_loop().create_future(), size)
        self._waiting.put(key, ticket)
        self._let_in()
        if not ticket[0].done():
            await self._wait(key, ticket, deadline)
        return size

    def leave(self, key: str, held: int) -> None:
        """Give back what `enter` returned."""
        self._shares.give_back(key, held)
        if self._waiting:
            self._let_in()

    async def _wait(self, key: str, ticket: _Ticket, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await ticket[0]
        except BaseException:
            if ticket[0].done() and not ticket[0].cancelled():
                # It was let in at the very moment it gave up.
                self.leave(key, ticket[1])
            else:
                self._waiting.drop(key, ticket)
                # It may have been the one all others waited behind.
                self._let_in()
            raise

    def _let_in(self) -> None:
        """Let in whoever there is room for; the first that waits for others only is not overtaken, or it might never go."""
        while (found := self._waiting.first(self._is_below_its_half)) is not None:
            key, (future, size) = found
            if self._shares.bytes_held + size > self._shares.bytes_max:
                return
            self._waiting.take(key)
            if not future.done():
                self._shares.take(key, size)
                future.set_result(None)

    def _is_below_its_half(self, key: str, ticket: _Ticket) -> bool:
        return self._shares.of(key) + ticket[1] <= self._of_key_max


def _anybody(_key: str, _ticket: _Ticket) -> bool:
    return True
