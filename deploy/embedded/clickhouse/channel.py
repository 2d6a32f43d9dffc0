"""The way of a result from the engine's thread to the event loop, with a limit on what lies in between."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from deploy.embedded.clickhouse.compression import Encoder
from deploy.embedded.clickhouse.engine import Statistics
from deploy.embedded.clickhouse.errors import ClickHouseError

# The engine stops when this much waits for a slow client: a few blocks, so that both sides keep busy.
HIGH_WATER_BYTES: Final = 8 * 1024 * 1024

# A client that takes nothing for so long holds a thread and a query for nobody. ClickHouse waits 30 s; clients that work
# on rows while they read them get more here.
STALL_SECONDS: Final = 300


class ClientGone(Exception):
    """The client went away; what the query would still give is for nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a statement ended.

    Args:
        output_format: the format of its result, or None where it has none.
        statistics: what the engine counted.
        elapsed_ns: time it took.
        error: why it failed, or None.
    """

    output_format: str | None = None
    statistics: Statistics = field(default_factory=Statistics)
    elapsed_ns: int = 0
    error: ClickHouseError | None = None


class ResultChannel:
    """Chunks of one result, from one engine thread to one coroutine.

    Guarantee: at most `HIGH_WATER_BYTES` and one chunk wait here; `put` blocks until the client has taken some.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._closed = False
        self.outcome: Outcome | None = None
        self.output_format: str | None = None
        self.content_encoding = ""
        self.encoder: Encoder | None = None

    def describe(self, output_format: str | None, encoding: tuple[str, Encoder] | None) -> None:
        """Engine thread: say what the result will be, before the first chunk."""
        self.output_format = output_format
        if encoding is not None:
            self.content_encoding, self.encoder = encoding

    def flush(self) -> None:
        """Engine thread: the result is whole; hand over what its encoder held back."""
        if self.encoder is not None:
            self._enqueue(self.encoder.flush())

    def put(self, chunk: bytes) -> None:
        """Engine thread: hand over a chunk; blocks while the client is slow.

        Raises:
            ClientGone: nobody reads any more, or not for `STALL_SECONDS`.
        """
        self._enqueue(chunk if self.encoder is None else self.encoder.encode(chunk))

    def _enqueue(self, chunk: bytes) -> None:
        if not chunk:
            return
        with self._lock:
            while self._waiting_bytes > HIGH_WATER_BYTES and not self._closed:
                if not self._lock.wait(STALL_SECONDS):
                    raise ClientGone
            if self._closed:
                raise ClientGone
            self._chunks.append(chunk)
            self._waiting_bytes += len(chunk)
        self._notify()

    def finish(self, outcome: Outcome) -> None:
        """Engine thread: the statement has ended."""
        with self._lock:
            self.outcome = outcome
        self._notify()

    def take(self) -> list[bytes]:
        """Event loop: all chunks that wait."""
        with self._lock:
            chunks = list(self._chunks)
            self._chunks.clear()
            self._waiting_bytes = 0
            self._lock.notify_all()
        return chunks

    async def changed(self) -> None:
        """Event loop: wait until there is something new to take, or the end."""
        await self._wake.wait()
        self._wake.clear()

    def wake(self) -> None:
        """Event loop: let `changed` return, so that its caller looks at the clock."""
        self._wake.set()

    def close(self) -> None:
        """Event loop: nobody reads any more; the engine's thread gets `ClientGone`."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()

    def _notify(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._wake.set)
        except RuntimeError:  # the loop closed under a query that shutdown could not stop
            self.close()
