"""From the records of a batch to events, in order, and to dead letters. Pure: no I/O, no clock.

A record's value is one JSON object, an array of them, or NDJSON. What cannot become an event becomes a dead letter with its own
bytes; its neighbours go on.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from ingest.contract.access import is_project
from ingest.contract.errors import InvalidEvent
from ingest.contract.event import (
    EVENT_BYTES_MAX,
    TIMESTAMP_AHEAD_MS_MAX,
    TIMESTAMP_MS_MIN,
    WORKER_SLACK_MS,
    Event,
    check_objects,
    check_timestamp,
    decode_event,
    timestamp_ms,
)
from ingest.contract.topics import HEADER_FIRST_ACCEPTED_MS, HEADER_FORWARDED_AMONG, HEADER_PROJECT

# A dead letter keeps its bytes up to Kafka's own limit for a record; a longer one could not have come in.
_WHITESPACE: Final = b" \t\r\n"
# Below this many records of one object each, one by one is as fast.
_WORTH_BULK: Final = 3
_NUMBERS: Final = frozenset({int, float})
# How `data` and `metadata` may begin: an object, absent, or null.
_OBJECT_HEADS: Final = frozenset({b"{", b"", b"n"})


# The shape of ids made here, `_Scribe._made_id`: the topic's id, partition, offset, index.
_MADE_ID: Final = re.compile(r"[0-9a-f]{32}-[0-9]+-[0-9]+-[0-9]+")
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
    headers: Sequence[tuple[str, bytes]] = ()


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
    origin = f"{incarnation}-{partition}"
    ordered = list(records)
    out.records = len(ordered)
    out.newest_record_ms = max((record.timestamp_ms for record in ordered), default=0)
    place = 0
    while place < len(ordered):
        end = _alike(ordered, place)
        if end - place < _WORTH_BULK or not _Scribe(ordered[place], out, origin, partitions).singles(ordered[place:end]):
            for record in ordered[place:end]:
                _Scribe(record, out, origin, partitions).record()
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

    def __init__(self, record: Record, out: Decoded, origin: str, partitions: int) -> None:
        self._record = record
        self._out = out
        self._origin = origin
        self._project = ""
        self._first_accepted_ms: int | None = None
        self._forwarded = False
        for name, value in record.headers:
            if name == HEADER_PROJECT:
                self._project = value.decode(errors="replace")
            elif name == HEADER_FIRST_ACCEPTED_MS and value.isdigit() and len(value) < 16:
                self._first_accepted_ms = min(int(value), record.timestamp_ms)
            elif name == HEADER_FORWARDED_AMONG and value.isdigit() and len(value) < 10:
                self._forwarded = int(value) >= partitions
        self._accepted_ms = record.timestamp_ms if self._first_accepted_ms is None else self._first_accepted_ms

    def record(self) -> None:
        value = self._record.value
        if value is None or not value.strip(_WHITESPACE):
            self._dead(0, value or b"", "record_empty", "the record has no value")
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
        if not is_project(self._project) or self._first_accepted_ms is not None:
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

    def _pieces(self, value: bytes) -> None:
        """The slow way: piece by piece, so that one bad piece costs nothing but itself."""
        stripped = value.strip(_WHITESPACE)
        pieces: Sequence[bytes | msgspec.Raw]
        if stripped[:1] == b"[":
            try:
                pieces = split_array(stripped)
            except ValueError as error:
                self._dead(0, value, "invalid_json", f"not a JSON array: {error}")
                return
        elif b"\n" in stripped and not _is_json(stripped):
            pieces = [line for line in stripped.split(b"\n") if line.strip(_WHITESPACE)]
        else:
            pieces = [stripped]
        for index, piece in enumerate(pieces):
            raw = bytes(piece)
            try:
                raw.decode()
                event = decode_event(raw)
            except UnicodeDecodeError:
                self._dead(index, raw, "invalid_encoding", "the event is not UTF-8")
            except InvalidEvent as error:
                self._dead(index, raw, error.reason, error.message)
            else:
                self._event(index, event, (raw, -1))

    def _event(self, index: int, event: Event, source: tuple[bytes, int]) -> None:
        record = self._record
        out = self._out
        try:
            check_objects(event)
            project_id = self._project or event.project_id or ""
            if not is_project(project_id):
                raise InvalidEvent(
                    "project_invalid" if project_id else "project_missing",
                    "a `project_id` of 1 to 128 letters, digits, `_`, `-`, `.` or `:` comes in the record header or the event",
                )
            if event.timestamp in (None, ""):
                at_ms = record.timestamp_ms
            else:
                at_ms = timestamp_ms(event.timestamp)
                check_timestamp(at_ms, accepted_ms=self._accepted_ms, slack_ms=WORKER_SLACK_MS)
        except InvalidEvent as error:
            value, place = source
            raw = value if place < 0 else bytes(_decode_raws.decode(value)[place])
            self._dead(index, raw, error.reason, error.message)
            return
        out.events.append(event)
        out.project_ids.append(project_id)
        out.ids.append(event.id or self._made_id(record.offset, index))
        out.timestamps_ms.append(at_ms)
        out.accepted_ms.append(self._accepted_ms)
        out.offsets.append(record.offset)
        out.indexes.append(index)
        for raws, raw in ((out.data, bytes(event.data)), (out.metadata, bytes(event.metadata))):
            raws.append(b"" if raw == b"null" else raw)
        out.sources.append(source)
        out.stays.append(self._forwarded or not event.id)

    def _made_id(self, offset: int, index: int) -> str:
        """The id of an event that came without one: the same after any replay."""
        return f"{self._origin}-{offset}-{index}"

    def _dead(self, index: int, payload: bytes, reason: str, message: str) -> None:
        project_id = self._project
        if not project_id:
            project_id = _project_of(payload)
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


def split_array(value: bytes) -> Sequence[bytes | msgspec.Raw]:
    """Part a JSON array into the bytes of its items.

    Raises:
        ValueError: where it is not an array even to a lenient reader, or not UTF-8.
    """
    try:
        return _decode_raws.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # One item that only a lenient reader can pass over (a lone surrogate, NaN) must not take the others with it.
        return list(_lenient_items(value))


def _lenient_items(value: bytes) -> Iterable[bytes]:
    text = value.decode()
    scan = json.JSONDecoder().raw_decode
    place = _next(text, 1)
    if text[place] == "]":
        return
    while True:
        try:
            _, end = scan(text, place)
        except RecursionError:
            raise ValueError("nested too deep") from None
        yield text[place:end].encode()
        place = _next(text, end)
        if text[place] == "]":
            if text[place + 1 :].strip():
                raise ValueError("text behind the array")
            return
        if text[place] != ",":
            raise ValueError(f"no comma behind item at character {place}")
        place = _next(text, place + 1)


def _next(text: str, place: int) -> int:
    """The place of the next character that is no white space."""
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    if place == len(text):
        raise ValueError("the array does not end")
    return place


class _Owner(msgspec.Struct):
    project_id: str = ""


_decode_owner = msgspec.json.Decoder(_Owner)
_decode_any = msgspec.json.Decoder(msgspec.Raw)


def _project_of(payload: bytes) -> str:
    """Whose a dead letter is, as far as its bytes say so."""
    try:
        return _decode_owner.decode(payload).project_id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def _is_json(value: bytes) -> bool:
    try:
        _decode_any.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
