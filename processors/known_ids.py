"""What ClickHouse knows of ids: the answers about suspects, and the filling of the filters.

An id is looked for at its time first, which costs a few granules, and by id alone only if it is not there (decision 7).
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ingest.contract import tables
from ingest.contract.errors import StoreUnavailable
from ingest.contract.store import READ_INDEXES
from processors.batch import Batch, Candidates
from processors.dedupe import SeenFilter

# Ids asked in one query: its text stays well below what ClickHouse takes.
_ASKED_AT_ONCE: Final = 4_000
# The primary key has both, so that looking up each id in an index beside it is only work.
_BY_TIME: Final = {"use_skip_indexes": 0}

# Acceptance times are counted in slots of this length; a span of slots is loaded in one query.
_SLOT_MS: Final = 10_000
# Ids in one query: 5 MB on the way, twice that while one is taken in and the next is under way.
_LOADED_AT_ONCE: Final = 500_000
# Homes are not of one size to the last id; a filter filled to the brim would drop its oldest quarter for one id more.
_FILLED: Final = 0.98
# What falls out of a filter later is known by the span it came in, so spans are short beside a filter.
_SPANS_MIN: Final = 32
# Partitions that open together are loaded together: a load waits so long for others.
_GATHER_S: Final = 0.2
# An acceptance time may lie ahead of this clock; the last span has no end.
_END_MS: Final = 2**42


class Ask(Protocol):
    """Puts a query to ClickHouse; every failure is StoreUnavailable."""

    async def __call__(
        self, query: str, parameters: dict[str, Any], settings: Mapping[str, Any], /
    ) -> Sequence[Sequence[Any]]: ...


class AskRaw(Protocol):
    """Puts a query to ClickHouse and returns the bytes of its answer in RowBinary; every failure is StoreUnavailable."""

    async def __call__(self, query: str, parameters: dict[str, Any], /) -> bytes: ...


async def known(candidates: Candidates, ask: Ask) -> dict[int, int]:
    """Return place -> content hash of those suspects whose id is in ClickHouse from outside the batch."""
    found: dict[int, int] = {}
    suspects = candidates.suspects
    for project, places in _by_project(candidates, [*suspects.by_id, *suspects.by_time]).items():
        await _at_their_time(candidates, project, places, ask, found)
    for project, places in _by_project(candidates, suspects.by_id).items():
        await _by_id(candidates, project, [place for place in places if place not in found], ask, found)
    return found


async def _at_their_time(candidates: Candidates, project: str, places: Sequence[int], ask: Ask, found: dict[int, int]) -> None:
    """Look for (project, timestamp, id), the primary key: where a producer sends again what it sent, that is where it is."""
    decoded = candidates.decoded
    ordered = sorted(places, key=decoded.timestamps_ms.__getitem__)
    for start in range(0, len(ordered), _ASKED_AT_ONCE):
        part = ordered[start : start + _ASKED_AT_ONCE]
        some = {(decoded.timestamps_ms[place], decoded.ids[place]): place for place in part}
        rows = await ask(
            f"SELECT toUnixTimestamp64Milli(timestamp), id, anyIf(content_hash, NOT {_OWN}), countIf(NOT {_OWN}) AS others"
            f" FROM {tables.TOOL_EXECUTIONS} WHERE project_id = %(project)s AND timestamp IN %(times)s AND id IN %(ids)s"
            " GROUP BY timestamp, id HAVING others > 0",
            {
                "project": project,
                "times": sorted({_moment(at_ms) for at_ms, _ in some}),
                "ids": [event for _, event in some],
                **_own(candidates.batch),
            },
            _BY_TIME,
        )
        found.update((some[at_ms, event], content) for at_ms, event, content, _ in rows if (at_ms, event) in some)


async def _by_id(candidates: Candidates, project: str, places: Sequence[int], ask: Ask, found: dict[int, int]) -> None:
    ids = candidates.decoded.ids
    for start in range(0, len(places), _ASKED_AT_ONCE):
        some = {ids[place]: place for place in places[start : start + _ASKED_AT_ONCE]}
        rows = await ask(
            f"SELECT id, anyIf(content_hash, NOT {_OWN}), countIf(NOT {_OWN}) AS others FROM {tables.TOOL_EXECUTIONS}"
            f" WHERE project_id = %(project)s AND {tables.OWN_ID} IN %(ids)s GROUP BY id HAVING others > 0",
            {"project": project, "ids": [tables.own_value(project, one) for one in some], **_own(candidates.batch)},
            READ_INDEXES,
        )
        found.update((some[event], content) for event, content, _ in rows)


# What a batch itself may have written already does not make its events known.
_OWN: Final = (
    "(incarnation = %(incarnation)s AND kafka_partition = %(partition)s"
    " AND kafka_offset >= %(first_offset)s AND kafka_offset < %(next_offset)s)"
)


def _own(batch: Batch) -> dict[str, Any]:
    return {
        "incarnation": batch.incarnation,
        "partition": batch.partition,
        "first_offset": batch.first_offset,
        "next_offset": batch.next_offset,
    }


def _by_project(candidates: Candidates, places: Sequence[int]) -> dict[str, list[int]]:
    projects: dict[str, list[int]] = defaultdict(list)
    for place in places:
        projects[candidates.decoded.project_ids[place]].append(place)
    return projects


def _moment(at_ms: int) -> str:
    """A timestamp as ClickHouse compares it with DateTime64(3, 'UTC')."""
    moment = datetime.fromtimestamp(at_ms // 1000, tz=UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{at_ms % 1000:03d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Ids accepted in [start_ms, end_ms), about `count` of them over all partitions."""

    start_ms: int
    end_ms: int
    count: int


