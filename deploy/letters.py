"""Dead letters for operators: of every project, straight from ClickHouse, and their way back straight to Kafka.

A replay may be run twice, beside another, or die half-way: what it sends is the same every time, so it counts once
(`ingest.contract.replay`). It reads in pages bounded in bytes; memory does not grow with how many there are.
"""

import base64
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, Literal

from ingest.contract import store
from ingest.contract.errors import InvalidEvent
from ingest.contract.event import IDENTIFIER_CHARS_MAX
from ingest.contract.replay import Letter, ReplayRecord, replay
from ingest.contract.replayer import Replayer
from ingest.contract.tables import DEAD_LETTERS, TOOL_EXECUTIONS

_PAGE_ROWS: Final = 500
_PAGE_BYTES: Final = 16 * 1024 * 1024

# In the order of the table, so that the next page is found without sorting.
_KEY: Final = ("project_id", "incarnation", "kafka_partition", "kafka_offset", "kafka_index")
_TYPES: Final = ("String", "String", "UInt32", "UInt64", "UInt32")
Outcome = Literal["replayed", "already", "refused", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """Which dead letters are meant; None: all. `project` "" are those whose project nobody knows."""

    project: str | None = None
    reason: str | None = None
    since_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A dead letter with what people want to see of it. Of a list, `payload` is only the beginning."""

    letter: Letter
    message: str
    topic: str
    key: bytes
    nbytes: int
    replayed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What became of one dead letter.

    Args:
        ids: of its events.
        sent: those that were sent; the others were in the logs already.
        reason, message: why it still cannot become an event.
    """

    id: str
    outcome: Outcome
    ids: tuple[str, ...] = ()
    sent: int = 0
    reason: str = ""
    message: str = ""


class LetterBox:
    """Reads dead letters from the ClickHouse at an address. Making one, and every call, may raise StoreUnavailable."""

    def __init__(self, url: str) -> None:
        self._url = url
        with store.told(url):
            self._client = store.client(url)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def reasons(self, which: Which) -> list[tuple[str, str, int]]:
        """Return (reason, project, how many), most first."""
        where, values = _where(which)
        rows = self._rows(
            f"SELECT reason, project_id, count() FROM {DEAD_LETTERS} WHERE {where}"
            " GROUP BY reason, project_id ORDER BY count() DESC, reason, project_id",
            values,
        )
        return [(reason, project, int(count)) for reason, project, count in rows]

    def newest(self, which: Which, *, limit: int, head_bytes: int) -> list[Kept]:
        """Return the newest, with the beginning of their payloads."""
        where, values = _where(which)
        order = ", ".join(f"{name} DESC" for name in ("accepted_at", *_KEY))
        payload = f"substring(payload, 1, {head_bytes:d})"
        return self._kept(
            f"SELECT {_columns(payload)} FROM {DEAD_LETTERS} WHERE {where} ORDER BY {order} LIMIT {limit:d}", values
        )

    def one(self, place: tuple[str, int, int, int]) -> Kept | None:
        """Return one dead letter, whole."""
        names = _KEY[1:]
        where = " AND ".join(f"{name} = {{{name}:{kind}}}" for name, kind in zip(names, _TYPES[1:], strict=True))
        values = dict(zip(names, place, strict=True))
        found = self._kept(f"SELECT {_columns('payload')} FROM {DEAD_LETTERS} WHERE {where} LIMIT 1", values)
        return found[0] if found else None

    def count(self, which: Which) -> int:
        """Return how many there are."""
        where, values = _where(which)
        return int(self._rows(f"SELECT count() FROM {DEAD_LETTERS} WHERE {where}", values)[0][0])

    def pages(self, which: Which) -> Iterator[list[Kept]]:
        """Yield all of them, whole, in pages bounded in rows and bytes."""
        where, values = _where(which)
        order = ", ".join(_KEY)
        after = ""
        while True:
            wanted = f"FROM {DEAD_LETTERS} WHERE {where}{after} ORDER BY {order}"
            sizes = [size for (size,) in self._rows(f"SELECT length(payload) {wanted} LIMIT {_PAGE_ROWS}", values)]
            if not sizes:
                return
            fits = max(1, sum(1 for together in accumulate(sizes) if together <= _PAGE_BYTES))
            page = self._kept(f"SELECT {_columns('payload')} {wanted} LIMIT {fits}", values)
            if not page:
                return
            yield page
            last = page[-1].letter
            place = (last.project_id, last.incarnation, last.partition, last.offset, last.index)
            values |= {f"after_{name}": value for name, value in zip(_KEY, place, strict=True)}
            bound = ", ".join(f"{{after_{name}:{kind}}}" for name, kind in zip(_KEY, _TYPES, strict=True))
            after = f" AND ({order}) > ({bound})"

    def known(self, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return which (project, id) are in the logs."""
        by_project: dict[str, list[str]] = {}
        for project, event_id in pairs:
            by_project.setdefault(project, []).append(event_id)
        found: set[tuple[str, str]] = set()
        for project, ids in by_project.items():
            for start in range(0, len(ids), _PAGE_ROWS):
                rows = self._rows(
                    f"SELECT DISTINCT id FROM {TOOL_EXECUTIONS} WHERE project_id = {{project:String}}"
                    " AND id IN {ids:Array(String)}",
                    {"project": project, "ids": ids[start : start + _PAGE_ROWS]},
                )
                found |= {(project, event_id) for (event_id,) in rows}
        return found

    def _kept(self, query: str, values: dict[str, Any]) -> list[Kept]:
        rows = self._rows(query, values)
        letters = [
            Letter(
                project_id=row[0],
                incarnation=row[1],
                partition=row[2],
                offset=row[3],
                index=row[4],
                accepted_ms=row[5],
                reason=row[6],
                payload=base64.b64decode(row[10]),
            )
            for row in rows
        ]
        became = self._became([(letter, row[11]) for letter, row in zip(letters, rows, strict=True)])
        return [
            Kept(
                letter=letter,
                message=row[7],
                topic=row[8],
                key=base64.b64decode(row[9]),
                nbytes=row[12],
                replayed=letter.id in became,
            )
            for letter, row in zip(letters, rows, strict=True)
        ]

    def _became(self, letters: Sequence[tuple[Letter, str]]) -> set[str]:
        """Return which dead letters have become logs: by a replay, or because their event came by itself."""
        if not letters:
            return set()
        times = [letter.accepted_ms for letter, _ in letters]
        rows = self._rows(
            f"SELECT DISTINCT replay_of FROM {TOOL_EXECUTIONS} WHERE replay_of IN {{letters:Array(String)}}"
            " AND accepted_at BETWEEN fromUnixTimestamp64Milli({first_ms:Int64}, 'UTC')"
            " AND fromUnixTimestamp64Milli({last_ms:Int64}, 'UTC')",
            {"letters": [letter.id for letter, _ in letters], "first_ms": min(times), "last_ms": max(times)},
        )
        became = {letter for (letter,) in rows}
        under = {
            letter.id: [(letter.project_id, name) for name in (letter.id, own) if 0 < len(name) <= IDENTIFIER_CHARS_MAX]
            for letter, own in letters
            if letter.project_id
        }
        known = self.known(sorted({pair for pairs in under.values() for pair in pairs}))
        return became | {letter for letter, pairs in under.items() if any(pair in known for pair in pairs)}

    def _rows(self, query: str, values: dict[str, Any]) -> Sequence[Sequence[Any]]:
        with store.told(self._url):
            rows: Sequence[Sequence[Any]] = self._client.query(query, values).result_rows
        return rows


@contextlib.asynccontextmanager
async def replayer(kafka: str, *, timeout_s: float) -> AsyncIterator[Replayer]:
    """Give what sends replays, and close it."""
    made = Replayer(kafka, timeout_s=timeout_s)
    try:
        yield made
    finally:
        await made.close()


async def replay_page(
    box: LetterBox, sender: Replayer, page: Sequence[Kept], *, mended: bytes | None = None, project_id: str = ""
) -> list[Replayed]:
    """Replay some dead letters; when it returns, Kafka has them.

    Args:
        mended: what to send instead of the bytes of the one letter in the page.
        project_id: for letters that do not say whose they are.

    Raises:
        BrokerUnavailable: some may have been sent; doing it again is safe.
    """
    incarnation, partitions = await sender.topic()
    made: dict[str, list[ReplayRecord]] = {}
    outcomes: dict[str, Replayed] = {}
    for kept in page:
        letter = kept.letter
        if kept.replayed and mended is None:
            outcomes[letter.id] = Replayed(id=letter.id, outcome="already")
            continue
        try:
            made[letter.id] = replay(
                letter, incarnation=incarnation, partitions=partitions, mended=mended, project_id=project_id
            )
        except InvalidEvent as error:
            outcomes[letter.id] = Replayed(id=letter.id, outcome="refused", reason=error.reason, message=error.message)
    known = box.known([(one.project_id, one.event_id) for records in made.values() for one in records])
    await sender.send([one for records in made.values() for one in records if (one.project_id, one.event_id) not in known])
    for name, records in made.items():
        sent = sum((one.project_id, one.event_id) not in known for one in records)
        ids = tuple(one.event_id for one in records)
        outcomes[name] = Replayed(id=name, outcome="replayed" if sent else "already", ids=ids, sent=sent)
    return [outcomes[kept.letter.id] for kept in page]


def _columns(payload: str) -> str:
    return (
        f"{', '.join(_KEY)}, toUnixTimestamp64Milli(accepted_at), reason, message, kafka_topic, base64Encode(key),"
        f" base64Encode({payload}), JSONExtractString(payload, 'id'), length(payload)"
    )


def _where(which: Which) -> tuple[str, dict[str, Any]]:
    where, values = ["1"], dict[str, Any]()
    if which.project is not None:
        where.append("project_id = {project:String}")
        values["project"] = which.project
    if which.reason is not None:
        where.append("reason = {reason:String}")
        values["reason"] = which.reason
    if which.since_ms is not None:
        where.append("accepted_at >= fromUnixTimestamp64Milli({since_ms:Int64}, 'UTC')")
        values["since_ms"] = which.since_ms
    return " AND ".join(where), values
