"""The event: one tool execution, as producers send it, with every limit and the reason for it.

Pure: no I/O, no clock. Time limits are judged against the time of acceptance that the caller passes in, so that a replay
judges alike.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from ingest.contract.errors import InvalidEvent
from ingest.contract.nesting import LEVELS_MAX, too_deep

# One event's JSON. A tool's response seldom passes 100 kB; Kafka's own default record is 1 MiB.
EVENT_BYTES_MAX: Final = 1024 * 1024
# Identifiers are index and sketch keys; OpenTelemetry and the incumbent stay below 256 as well.
IDENTIFIER_CHARS_MAX: Final = 256
# A message is one line for a person; a stack trace belongs into data.
MESSAGE_CHARS_MAX: Final = 16_384
# 31 days: longer "durations" are timestamps put into the wrong member.
DURATION_MS_MAX: Final = 31 * 24 * 3_600_000
# Age of events (SURFACE 6): from 2015-01-01 to 24 hours after acceptance.
TIMESTAMP_MS_MIN: Final = 1_420_070_400_000
TIMESTAMP_AHEAD_MS_MAX: Final = 24 * 3_600_000
# What ingest took an instant before midnight must never become a dead letter for its age.
WORKER_SLACK_MS: Final = 3_600_000
# Members of events that are objects of strings (context, source, parent): unknown members are tolerated.

Reason = Literal[
    "invalid_json",
    "invalid_encoding",
    "invalid_member",
    "missing_member",
    "unknown_status",
    "event_too_large",
    "nested_too_deep",
    "timestamp_out_of_range",
    "timestamp_unreadable",
    "past_retention",
    "project_missing",
    "project_invalid",
    "project_mismatch",
    "record_empty",
    "too_many_pieces",
    "invalid_cloudevent",
]

Identifier = Annotated[str, Meta(max_length=IDENTIFIER_CHARS_MAX)]
Slug = Annotated[str, Meta(min_length=1, max_length=IDENTIFIER_CHARS_MAX)]
Text = Annotated[str, Meta(max_length=MESSAGE_CHARS_MAX)]
# The same rule over HTTP and on Kafka; the slash parts project and id in a record key, so it cannot be in a project.
PROJECT_PATTERN: Final = r"^[A-Za-z0-9_.:-]{1,128}$"


# What `data` and `metadata` are when an event has none: this very object, so that asking costs a comparison of addresses.
ABSENT: Final = msgspec.Raw(b"")


class Failure(msgspec.Struct, frozen=True):
    """What went wrong, as the tool or its upstream said it."""

    message: Text | None = None
    code: Identifier | int | None = None
    type: Identifier | None = None


class Context(msgspec.Struct, frozen=True):
    trace_id: Identifier | None = None
    request_id: Identifier | None = None


class Source(msgspec.Struct, frozen=True):
    framework: Identifier | None = None
    language: Identifier | None = None
    host: Identifier | None = None


class Parent(msgspec.Struct, frozen=True):
    log_id: Identifier | None = None
    tool_slug: Identifier | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One tool execution on the wire. Unknown members are tolerated; null is the same as absent.

    `timestamp` is the start of the call: ISO 8601 (UTC without a zone) or epoch milliseconds. `duration_ms` in milliseconds.
    `data` and `metadata` stay the bytes that were sent.
    """

    tool_slug: Slug
    status: Literal["success", "failed"]
    duration_ms: Annotated[float, Meta(ge=0, le=DURATION_MS_MAX)]
    id: Identifier | None = None
    project_id: Identifier | None = None
    timestamp: str | float | None = None
    toolkit_slug: Identifier | None = None
    user_id: Identifier | None = None
    session_id: Identifier | None = None
    message: Text | None = None
    error: Failure | Text | None = None
    data: msgspec.Raw = ABSENT
    context: Context | None = None
    source: Source | None = None
    connected_account_id: Identifier | None = None
    auth_config_id: Identifier | None = None
    sandbox_id: Identifier | None = None
    parent: Parent | None = None
    metadata: msgspec.Raw = ABSENT


_decode = msgspec.json.Decoder(Event).decode
# A high surrogate that no low one follows, or a low one without a high one before it.
_LONE_SURROGATE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_OBJECT_OR_NULL: Final = b"{n"


def decode_event(raw: bytes | msgspec.Raw) -> Event:
    """Decode one event's JSON.

    Raises:
        InvalidEvent: with a reason and a message that names the member and the limit.
    """
    size = len(raw) if isinstance(raw, bytes) else memoryview(raw).nbytes
    if size > EVENT_BYTES_MAX:
        raise InvalidEvent("event_too_large", f"the event has {size} bytes; at most {EVENT_BYTES_MAX} are taken")
    try:
        event = _decode(raw)
    except msgspec.ValidationError as error:
        raise invalid_member(error) from None
    except msgspec.DecodeError as error:
        if (lone := _LONE_SURROGATE.search(raw)) is not None:
            text = lone[0].decode("ascii")
            raise InvalidEvent("invalid_encoding", f"`{text}` is half of a surrogate pair, which is no character") from None
        raise InvalidEvent("invalid_json", f"not JSON: {error}") from None
    except UnicodeDecodeError:
        raise InvalidEvent("invalid_encoding", "the event is not UTF-8") from None
    except RecursionError:
        raise _nested("the event") from None
    check_encoding(raw)
    check_objects(event)
    return event


