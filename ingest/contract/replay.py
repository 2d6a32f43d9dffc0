"""From a dead letter to the records that make events of it, the same ones however often it is done. Pure.

Exactly once hangs on three things made fast here: each event has an id, its timestamp, and the time it was accepted first. So
a replay that runs twice, or dies half-way and is run again, sends what the ledger knows already. An event that came without an
id gets the one the worker would have given it in its place, in the partition where the worker would have kept it: a record that
is read again from Kafka, by a worker that can read it by then, meets its replay there.
"""

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from ingest.contract.errors import InvalidEvent
from ingest.contract.event import Event, decode_event
from ingest.contract.partitioning import event_key, home_partition
from ingest.contract.pieces import WHITESPACE, checked, decode_piece, is_whole_record, pieces
from ingest.contract.topics import (
    HEADER_FIRST_ACCEPTED_MS,
    HEADER_FORWARDED_AMONG,
    HEADER_PROJECT,
    HEADER_REPLAY_OF,
)

# As many partitions as no topic has: an event whose id was made from its origin stays there, however many are added.
_STAYS: Final = b"999999999"
_ID: Final = re.compile(r"([0-9a-f]{32})-(0|[1-9]\d{0,9})-(0|[1-9]\d{0,18})-(0|[1-9]\d{0,9})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A dead letter as it is kept. `accepted_ms` is the first acceptance, `project_id` is "" where nobody knows it."""

    incarnation: str
    partition: int
    offset: int
    index: int
    project_id: str
    accepted_ms: int
    reason: str
    payload: bytes

    @property
    def id(self) -> str:
        """What people call it by."""
        return letter_id(self.incarnation, self.partition, self.offset, self.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRecord:
    """One event on its way back to the topic."""

    event_id: str
    project_id: str
    partition: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


def letter_id(incarnation: str, partition: int, offset: int, index: int) -> str:
    """Return the id of what stood in a place: of a dead letter, and of an event that came without an id."""
    return f"{incarnation}-{partition}-{offset}-{index}"


def parse_letter_id(text: str) -> tuple[str, int, int, int] | None:
    """Return (incarnation, partition, offset, index) of a dead letter's id, None for any other text."""
    match = _ID.fullmatch(text)
    if match is None:
        return None
    partition, offset, index = int(match[2]), int(match[3]), int(match[4])
    # ClickHouse would take a larger number for what is left of it in its column.
    fits = partition < 2**32 and offset < 2**63 and index < 2**32
    return (match[1], partition, offset, index) if fits else None


def replay(
    letter: Letter, *, incarnation: str, partitions: int, mended: bytes | None = None, project_id: str = ""
) -> list[ReplayRecord]:
    """Make the records of a dead letter.

    Args:
        incarnation: the topic's present id.
        partitions: how many the topic has now.
        mended: what to send instead of the letter's own bytes: an event, an array of them, or NDJSON.
        project_id: whose it is, for a letter that does not say; one that does keeps its own.

    Returns:
        One record an event, in order; a worker that reads them makes events of all of them.

    Raises:
        InvalidEvent: it, or one event in it, still cannot become an event; then nothing of it should be sent.
    """
    owner = letter.project_id or project_id
    parts = _parts(letter, mended)
    topic = (incarnation, partitions)
    made = []
    for index, part in enumerate(parts):
        try:
            made.append(_record(letter, index, bytes(part).strip(WHITESPACE), owner, topic, mended=mended is not None))
        except InvalidEvent as error:
            where = f"event {index} of {len(parts)}: " if len(parts) > 1 else ""
            raise InvalidEvent(error.reason, where + error.message) from None
    return made


def _parts(letter: Letter, mended: bytes | None) -> Sequence[bytes | msgspec.Raw]:
    """What it holds. Bytes as they were are one event: the worker parted them already, unless it could not at all."""
    if mended is None and not letter.payload and letter.reason != "record_empty":
        raise InvalidEvent("record_empty", "its bytes were past retention and are gone; send the event itself in their place")
    whole = is_whole_record(index=letter.index, reason=letter.reason, payload=letter.payload)
    if mended is None and not whole:
        if not letter.payload.strip(WHITESPACE):
            raise InvalidEvent("record_empty", "the record has no value")
        return [letter.payload]
    # Some editors put a byte order mark in front of what they save.
    parts = pieces(letter.payload if mended is None else mended.removeprefix(codecs.BOM_UTF8))
    if not parts:
        raise InvalidEvent("record_empty", "there is no event in it")
    return parts


def _record(letter: Letter, index: int, raw: bytes, owner: str, topic: tuple[str, int], *, mended: bool) -> ReplayRecord:
    incarnation, partitions = topic
    event = decode_piece(raw)
    if mended and owner and event.project_id and event.project_id != owner:
        raise InvalidEvent("project_mismatch", f"`project_id` {event.project_id!r} is not {owner!r}, whose dead letter it is")
    project_id, at_ms = checked(event, project_id=owner, accepted_ms=letter.accepted_ms)
    event_id = event.id or _made_id(letter, index)
    value = _made_fast(raw, event, event_id, letter.accepted_ms if at_ms is None else None)
    headers = [
        (HEADER_PROJECT, project_id.encode()),
        (HEADER_FIRST_ACCEPTED_MS, b"%d" % letter.accepted_ms),
        (HEADER_REPLAY_OF, letter.id.encode()),
    ]
    key = event_key(project_id, event_id)
    # An id of its own is at home where its key says. A made one is where it was made; of a topic that is gone nothing stays.
    stays = not event.id and letter.incarnation == incarnation and letter.partition < partitions
    if stays:
        headers.append((HEADER_FORWARDED_AMONG, _STAYS))
    return ReplayRecord(
        event_id=event_id,
        project_id=project_id,
        partition=letter.partition if stays else home_partition(key, partitions),
        key=key,
        value=value,
        headers=tuple(headers),
    )


def _made_id(letter: Letter, index: int) -> str:
    """The id of an event without one. One more part than any id the worker makes, so that it is nobody else's."""
    if not index:
        return letter.id
    if is_whole_record(index=letter.index, reason=letter.reason, payload=letter.payload):
        # Nothing else came of that record: these are the ids the worker would give today.
        return letter_id(letter.incarnation, letter.partition, letter.offset, index)
    return f"{letter.id}-{index}"


def _made_fast(raw: bytes, event: Event, event_id: str, at_ms: int | None) -> bytes:
    """Put id and timestamp in. Appended, for the last of two equal members counts.

    Raises:
        InvalidEvent: there is no room for them.
    """
    added = b"" if event.id else b',"id":"%s"' % event_id.encode()
    if at_ms is not None:
        added += b',"timestamp":%d' % at_ms
    if not added:
        return raw
    value = raw[:-1] + added + b"}"
    again = decode_event(value)
    assert again.id == event_id
    assert at_ms is None or again.timestamp == at_ms
    return value
