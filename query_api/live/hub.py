"""All tails of this service: one look at ClickHouse for everybody, several times a second, while anybody follows.

A look asks for receipts. Only where a project that is followed has new ones, its logs are read, once for all who follow it, and
ClickHouse tells of each log which of their selections it fits: filters mean here what they mean everywhere.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from functools import lru_cache
from typing import Final

from ingest.contract import metrics
from ingest.contract.errors import QueryError, StoreUnavailable
from ingest.contract.logs import logger
from query_api.live.pages import Page, pages
from query_api.live.position import Position, lowest
from query_api.live.proved import Proved
from query_api.live.sql import Batch, batches_statement
from query_api.live.tail import Tail
from query_api.selection import Selection
from query_api.store import Reader
from query_api.tenant import Tenant

log = logger(__name__)

# Asked for at once; a look that finds more leaves it to each tail to catch up.
_BATCHES_MAX: Final = 2_000
# Told apart in one statement.
_SELECTIONS_MAX: Final = 32
# Of their conditions, each of which stands in a statement twice. Where the text is longer than 128 KiB the client puts values
# into the address, and they do not fit there.
_CONDITION_CHARS_MAX: Final = 48 * 1024
# Projects, and tails that catch up, that are read at the same time.
_AT_ONCE: Final = 4
_RECENT_MAX: Final = 8
# After a failure.
_PAUSE_S: Final = 1.0


def together(selections: Sequence[Selection]) -> Iterator[list[Selection]]:
    """Part selections into those that one statement asks for: so many at most, and no more text than ClickHouse takes."""
    group: list[Selection] = []
    chars = 0
    for selection in selections:
        more = _chars(selection)
        if group and (len(group) == _SELECTIONS_MAX or chars + more > _CONDITION_CHARS_MAX):
            yield group
            group, chars = [], 0
        group.append(selection)
        chars += more
    if group:
        yield group


@lru_cache(maxsize=1024)
def _chars(selection: Selection) -> int:
    """Return how long a selection's conditions are; asked with every look."""
    return sum(map(len, selection.conditions()[0]))


