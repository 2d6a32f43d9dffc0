"""One batch from records to what is written: which events are accepted, which are not and why. Pure: no I/O, no clock.

In two strides, because between them ClickHouse may have to be asked which ids it knows: `read` decodes and names the suspects,
`settle` takes the answers and builds rows, sums and the receipt.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ingest.contract.access import Purge
from ingest.contract.event import EVENT_BYTES_MAX
from ingest.contract.partitioning import event_key, home_partitions
from ingest.contract.redact import COMMON, Redactor
from processors.alarm import Stretch, stretches
from processors.decode import DeadLetter, Decoded, Record, decode, looks_made
from processors.dedupe import SeenFilter, Suspects, id_hashes, suspects
from processors.late import late_at
from processors.purged import refuse
from processors.rows import batch_month, content_hash, execution_rows
from processors.usage import COUNTS, NEEDED, receipt_rows, rollup


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Consecutive records of one partition, `[first_offset, next_offset)`.

    Args:
        rewind: parts its token from those of the same range before the partition went back.
        lost: offsets of the range that Kafka had deleted before they were read.
        planned_month: yyyymm of its table partition where its plan has fixed it; 0: that of the first record.
    """

    incarnation: str
    partition: int
    partitions: int
    first_offset: int
    next_offset: int
    records: Sequence[Record]
    rewind: int = 0
    lost: int = 0
    planned_month: int = 0
    # The latest record time in the partition before this batch, 0 where nothing was before.
    newest_before_ms: int = 0

    @property
    def token(self) -> str:
        """The deduplication token of every insert of this batch; a range written again after a rewind has another."""
        plain = f"{self.incarnation}:{self.partition}:{self.first_offset}-{self.next_offset}"
        return f"{plain}:{self.rewind}" if self.rewind else plain

    @property
    def nbytes(self) -> int:
        """Decoded bytes of its records."""
        return sum(len(record.value) for record in self.records if record.value is not None)

    @property
    def month(self) -> int:
        """The table partition of all its rows: the month of its first record, which a rewritten batch shares."""
        return self.planned_month or batch_month(self.records[0].timestamp_ms if self.records else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """An event found away from home: its own bytes and key, on their way to the partition where its id counts."""

    partition: int
    key: bytes
    value: bytes
    project_id: str
    first_accepted_ms: int
    replay_of: str = ""


@dataclass(slots=True, kw_only=True)
class Candidates:
    """A batch decoded: `firsts` are the places of the first event of each id that is at home, `repeats` point to those."""

    batch: Batch
    decoded: Decoded
    hashes: NDArray[np.uint64]
    firsts: NDArray[np.intp]
    repeats: dict[int, int]
    forwards: list[tuple[int, int]]
    suspects: Suspects


@dataclass(slots=True, kw_only=True)
class Prepared:
    """Everything a batch writes. `executions` holds the accepted events only; `conflict` names an id with other content."""

    batch: Batch
    executions: pl.DataFrame
    usage: pl.DataFrame
    receipt: pl.DataFrame
    dead_letters: list[DeadLetter]
    forwards: list[Forward]
    totals: dict[str, int]
    projects: dict[str, dict[str, int]]
    newest_record_ms: int
    conflict: str = ""
    stretches: list[Stretch] = field(default_factory=list)
    accepted_hashes: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, dtype=np.uint64))


def split(batch: Batch, *, events_max: int, bytes_max: int, count: Callable[[Record], int] | None = None) -> Iterable[Batch]:
    """Part a batch at record borders, so that each insert stays one block.

    Args:
        events_max: events a part may hold; a record is never parted, so a single one may hold more.
        bytes_max: decoded bytes a part may hold.
        count: how many events a record holds; by default a guess from its commas' places, never below one.
    """
    count = count or _events_in
    start, first, events, size = 0, batch.first_offset, 0, 0
    for place, record in enumerate(batch.records):
        more, weight = count(record), len(record.value or b"")
        if place > start and (events + more > events_max or size + weight > bytes_max):
            yield _part(batch, start, place, first, record.offset)
            start, first, events, size = place, record.offset, 0, 0
        events += more
        size += weight
    yield _part(batch, start, len(batch.records), first, batch.next_offset)


def _events_in(record: Record) -> int:
    """At least as many as the record can hold: an event names its tool."""
    return max(1, (record.value or b"").count(b'"tool_slug"'))


def _part(batch: Batch, start: int, end: int, first_offset: int, next_offset: int) -> Batch:
    return replace(
        batch,
        first_offset=first_offset,
        next_offset=next_offset,
        records=batch.records[start:end],
        newest_before_ms=max([batch.newest_before_ms, *(record.timestamp_ms for record in batch.records[:start])]),
    )


