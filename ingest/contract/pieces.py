"""From the bytes of a record's value to events, piece by piece, and the checks that an event must pass. Pure.

The one place that says what can become an event: the worker goes by it when a record comes, and a replay of a dead letter
when it is asked whether a mended one can.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from ingest.contract.access import is_project
from ingest.contract.errors import InvalidEvent
from ingest.contract.event import (
    WORKER_SLACK_MS,
    Event,
    check_encoding,
    check_objects,
    check_timestamp,
    decode_event,
    timestamp_ms,
)

WHITESPACE: Final = b" \t\r\n"


class _Owner(msgspec.Struct):
    project_id: str = ""


# The shortest event has 51 bytes. Of pieces half as long on average most are none, and each alone would cost a row: four
# megabytes of line breaks must not become two million dead letters.
_PIECE_BYTES_MIN: Final = 25
_PIECES_ALWAYS: Final = 1_000

_decode_raws = msgspec.json.Decoder(list[msgspec.Raw])
_decode_owner = msgspec.json.Decoder(_Owner)
_decode_any = msgspec.json.Decoder(msgspec.Raw)
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def pieces(value: bytes) -> Sequence[bytes | msgspec.Raw]:
    """Part a value into the bytes of its events: one JSON object, an array of them, or NDJSON.

    Raises:
        InvalidEvent: `record_empty`, `invalid_json` for what begins as an array and is none, or `too_many_pieces`.
    """
    found = _pieces(value)
    if len(found) > max(_PIECES_ALWAYS, len(value) // _PIECE_BYTES_MIN):
        raise InvalidEvent("too_many_pieces", f"the record has {len(found)} pieces in {len(value)} bytes: no pack of events")
    return found


def _pieces(value: bytes) -> Sequence[bytes | msgspec.Raw]:
    stripped = value.strip(WHITESPACE)
    if not stripped:
        raise InvalidEvent("record_empty", "the record has no value")
    if stripped[:1] == b"[":
        try:
            return _array_items(stripped)
        except ValueError as error:
            raise InvalidEvent("invalid_json", f"not a JSON array: {error}") from None
    if b"\n" in stripped and not _is_json(stripped):
        return [line for line in stripped.split(b"\n") if line.strip(WHITESPACE)]
    return [stripped]


def decode_piece(raw: bytes) -> Event:
    """Decode one piece; that it is no text at all is said before anything else.

    Raises:
        InvalidEvent: as `decode_event`.
    """
    check_encoding(raw)
    return decode_event(raw)


def is_whole_record(*, index: int, reason: str, payload: bytes) -> bool:
    """Tell whether a dead letter is a whole record that could not be parted, so that nothing else came of the record.

    An item of an array, or a line, is refused for another reason or at another place.
    """
    no_array = reason == "invalid_json" and payload.lstrip(WHITESPACE)[:1] == b"["
    return index == 0 and (no_array or reason == "too_many_pieces")


def checked(event: Event, *, project_id: str, accepted_ms: int) -> tuple[str, int | None]:
    """Check what decoding alone does not.

    Args:
        project_id: of the record's header; "" where the event itself must say whose it is.
        accepted_ms: when it was accepted first, epoch ms: the age of an event is judged against it.

    Returns:
        The project, and the event's timestamp in epoch ms; None where it has none.

    Raises:
        InvalidEvent: with a reason and a message.
    """
    check_objects(event)
    owner = project_id or event.project_id or ""
    if not is_project(owner):
        raise InvalidEvent(
            "project_invalid" if owner else "project_missing",
            "a `project_id` of 1 to 128 letters, digits, `_`, `-`, `.` or `:` comes in the record header or the event",
        )
    if event.timestamp in (None, ""):
        return owner, None
    assert event.timestamp is not None
    at_ms = timestamp_ms(event.timestamp)
    check_timestamp(at_ms, accepted_ms=accepted_ms, slack_ms=WORKER_SLACK_MS)
    return owner, at_ms


def project_of(payload: bytes) -> str:
    """Return whose a piece is, as far as its bytes say so; "" else."""
    try:
        return _decode_owner.decode(payload).project_id
    except _UNREADABLE:
        return ""


def _array_items(value: bytes) -> Sequence[bytes | msgspec.Raw]:
    """Part a JSON array into the bytes of its items.

    Raises:
        ValueError: where it is not an array even to a lenient reader, or not UTF-8.
    """
    try:
        return _decode_raws.decode(value)
    except _UNREADABLE:
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


def _is_json(value: bytes) -> bool:
    try:
        _decode_any.decode(value)
    except _UNREADABLE:
        return False
    return True