def check_encoding(raw: bytes | msgspec.Raw) -> None:
    """Refuse bytes that are not UTF-8, wherever they stand; the decoder itself looks only at members that it keeps as text.

    Raises:
        InvalidEvent: `invalid_encoding`.
    """
    try:
        str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidEvent("invalid_encoding", f"the event is not UTF-8: byte {error.start} cannot stand there") from None


def invalid_member(error: msgspec.ValidationError) -> InvalidEvent:
    """Turn a decoder's complaint into a reason; its text names the expectation and, behind `$.`, the member."""
    text = str(error)
    if text.startswith("Invalid enum value") and text.endswith("`$.status`"):
        given = text.removeprefix("Invalid enum value ").partition(" - at ")[0]
        return InvalidEvent("unknown_status", f"`status` is `success` or `failed`, not {given}")
    reason: Reason = "missing_member" if "missing required field" in text else "invalid_member"
    return InvalidEvent(reason, text.replace("Object missing", "the event is missing").replace("`$.", "`"))


def check_objects(event: Event) -> None:
    """Refuse `data` and `metadata` that are anything but an object, null or absent, or nested too deep.

    Raises:
        InvalidEvent: `invalid_member`, `nested_too_deep`.
    """
    for name, value in (("data", event.data), ("metadata", event.metadata)):
        if value is not ABSENT:
            view = memoryview(value)
            if view.nbytes and view[0] not in _OBJECT_OR_NULL:
                raise InvalidEvent("invalid_member", f"`{name}` must be a JSON object")
            if view.nbytes > 2 * LEVELS_MAX and too_deep(bytes(view)):
                raise _nested(f"`{name}`")


def _nested(what: str) -> InvalidEvent:
    return InvalidEvent("nested_too_deep", f"{what} is nested deeper than {LEVELS_MAX} levels")


def timestamp_ms(value: str | float) -> int:
    """Read a timestamp; fractions of a millisecond are cut.

    Raises:
        InvalidEvent: `timestamp_unreadable`.
    """
    if not isinstance(value, str):
        return int(value)
    try:
        # RFC 3339 writes `t` and `z` small, too.
        moment = datetime.fromisoformat(value.upper())
    except ValueError:
        raise InvalidEvent(
            "timestamp_unreadable",
            "`timestamp` is ISO 8601, as in 2026-04-17T10:25:00.000Z, or epoch milliseconds as a number",
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    # Subtracted, not converted to UTC first: that overflows at the ends of the calendar. Integers, since float seconds lose
    # the last millisecond of distant years.
    whole = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (whole.days * 86_400 + whole.seconds) * 1000 + whole.microseconds // 1000


def check_retention(value_ms: int, *, kept_since_ms: int) -> None:
    """Refuse an event of a time of which its project's retention has taken everything away.

    Args:
        value_ms: the event's timestamp, epoch ms.
        kept_since_ms: what the project keeps begins there, epoch ms.

    Raises:
        InvalidEvent: `past_retention`.
    """
    if value_ms < kept_since_ms:
        since = datetime.fromtimestamp(kept_since_ms / 1000, tz=UTC)
        raise InvalidEvent("past_retention", f"`timestamp` is before {since:%Y-%m-%d}, where what the project keeps begins")


def check_timestamp(value_ms: int, *, accepted_ms: int, slack_ms: int = 0) -> None:
    """Refuse an event outside the allowed age.

    Args:
        value_ms: the event's timestamp, epoch ms.
        accepted_ms: when it was accepted, epoch ms: the clock at ingest, the record's own time in the worker.
        slack_ms: widens the limit on both sides.

    Raises:
        InvalidEvent: `timestamp_out_of_range`, with a hint when another unit was probably meant.
    """
    if TIMESTAMP_MS_MIN - slack_ms <= value_ms <= accepted_ms + TIMESTAMP_AHEAD_MS_MAX + slack_ms:
        return
    hint = ""
    for unit, factor in (("seconds", 1000.0), ("microseconds", 1e-3), ("nanoseconds", 1e-6)):
        if TIMESTAMP_MS_MIN <= value_ms * factor <= accepted_ms + TIMESTAMP_AHEAD_MS_MAX:
            hint = f"; it looks like {unit}, send milliseconds"
    shown = value_ms if abs(value_ms) < 10**21 else f"{float(value_ms):.3g}"
    raise InvalidEvent(
        "timestamp_out_of_range",
        f"`timestamp` {shown} is outside 2015-01-01 to 24 hours after acceptance (epoch milliseconds){hint}",
    )
