"""Room for batches in work: bounds memory over all partitions, whatever lag there is."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """Lets batches in, first come first served, while their bytes together stay below a limit. A single one always fits.

    Args:
        limit_bytes: decoded bytes of records in work at once.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._taken_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def take(self, nbytes: int) -> AsyncIterator[None]:
        """Hold room for a batch."""
        if self._waiting or not self._fits(nbytes):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((nbytes, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._give(nbytes)  # let in and cancelled at once
                else:
                    self._waiting.remove((nbytes, turn))
                raise
        else:
            self._taken_bytes += nbytes
        try:
            yield
        finally:
            self._give(nbytes)

    def _give(self, nbytes: int) -> None:
        self._taken_bytes -= nbytes
        while self._waiting and self._fits(self._waiting[0][0]):
            wanted, turn = self._waiting.popleft()
            self._taken_bytes += wanted
            turn.set_result(None)

    def _fits(self, nbytes: int) -> bool:
        return not self._taken_bytes or self._taken_bytes + nbytes <= self._limit_bytes
