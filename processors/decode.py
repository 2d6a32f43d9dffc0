"""From the records of a batch to events, in order, and to dead letters. Pure: no I/O, no clock.

A record's value is one JSON object, an array of them, or NDJSON; or the record is a CloudEvent with one event. What cannot
become an event becomes a dead letter with its own bytes; its neighbours go on.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from ingest.contract import cloudevents
from ingest.contract.access import is_project
from ingest.contract.errors import InvalidEvent
from ingest.contract.event import (
    EVENT_BYTES_MAX,
    TIMESTAMP_AHEAD_MS_MAX,
    TIMESTAMP_MS_MIN,
    Event,
)
from ingest.contract.nesting import too_deep
from ingest.contract.pieces import WHITESPACE, checked, decode_piece, pieces, project_of
from ingest.contract.replay import letter_id, parse_letter_id
from ingest.contract.topics import HEADER_FIRST_ACCEPTED_MS, HEADER_FORWARDED_AMONG, HEADER_PROJECT, HEADER_REPLAY_OF

# A dead letter keeps its bytes up to Kafka's own limit for a record; a longer one could not have come in.
# Below this many records of one object each, one by one is as fast.
_WORTH_BULK: Final = 3
_NUMBERS: Final = frozenset({int, float})
# How `data` and `metadata` may begin: an object, absent, or null.
_OBJECT_HEADS: Final = frozenset({b"{", b"", b"n"})


# The shape of ids made here, `_Scribe._made_id`: the topic's id, partition, offset, index; a replay may add one more number.
_MADE_ID: Final = re.compile(r"[0-9a-f]{32}-[0-9]+-[0-9]+-[0-9]+(-[0-9]+)?")
_MADE_ID_LENGTH_MIN: Final = 38


def looks_made(event_id: str) -> bool:
    """Tell whether an id has the shape of those that workers make."""
    return len(event_id) >= _MADE_ID_LENGTH_MIN and _MADE_ID.fullmatch(event_id) is not None


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the ledger needs of a Kafka record. Times in epoch ms, `timestamp_ms` is the broker's time of acceptance."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """Input that cannot become an event: its own bytes, where it came from, and why."""

    project_id: str
    offset: int
    index: int
    accepted_ms: int
    reason: str
    message: str
    key: bytes
    payload: bytes


@dataclass(slots=True, kw_only=True)
class Decoded:
    """Events as parallel lists, in the order of (offset, index)."""

    events: list[Event] = field(default_factory=list)
    project_ids: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    timestamps_ms: list[int] = field(default_factory=list)
    accepted_ms: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)
    # The bytes of `data` and `metadata`, empty where there is none.
    data: list[bytes] = field(default_factory=list)
    metadata: list[bytes] = field(default_factory=list)
    # Where the event's own bytes are: (bytes, -1), or an array's bytes and the place in it.
    sources: list[tuple[bytes, int]] = field(default_factory=list)
    # Whether the event stays here whatever its key says: it was given its id here, or was forwarded to here.
    stays: list[bool] = field(default_factory=list)
    # Place -> the dead letter an event was replayed from.
    replays: dict[int, str] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    records: int = 0
    newest_record_ms: int = 0

    @property
    def count(self) -> int:
        """Everything that was found: events and dead letters."""
        return len(self.events) + len(self.dead_letters)

    def raw(self, place: int) -> bytes:
        """Return the bytes of one event."""
        value, index = self.sources[place]
        return value if index < 0 else bytes(_decode_raws.decode(value)[index])


_decode_one = msgspec.json.Decoder(Event)
_decode_many = msgspec.json.Decoder(list[Event])
_decode_raws = msgspec.json.Decoder(list[msgspec.Raw])


def decode(records: Iterable[Record], *, incarnation: str, partition: int, partitions: int) -> Decoded:
    """Decode the records of one batch.

    Args:
        records: in offset order.
        incarnation: the topic's id; with partition, offset and index it makes the id of an event that came without one.
        partition: the partition the records are from.
        partitions: how many the topic has; an event forwarded by someone who knew fewer is looked at again.
    """
    out = Decoded()
    where = (incarnation, partition)
    ordered = list(records)
    out.records = len(ordered)
    out.newest_record_ms = max((record.timestamp_ms for record in ordered), default=0)
    place = 0
    while place < len(ordered):
        end = _alike(ordered, place)
        if end - place < _WORTH_BULK or not _Scribe(ordered[place], out, where, partitions).singles(ordered[place:end]):
            for record in ordered[place:end]:
                _Scribe(record, out, where, partitions).record()
        place = end
    return out


def _alike(records: Sequence[Record], start: int) -> int:
    """Return the end of the records from `start` on that look like one object each, under the same headers; at least one."""
    headers = records[start].headers
    for place in range(start, len(records)):
        value = records[place].value
        if not value or value[:1] != b"{" or len(value) > EVENT_BYTES_MAX or records[place].headers != headers:
            return max(place, start + 1)
    return len(records)


class _Scribe:
    """Takes one record in."""

    def __init__(self, record: Record, out: Decoded, where: tuple[str, int], partitions: int) -> None:
        self._record = record
        self._out = out
        self._incarnation, self._partition = where
        self._project = ""
        self._first_accepted_ms: int | None = None
        self._forwarded = False
        self._replay_of = ""
        self._enveloped = False
        for name, value in record.headers:
            if value is None:
                continue  # Kafka's headers may have none, which says nothing
            if name == HEADER_PROJECT:
                self._project = value.decode(errors="replace")
            elif name == HEADER_FIRST_ACCEPTED_MS and value.isdigit() and len(value) < 16:
                # Any producer can send headers; a time before all events is none.
                if int(value) >= TIMESTAMP_MS_MIN:
                    self._first_accepted_ms = min(int(value), record.timestamp_ms)
            elif name == HEADER_FORWARDED_AMONG and value.isdigit() and len(value) < 10:
                self._forwarded = int(value) >= partitions
            elif name == HEADER_REPLAY_OF and parse_letter_id(said := value.decode(errors="replace")) is not None:
                self._replay_of = said
            elif cloudevents.is_kafka_header(name, value):
                self._enveloped = True
        self._accepted_ms = record.timestamp_ms if self._first_accepted_ms is None else self._first_accepted_ms

    def record(self) -> None:
        """Take the record in, whatever it is."""
        start = len(self._out.events)
        self._record_in()
        if self._replay_of:
            self._out.replays.update(dict.fromkeys(range(start, len(self._out.events)), self._replay_of))

    def _record_in(self) -> None:
        value = self._record.value
        if value is None or not value.strip(WHITESPACE):
            self._dead(0, value or b"", "record_empty", "the record has no value")
            return
        if self._enveloped:
            self._cloudevent(value)
            return
        if not value.isascii():
            try:
                value.decode()
            except UnicodeDecodeError:
                self._pieces(value)
                return
        try:
            events = _decode_many.decode(value) if value[:1] == b"[" else [_decode_one.decode(value)]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._pieces(value)
            return
        if len(value) > EVENT_BYTES_MAX or (self._project and not is_project(self._project)):
            # Something in here may break a limit that only the slow way checks.
            self._pieces(value)
            return
        array = value[:1] == b"["
        count = len(events)
        if self._bulk(
            events,
            accepted_ms=[self._accepted_ms] * count,
            offsets=[self._record.offset] * count,
            indexes=list(range(count)),
            sources=[(value, index if array else -1) for index in range(count)],
        ):
            return
        for index, event in enumerate(events):
            self._event(index, event, (value, index if array else -1))

    def singles(self, records: Sequence[Record]) -> bool:
        """Take in records of one object each, all at once; False, and nothing taken in, if any of them is unusual."""
        values = [record.value or b"" for record in records]
        if not is_project(self._project) or self._first_accepted_ms is not None or self._replay_of or self._enveloped:
            return False
        try:
            for value in values:
                if not value.isascii():
                    value.decode()
            events = [_decode_one.decode(value) for value in values]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False
        return self._bulk(
            events,
            accepted_ms=[record.timestamp_ms for record in records],
            offsets=[record.offset for record in records],
            indexes=[0] * len(records),
            sources=[(value, -1) for value in values],
        )

    def _bulk(
        self,
        events: Sequence[Event],
        *,
        accepted_ms: list[int],
        offsets: list[int],
        indexes: list[int],
        sources: list[tuple[bytes, int]],
    ) -> bool:
        """The quick way, all columns at once, where nothing is unusual; False leaves it to the careful way."""
        stamps = [event.timestamp for event in events]
        if not self._project or not set(map(type, stamps)) <= _NUMBERS:
            return False
        at_ms: list[int] = list(map(int, stamps))  # type: ignore[arg-type]
        data = [bytes(event.data) for event in events]
        metadata = [bytes(event.metadata) for event in events]
        first, last = min(at_ms, default=0), max(at_ms, default=0)
        if (
            first < TIMESTAMP_MS_MIN
            or last > min(accepted_ms, default=0) + TIMESTAMP_AHEAD_MS_MAX
            or not {raw[:1] for raw in data} | {raw[:1] for raw in metadata} <= _OBJECT_HEADS
            or any(map(too_deep, data))
            or any(map(too_deep, metadata))
        ):
            return False
        out = self._out
        ids = [event.id for event in events]
        out.events += events
        out.project_ids += [self._project] * len(events)
        out.ids += [given or self._made_id(offset, index) for given, offset, index in zip(ids, offsets, indexes, strict=True)]
        out.timestamps_ms += at_ms
        out.accepted_ms += accepted_ms
        out.offsets += offsets
        out.indexes += indexes
        out.data += [b"" if raw == b"null" else raw for raw in data]
        out.metadata += [b"" if raw == b"null" else raw for raw in metadata]
        out.sources += sources
        out.stays += [self._forwarded or not given for given in ids]
        return True

    def _cloudevent(self, value: bytes) -> None:
        """Take one event out of its envelope; what is none is kept with what the envelope adds, so that it can be mended."""
        raw = value
        try:
            raw = cloudevents.of_record(self._record.headers, value)
            event = decode_piece(raw)
        except InvalidEvent as error:
            self._dead(0, raw, error.reason, error.message)
        else:
            self._event(0, event, (raw, -1))

    def _pieces(self, value: bytes) -> None:
        """The slow way: piece by piece, so that one bad piece costs nothing but itself."""
        try:
            parts = pieces(value)
        except InvalidEvent as error:
            self._dead(0, value, error.reason, error.message)
            return
        for index, piece in enumerate(parts):
            raw = bytes(piece)
            try:
                event = decode_piece(raw)
            except InvalidEvent as error:
                self._dead(index, raw, error.reason, error.message)
            else:
                self._event(index, event, (raw, -1))

    def _event(self, index: int, event: Event, source: tuple[bytes, int]) -> None:
        record = self._record
        out = self._out
        try:
            project_id, at_ms = checked(event, project_id=self._project, accepted_ms=self._accepted_ms)
        except InvalidEvent as error:
            value, place = source
            raw = value if place < 0 else bytes(_decode_raws.decode(value)[place])
            self._dead(index, raw, error.reason, error.message)
            return
        out.events.append(event)
        out.project_ids.append(project_id)
        out.ids.append(event.id or self._made_id(record.offset, index))
        # A stray without a time may have had no room for one on its way home: its first acceptance is what it would have got.
        out.timestamps_ms.append(self._accepted_ms if at_ms is None else at_ms)
        out.accepted_ms.append(self._accepted_ms)
        out.offsets.append(record.offset)
        out.indexes.append(index)
        for raws, raw in ((out.data, bytes(event.data)), (out.metadata, bytes(event.metadata))):
            raws.append(b"" if raw == b"null" else raw)
        out.sources.append(source)
        out.stays.append(self._forwarded or not event.id)

    def _made_id(self, offset: int, index: int) -> str:
        """The id of an event that came without one: the same after any replay."""
        return letter_id(self._incarnation, self._partition, offset, index)

    def _dead(self, index: int, payload: bytes, reason: str, message: str) -> None:
        project_id = self._project or project_of(payload)
        self._out.dead_letters.append(
            DeadLetter(
                project_id=project_id if is_project(project_id) else "",
                offset=self._record.offset,
                index=index,
                accepted_ms=self._accepted_ms,
                reason=reason,
                message=message,
                key=self._record.key or b"",
                payload=payload,
            )
        )