def read(batch: Batch, *, seen: SeenFilter, purges: Mapping[str, Sequence[Purge]] | None = None) -> Candidates:
    """Decode a batch, send strays home, and name the ids ClickHouse must be asked about.

    Args:
        seen: the ids that are known.
        purges: by project, what retention has taken away.
    """
    decoded = decode(batch.records, incarnation=batch.incarnation, partition=batch.partition, partitions=batch.partitions)
    if purges:
        refuse(decoded, batch.records, purges)
    keys = [event_key(project, event) for project, event in zip(decoded.project_ids, decoded.ids, strict=True)]
    homes = home_partitions(keys, batch.partitions) if keys else np.empty(0, dtype=np.int64)
    away = (homes != batch.partition) & ~np.asarray(decoded.stays, dtype=np.bool_)
    first_of: dict[bytes, int] = {}
    repeats: dict[int, int] = {}
    firsts: list[int] = []
    strays = set(np.flatnonzero(away).tolist())
    for place, key in enumerate(keys):
        if place in strays:
            continue
        first = first_of.setdefault(key, place)
        if first == place:
            firsts.append(place)
        else:
            repeats[place] = first
    hashes = id_hashes(keys)
    places = np.asarray(firsts, dtype=np.intp)
    # An event whose id was made counted where it was found, so its home's filter may not know it when somebody sends it again
    # (from an export, say) under the id it was given. A replay may come when every filter has long forgotten.
    always = [
        place for place in firsts if place in decoded.replays or (looks_made(decoded.ids[place]) and decoded.events[place].id)
    ]
    return Candidates(
        batch=batch,
        decoded=decoded,
        hashes=hashes,
        firsts=places,
        repeats=repeats,
        forwards=[(place, int(homes[place])) for place in sorted(strays)],
        suspects=suspects(
            seen=seen,
            hashes=hashes,
            timestamps_ms=np.asarray(decoded.timestamps_ms, dtype=np.int64),
            places=places,
            always=np.asarray(always, dtype=np.intp),
        ),
    )


def settle(
    candidates: Candidates,
    *,
    known: Mapping[int, int],
    stores_payload: Callable[[str], bool],
    window_close_ms: int,
    redactor: Redactor = COMMON,
) -> Prepared:
    """Build what a batch writes.

    Args:
        known: place in the batch -> content hash stored under that id.
        stores_payload: whether a project keeps request and response.
        window_close_ms: how long after its end a window of usage closes.
        redactor: takes secrets out.
    """
    batch, decoded = candidates.batch, candidates.decoded
    accepted = [place for place in candidates.firsts.tolist() if place not in known]
    executions = execution_rows(
        [decoded.events[place] for place in accepted],
        project_ids=[decoded.project_ids[place] for place in accepted],
        ids=[decoded.ids[place] for place in accepted],
        timestamps_ms=[decoded.timestamps_ms[place] for place in accepted],
        accepted_ms=[decoded.accepted_ms[place] for place in accepted],
        offsets=[decoded.offsets[place] for place in accepted],
        indexes=[decoded.indexes[place] for place in accepted],
        data=[decoded.data[place] for place in accepted],
        metadata=[decoded.metadata[place] for place in accepted],
        replays=[decoded.replays.get(place, "") for place in accepted] if decoded.replays else (),
        origin={
            "batch_month": batch.month,
            "incarnation": batch.incarnation,
            "kafka_partition": batch.partition,
            "first_offset": batch.first_offset,
            "rewind": batch.rewind,
        },
        stores_payload=stores_payload,
        redactor=redactor,
    )
    executions = executions.with_columns(
        late_at(
            executions,
            records=batch.records,
            newest_before_ms=batch.newest_before_ms,
            newest_record_ms=decoded.newest_record_ms,
            close_ms=window_close_ms,
        )
    )
    conflicts = _conflicts(candidates, known, redactor)
    projects = _count(candidates, accepted, known, conflicts)
    prepared = Prepared(
        batch=batch,
        executions=executions,
        usage=executions.clear(),
        receipt=executions.clear(),
        dead_letters=decoded.dead_letters,
        forwards=[_forward(candidates, place, home) for place, home in candidates.forwards],
        totals={},
        projects=projects,
        newest_record_ms=decoded.newest_record_ms,
        conflict=f"{decoded.project_ids[conflicts[0]]}/{decoded.ids[conflicts[0]]}" if conflicts else "",
        stretches=stretches(
            good=decoded.offsets,
            indexes=decoded.indexes,
            dead=[(letter.offset, letter.index, letter.project_id) for letter in decoded.dead_letters],
            times_ms=[(record.offset, record.timestamp_ms) for record in batch.records],
        ),
        accepted_hashes=candidates.hashes[accepted],
    )
    _sum_up(prepared, executions)
    return prepared