class Tails:
    """Opens tails and feeds them.

    Args:
        in_force: tells whether a tenant's key may still read.
        tails_max: open at the same time.
        poll_s: between two looks.
    """

    def __init__(
        self, reader: Reader, proved: Proved, *, in_force: Callable[[Tenant], bool], tails_max: int, poll_s: float
    ) -> None:
        self._reader = reader
        self._proved = proved
        self._in_force = in_force
        self._tails_max = tails_max
        self._poll_s = poll_s
        self._tails: set[Tail] = set()
        # What was given out to all that are live.
        self._given = Position()
        # The last few of them: who caught up with one of these is taken along by the next look.
        self._recent: deque[Position] = deque([self._given], maxlen=_RECENT_MAX)
        self._looked_s = float("-inf")
        # Held while a look gives out: nobody joins in its midst.
        self._turn = asyncio.Lock()
        self._reading = asyncio.Semaphore(_AT_ONCE)
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    async def open(
        self,
        tenant: Tenant,
        selection: Selection,
        write: Callable[[bytes], str],
        *,
        after: Position | None = None,
        from_ms: int | None = None,
        limit: int = 0,
    ) -> Tail:
        """Begin a tail: after a place, or with what was accepted from a moment on, or now.

        Args:
            write: makes a place into an id.
            limit: logs after which it ends; 0: none.

        Raises:
            StoreUnavailable: there are too many, the service stops, or ClickHouse is away.
        """
        asked_s = time.monotonic()
        if self._stopped or len(self._tails) >= self._tails_max:
            raise StoreUnavailable(
                "the service stops" if self._stopped else f"{self._tails_max} tails are open; try again later"
            )
        # Not in the task of a reader, who may go away in its midst: what is half given out would be missed or come twice.
        looking = asyncio.create_task(self._look_since(asked_s))
        looking.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(looking)
        async with self._turn:
            if from_ms is not None and after is None:
                after = await self._proved.since(from_ms)
            tail = Tail(self, tenant, selection, after or self._given, write, limit=limit)
            if after is None:
                tail.go_live()
            self._tails.add(tail)
        metrics.QUERY_TAILS.set(len(self._tails))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="tails")
        if self._stopped:
            tail.end("the service stops")
        return tail

    def __iter__(self) -> Iterator[Tail]:
        """Give the tails that are open."""
        return iter(tuple(self._tails))

    def close(self, tail: Tail) -> None:
        """Forget a tail whose reader has gone."""
        self._tails.discard(tail)
        metrics.QUERY_TAILS.set(len(self._tails))

    def stop(self) -> None:
        """End all tails; their readers come back to another instance with their last id."""
        self._stopped = True
        for tail in self._tails:
            tail.end("the service stops")

    async def behind(self, tail: Tail) -> AsyncGenerator[Page]:
        position, given = tail.position, self._given
        same = position.incarnation == given.incarnation
        if position.incarnation and not given.incarnation:
            raise StoreUnavailable("ClickHouse holds no receipts now")
        found = await self._batches(tail.tenant, position, given if same else None)
        batches = found.get(tail.project, ())
        if batches:
            async with aclosing(
                self._one_by_one(pages(self._reader, tail.tenant, position, batches, [tail.selection]))
            ) as read:
                async for page in read:
                    yield page
        if same and len(batches) < _BATCHES_MAX:
            tail.reach(given)
        elif not batches:
            # The topic was made anew: the former one is shown to its end, the next from its beginning.
            tail.position = Position(incarnation=self._proved.following(position.incarnation))

    async def _one_by_one(self, read: AsyncGenerator[Page]) -> AsyncGenerator[Page]:
        """Let few read at the same time; nobody holds a turn while its reader takes what was read."""
        while True:
            async with self._reading:
                page = await anext(read, None)
            if page is None:
                return
            yield page

    async def _run(self) -> None:
        trouble = ""
        try:
            while self._tails:
                pause_s = self._poll_s
                began_s = time.monotonic()
                for tail in list(self._tails):
                    if not self._in_force(tail.tenant):
                        tail.end("the API key is no longer in force")
                try:
                    async with self._turn:
                        await self._look()
                    trouble = ""
                except (StoreUnavailable, QueryError) as error:
                    if str(error) != trouble:
                        log.warning("tails_wait", error=str(error), tails=len(self._tails))
                    trouble, pause_s = str(error), _PAUSE_S
                except Exception:
                    # A mistake of ours must not leave everybody waiting for ever: each tail tries by itself.
                    log.exception("tails_failed")
                    pause_s = _PAUSE_S
                    _all_behind(list(self._tails))
                await asyncio.sleep(max(0.0, began_s + pause_s - time.monotonic()))
        finally:
            self._task = None

    async def _look_since(self, asked_s: float) -> None:
        async with self._turn:
            # One look serves all that came before it began.
            if self._looked_s < asked_s:
                await self._look()

    async def _look(self) -> None:
        """See what is proved since, and give it out."""
        looked_s = time.monotonic()
        now = await self._proved.advance()
        before = self._given
        if not before.incarnation and self._proved.following("") == now.incarnation:
            # The very first receipts: nothing came before them.
            before = Position(incarnation=now.incarnation)
        if now.incarnation == before.incarnation:
            await self._give_out(before, now)
        else:
            _all_behind([tail for tail in self._tails if tail.live])
        if now is not self._given:
            self._given = now
            self._recent.append(now)
        self._looked_s = looked_s

    async def _give_out(self, before: Position, now: Position) -> None:
        """Give out what follows, also to those that were behind and have nothing left to show up to a moment ago."""
        waiting = [tail for tail in self._tails if tail.reached is not None]
        starts = [before]
        for tail in waiting:
            reached = tail.reached
            if (
                reached is not None
                and reached.incarnation == before.incarnation
                and any(one is reached for one in self._recent)
            ):
                starts.append(reached)
                tail.go_live()
            else:
                tail.fall_behind()
        live = [tail for tail in self._tails if tail.live]
        start = before if all(one is before for one in starts) else lowest(starts)
        if now is start or not live:
            return
        of_project: dict[str, list[Tail]] = {}
        for tail in live:
            if start is not before:
                tail.stand(start)
            of_project.setdefault(tail.project, []).append(tail)
        # Counts only, of the projects that are followed; each project's logs are read with a tenant of its own.
        everybody = Tenant(projects=tuple(sorted(of_project)), key_hash="")
        try:
            found = await self._batches(everybody, start, now)
        except BaseException:
            # The next look begins with what was given out last, and not where these stand.
            _all_behind(waiting)
            raise
        if sum(map(len, found.values())) >= _BATCHES_MAX:
            _all_behind(live)
            return
        await asyncio.gather(
            *(self._give_project(of_project[project], batches, start, now) for project, batches in found.items())
        )
        for project, tails in of_project.items():
            if project not in found:
                for tail in tails:
                    tail.offer((), now)

    async def _give_project(self, tails: Sequence[Tail], batches: Sequence[Batch], start: Position, now: Position) -> None:
        by_selection: dict[Selection, list[Tail]] = {}
        for tail in tails:
            by_selection.setdefault(tail.selection, []).append(tail)
        try:
            for selections in together(list(by_selection)):
                group = [by_selection[selection] for selection in selections]
                async with aclosing(self._one_by_one(pages(self._reader, tails[0].tenant, start, batches, selections))) as read:
                    async for page in read:
                        for number, same in enumerate(group):
                            lines = [line for line in page.lines if line.fits[number]]
                            for tail in same:
                                tail.offer(lines, page.position)
                        if not any(tail.live for same in group for tail in same):
                            break
            for tail in tails:
                tail.offer((), now)
        except (StoreUnavailable, QueryError) as error:
            # Each goes on from what it was sent.
            log.warning("tails_fell_behind", project=tails[0].project, tails=len(tails), error=str(error))
            _all_behind(tails)
        except Exception:
            # A mistake of ours about one project's logs must not become another's.
            log.exception("tails_failed", project=tails[0].project, tails=len(tails))
            _all_behind(tails)

    async def _batches(self, tenant: Tenant, after: Position, until: Position | None) -> dict[str, list[Batch]]:
        found: dict[str, list[Batch]] = {}
        for project, *batch in await self._reader.rows(batches_statement(tenant, after, until, limit=_BATCHES_MAX)):
            found.setdefault(project, []).append(Batch(*batch))
        return found


def _all_behind(tails: Sequence[Tail]) -> None:
    for tail in tails:
        tail.fall_behind()
