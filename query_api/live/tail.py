"""One tail: a place, a small buffer, and the frames it sends (Server-Sent Events).

Live, it is given what fits as it comes. It has fallen behind when it does not take it: then nothing is kept for it, and it
reads from ClickHouse at its own pace, until it has caught up.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final, Protocol

from ingest.contract.errors import QueryError, StoreUnavailable
from ingest.contract.logs import logger
from query_api.live.pages import Line, Page
from query_api.live.position import Bookmark, Mark, Position
from query_api.selection import Selection
from query_api.tenant import Tenant

log = logger(__name__)

HEARTBEAT_S: Final = 15.0
_RETRY_MS: Final = 1_000
# What waits for one reader, at most. The texts themselves are shared with all that follow the same project.
LINES_MAX: Final = 500
BYTES_MAX: Final = 512 * 1024
_FRAME_BYTES: Final = 32 * 1024
_PAUSE_S: Final = 1.0


class Source(Protocol):
    """Where a tail that is behind catches up."""

    def behind(self, tail: "Tail") -> AsyncGenerator[Page]:
        """Give some more of what a tail has not shown, and move on its `reached`."""


class Tail:
    """What one reader follows.

    Args:
        start: where it begins.
        write: makes a place into an id.
        limit: logs after which it ends; 0: none.
    """

    def __init__(
        self,
        source: Source,
        tenant: Tenant,
        selection: Selection,
        start: Position,
        write: Callable[[bytes], str],
        *,
        limit: int = 0,
    ) -> None:
        self.tenant = tenant
        self.selection = selection
        # What was shown, as far as the reader was told.
        self.position = start
        self.live = False
        # What was given out to the others when this one had nothing left to show: it waits to be taken along.
        self.reached: Position | None = None
        self._source = source
        self._write = write
        self._left = limit
        self._queue: deque[tuple[Sequence[Line], Position]] = deque()
        self._lines = self._bytes = 0
        self._sending = False
        # What was shown or waits in the queue.
        self._taken = start
        self._woken = asyncio.Event()
        self._ended: str | None = None
        self._sent_s = time.monotonic()
        # Partitions of which this reader has more than what it is offered begins with: others are read for along with it, or
        # ClickHouse was wiped, or another replica is ahead.
        self._ahead: dict[int, Mark] = {}

    @property
    def project(self) -> str:
        """Return the project it follows."""
        return self.tenant.projects[0]

    @property
    def held(self) -> tuple[int, int]:
        """Return how many logs wait for the reader, and their bytes."""
        return self._lines, self._bytes

    def end(self, reason: str) -> None:
        """End it; the reader may come back with the last id."""
        self._ended = self._ended or reason
        self._woken.set()

    def go_live(self) -> None:
        """Begin to take what is offered."""
        self.live = True
        self.reached = None
        self._woken.set()

    def reach(self, reached: Position) -> None:
        """Note that there is nothing left to show up to a position."""
        self._taken = self.position
        self.stand(reached)
        self.reached = reached
        self.position = self._taken = self._raised(reached)

    def stand(self, start: Position) -> None:
        """Expect to be offered what follows a position, and leave out what is not news to this one."""
        marks = self._taken.marks if self._taken.incarnation == start.incarnation else {}
        self._ahead = {p: mark for p, mark in marks.items() if _beyond(mark, start.marks.get(p))}

    def offer(self, lines: Sequence[Line], position: Position) -> None:
        """Give what follows, and the position behind it; what it cannot hold makes it fall behind."""
        if not self.live:
            return
        if self._ahead:
            lines = [line for line in lines if (line.offset, line.within) >= self._ahead.get(line.partition, (0, 0))[:2]]
            self._ahead = {p: mark for p, mark in self._ahead.items() if _beyond(mark, position.marks.get(p))}
            position = self._raised(position)
        self._taken = position
        if not lines and not self._sending and not self._queue:
            self.position = position
            return
        if not lines and self._queue:
            self._queue[-1] = (self._queue[-1][0], position)
            return
        self._queue.append((lines, position))
        self._lines += len(lines)
        self._bytes += sum(len(line.body) for line in lines)
        if self._lines > LINES_MAX or self._bytes > BYTES_MAX:
            self.fall_behind()
        self._woken.set()

    def fall_behind(self) -> None:
        """Keep nothing more for this reader; it goes on from what it was sent."""
        self.live = False
        self.reached = None
        self._queue.clear()
        self._lines = self._bytes = 0
        self._woken.set()

    async def frames(self) -> AsyncGenerator[bytes]:
        """Give what is to be sent, as long as it is not ended."""
        yield b"retry: %d\n%b\n" % (_RETRY_MS, self._id(Bookmark(self.position)))
        while self._ended is None:
            if not self.live:
                async for frame in self._catch_up():
                    yield frame
            elif self._queue:
                lines, position = self._queue.popleft()
                self._lines -= len(lines)
                self._bytes -= sum(len(line.body) for line in lines)
                async for frame in self._shown(lines, position):
                    yield frame
            elif not await self._wait(HEARTBEAT_S):
                yield self._heartbeat()
        yield b": %b\n\n" % self._ended.encode()

    async def _catch_up(self) -> AsyncGenerator[bytes]:
        try:
            if self.reached is not None:
                # The next look takes it along.
                if not await self._wait(HEARTBEAT_S):
                    yield self._heartbeat()
                return
            async for page in self._source.behind(self):
                async for frame in self._shown(page.lines, page.position):
                    yield frame
                if self._ended is not None:
                    return
        except (StoreUnavailable, QueryError) as error:
            log.info("tail_waits", project=self.project, error=str(error))
            await self._wait(_PAUSE_S)
        if time.monotonic() - self._sent_s > HEARTBEAT_S:
            yield self._heartbeat()

    async def _shown(self, lines: Sequence[Line], position: Position) -> AsyncGenerator[bytes]:
        """Give frames of some logs, each with the place behind it, and take the position over."""
        self._sending = True
        # Of who began before there was any receipt, or of a topic made anew, nothing was shown yet.
        begun = self.position.incarnation == position.incarnation
        bookmark = Bookmark(self.position if begun else Position(incarnation=position.incarnation))
        parts: list[bytes] = []
        size = 0
        for line in lines:
            bookmark.step(line.partition, line.offset, line.within, line.hour)
            if self._left == 1:
                self.end("as many as were asked for")
            self._left -= 1
            parts.append(b"%bdata: %b\n\n" % (self._id(bookmark), line.body))
            size += len(parts[-1])
            if self._left == 0:
                break
            if size >= _FRAME_BYTES:
                yield self._sent(parts)
                parts, size = [], 0
        if parts:
            yield self._sent(parts)
        self.position = position
        self._sending = False

    def _sent(self, parts: list[bytes]) -> bytes:
        self._sent_s = time.monotonic()
        return b"".join(parts)

    def _heartbeat(self) -> bytes:
        # With the place, so that what does not fit is not looked through again after a break.
        self._sent_s = time.monotonic()
        return b": heartbeat\n%b\n" % self._id(Bookmark(self.position))

    def _id(self, bookmark: Bookmark) -> bytes:
        return b"id: %b\n" % self._write(bookmark.encoded()).encode()

    def _raised(self, position: Position) -> Position:
        if not self._ahead:
            return position
        ahead = {p: mark for p, mark in self._ahead.items() if _beyond(mark, position.marks.get(p))}
        return Position(incarnation=position.incarnation, marks={**position.marks, **ahead})

    async def _wait(self, timeout_s: float) -> bool:
        """Wait until something is to be done; False if nothing came."""
        self._woken.clear()
        if self._ended is not None or self._queue:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()
            return True
        except TimeoutError:
            return False


def _beyond(mark: Mark, other: Mark | None) -> bool:
    return other is None or mark[:2] > other[:2]