def spans(slots: Sequence[tuple[int, int]], *, at_once: int, most: int) -> list[Span]:
    """Part a history into spans to be loaded one after another, oldest first. Pure.

    Args:
        slots: (acceptance time // _SLOT_MS, ids), in order.
        at_once: ids in one span; a single slot may hold more.
        most: ids worth loading; older ones would only fall out again.
    """
    made: list[Span] = []
    total = 0
    end_ms = _END_MS
    count = 0
    for slot, ids in reversed(slots):
        if total + ids > most:
            break
        if count and count + ids > at_once:
            made.append(Span(start_ms=(slot + 1) * _SLOT_MS, end_ms=end_ms, count=count))
            end_ms, count = (slot + 1) * _SLOT_MS, 0
        count += ids
        total += ids
        start_ms = slot * _SLOT_MS
    if count:
        made.append(Span(start_ms=start_ms, end_ms=end_ms, count=count))
    return made[::-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    seen: SeenFilter
    partition: int
    done: "asyncio.Future[None]"


class Loader:
    """Fills filters from `tool_executions`: one pass over the history for all partitions that open together.

    A filter may hold more than it has to (rows that are taken away later, or written again): what it may know is asked of the
    truth. It never holds less: of the ids whose home is a partition, none lands while that partition opens, because its own
    batches are proved before and others forward them here.

    Args:
        ask, ask_raw: put queries.
        now_ms: the clock, epoch ms.
        horizon_ms: how far back ids are loaded.
    """

    def __init__(self, ask: Ask, ask_raw: AskRaw, *, now_ms: Callable[[], int], horizon_ms: int) -> None:
        self._ask, self._ask_raw = ask, ask_raw
        self._now_ms = now_ms
        self._horizon_ms = horizon_ms
        self._waiting: dict[int, list[_Wanted]] = defaultdict(list)
        self._passes: dict[int, asyncio.Task[None]] = {}

    async def load(self, seen: SeenFilter, *, partition: int, partitions: int) -> None:
        """Fill a filter with the ids whose home is this partition.

        Raises:
            StoreUnavailable: the filter is incomplete and must be loaded again.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[partitions].append(_Wanted(seen=seen, partition=partition, done=done))
        running = self._passes.get(partitions)
        if running is None or running.done():
            self._passes[partitions] = asyncio.create_task(self._run(partitions), name="load-ids")
        await done

    async def _run(self, partitions: int) -> None:
        """Make passes until nobody waits."""
        while self._waiting[partitions]:
            await asyncio.sleep(_GATHER_S)
            wanted, self._waiting[partitions] = self._waiting[partitions], []
            try:
                await self._pass(wanted, partitions)
            except Exception as error:
                # Whoever waits tries again, or crashes, as it would have on its own.
                for each in wanted:
                    if not each.done.done():
                        each.done.set_exception(error)
            else:
                for each in wanted:
                    if not each.done.done():
                        each.done.set_result(None)

    async def _pass(self, wanted: Sequence[_Wanted], partitions: int) -> None:
        begin_ms = self._now_ms() - self._horizon_ms
        slots = await self._ask(
            f"SELECT intDiv(toUnixTimestamp64Milli(accepted_at), {_SLOT_MS}) AS slot, count() FROM {tables.TOOL_EXECUTIONS}"
            " WHERE accepted_at >= fromUnixTimestamp64Milli({begin:Int64}) GROUP BY slot ORDER BY slot",
            {"begin": begin_ms},
            {},
        )
        older = await self._ask(
            f"SELECT 1 FROM {tables.TOOL_EXECUTIONS} WHERE accepted_at < fromUnixTimestamp64Milli({{begin:Int64}}) LIMIT 1",
            {"begin": begin_ms},
            {},
        )
        share = len({each.partition for each in wanted}) / partitions
        most = int(max(each.seen.capacity for each in wanted) * partitions * _FILLED)
        at_once = min(int(_LOADED_AT_ONCE / share), most // _SPANS_MIN)
        todo = spans([(int(slot), int(ids)) for slot, ids in slots], at_once=at_once, most=most)
        left_out = bool(older) or sum(span.count for span in todo) < sum(ids for _, ids in slots)
        for each in wanted:
            expected = sum(span.count for span in todo) // partitions
            each.seen.begin(expected=expected, reach_ms=max(begin_ms, todo[0].start_ms if todo else 0) if left_out else 0)
        fetch: Awaitable[bytes] | None = None
        try:
            for number, span in enumerate(todo):
                raw = await (fetch or self._fetch(span, wanted, partitions))
                # The next one is on its way while this one is taken in, beside the loop.
                later = todo[number + 1] if number + 1 < len(todo) else None
                fetch = asyncio.create_task(self._fetch(later, wanted, partitions)) if later is not None else None
                await asyncio.to_thread(_take_in, raw, wanted, min(span.end_ms, self._now_ms()))
        finally:
            if isinstance(fetch, asyncio.Task):
                fetch.cancel()

    async def _fetch(self, span: Span, wanted: Sequence[_Wanted], partitions: int) -> bytes:
        """Return homes and hashes of a span as one value, an array: it is whole or it cannot be read."""
        homes = sorted({each.partition for each in wanted})
        only = " WHERE has({homes:Array(UInt16)}, home)" if len(homes) < partitions else ""
        return await self._ask_raw(
            "SELECT groupArray((home, xxh3(key))) FROM (SELECT concat(project_id, '/', id) AS key,"
            " toUInt16(bitAnd(kafkaMurmurHash(key), 2147483647) % {partitions:UInt32}) AS home"
            f" FROM {tables.TOOL_EXECUTIONS} WHERE accepted_at >= fromUnixTimestamp64Milli({{start:Int64}})"
            f" AND accepted_at < fromUnixTimestamp64Milli({{end:Int64}})){only}",
            {"partitions": partitions, "start": span.start_ms, "end": span.end_ms, "homes": homes},
        )


def _take_in(raw: bytes, wanted: Sequence[_Wanted], accepted_ms: int) -> None:
    pairs = decode_span(raw)
    for each in wanted:
        mine = pairs["hash"][pairs["home"] == each.partition]
        if len(mine):
            each.seen.add(mine, accepted_ms=accepted_ms)


_PAIR: Final = np.dtype([("home", "<u2"), ("hash", "<u8")])


def decode_span(raw: bytes) -> NDArray[np.void]:
    """Decode RowBinary of one Array(Tuple(UInt16, UInt64)).

    Raises:
        StoreUnavailable: the bytes are not exactly that; a part of an answer must not pass for the whole.
    """
    count, start = _varint(raw)
    if start + count * _PAIR.itemsize != len(raw):
        raise StoreUnavailable("ClickHouse: the answer with ids is not whole")
    return np.frombuffer(raw, dtype=_PAIR, count=count, offset=start)


def _varint(raw: bytes) -> tuple[int, int]:
    """Decode the LEB128 number that bytes begin with; return it and the place behind it."""
    value = 0
    for place, byte in enumerate(raw[:10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, place + 1
    raise StoreUnavailable("ClickHouse: the answer with ids is not whole")