def adopt(prepared: Prepared, landed: pl.DataFrame, dead_letters: Mapping[str, int]) -> None:
    """Let what ClickHouse holds of a batch be the truth: sums and receipt are made from it, whoever wrote it.

    Args:
        landed: the rows of this batch in `tool_executions`, the columns NEEDED.
        dead_letters: how many of its dead letters are in their table, by project.
    """
    counts = dict(landed.group_by("project_id").len().iter_rows())
    for project in set(prepared.projects) | set(counts) | set(dead_letters):
        parts = prepared.projects.setdefault(project, dict.fromkeys(COUNTS, 0))
        parts["accepted"] = counts.get(project, 0)
        parts["dead_letters"] = dead_letters.get(project, 0)
        outcomes = parts["accepted"] + parts["dead_letters"] + parts["forwarded"]
        # Where Kafka has lost records since, more can be in ClickHouse than can be read again.
        parts["events"] = max(parts["events"], outcomes)
        parts["duplicates"] = parts["events"] - outcomes
        parts["conflicts"] = min(parts["conflicts"], parts["duplicates"])
    if landed.height:
        # A block lands whole, so nothing of it was lost.
        prepared.batch = replace(prepared.batch, lost=0)
    _sum_up(prepared, landed)


def _sum_up(prepared: Prepared, rows: pl.DataFrame) -> None:
    totals = {name: sum(parts[name] for parts in prepared.projects.values()) for name in COUNTS}
    totals["records"] = len(prepared.batch.records)
    totals["lost"] = prepared.batch.lost
    prepared.totals = totals
    prepared.usage = rollup(rows.select(NEEDED))
    prepared.receipt = receipt_rows(
        totals=totals,
        projects=prepared.projects,
        next_offset=prepared.batch.next_offset,
        newest_record_ms=prepared.newest_record_ms,
    )


def _repeated(candidates: Candidates, known: Mapping[int, int]) -> list[int]:
    """Return the places of all events whose id counted before, in this batch or earlier."""
    return [*(place for place in candidates.firsts.tolist() if place in known), *candidates.repeats]


def _conflicts(candidates: Candidates, known: Mapping[int, int], redactor: Redactor) -> list[int]:
    """Return the places of duplicates that say something else than the first of their id."""
    events = candidates.decoded.events
    found = []
    for place in _repeated(candidates, known):
        first = candidates.repeats.get(place, place)
        other = known[first] if first in known else content_hash(events[first], redactor)
        if content_hash(events[place], redactor) != other:
            found.append(place)
    return found


def _count(
    candidates: Candidates, accepted: Sequence[int], known: Mapping[int, int], conflicts: Sequence[int]
) -> dict[str, dict[str, int]]:
    """Count every outcome by project; events = accepted + duplicates + dead_letters + forwarded holds for each."""
    decoded = candidates.decoded
    owners = decoded.project_ids
    outcomes = {
        "accepted": Counter(owners[place] for place in accepted),
        "forwarded": Counter(owners[place] for place, _ in candidates.forwards),
        "dead_letters": Counter(letter.project_id for letter in decoded.dead_letters),
        "duplicates": Counter(owners[place] for place in _repeated(candidates, known)),
    }
    projects: dict[str, dict[str, int]] = {}
    for outcome, by_owner in outcomes.items():
        for owner, count in by_owner.items():
            parts = projects.setdefault(owner, dict.fromkeys(COUNTS, 0))
            parts[outcome] += count
            parts["events"] += count
    for place in conflicts:
        projects[owners[place]]["conflicts"] += 1
    return projects


def _forward(candidates: Candidates, place: int, home: int) -> Forward:
    decoded = candidates.decoded
    value = decoded.raw(place).rstrip()
    if decoded.events[place].timestamp in (None, ""):
        # Made fast here: at home the record has another time. Appended, for the last of two equal members counts. Where that
        # would make the event larger than one may be, the first acceptance beside it says the same.
        timed = value[:-1] + b',"timestamp":%d}' % decoded.timestamps_ms[place]
        value = timed if len(timed) <= EVENT_BYTES_MAX else value
    return Forward(
        partition=home,
        key=event_key(decoded.project_ids[place], decoded.ids[place]),
        value=value,
        project_id=decoded.project_ids[place],
        first_accepted_ms=decoded.accepted_ms[place],
        replay_of=decoded.replays.get(place, ""),
    )
