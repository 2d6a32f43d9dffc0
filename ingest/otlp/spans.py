"""A span as both encodings of OTLP give it, and what cannot be read as one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

# Attribute values as Python has them: text, bool, int, float, bytes, list, dict, None.
Attributes = Mapping[str, Any]

# Attributes, or JSON objects, of one request. 10,000 tool calls of twenty attributes have half of it, and taking that many
# takes about a second; a body of empty ones, two bytes each, would hold thirty times as many.
PARTS_MAX: Final = 1_000_000

# Spans and groups of spans of one request, tools' or not: ten times what the collector sends at once by default, and passed
# over within a second. Two bytes can say one.
SPANS_MAX: Final = 100_000

TRACE_ID_CHARS: Final = 32
SPAN_ID_CHARS: Final = 16

STATUS_UNSET: Final = 0
STATUS_OK: Final = 1
STATUS_ERROR: Final = 2
KIND_SERVER: Final = 2
KIND_CLIENT: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanEvent:
    """Something that happened during a span, as an exception."""

    name: str
    attributes: Attributes


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What the spans of one group share: who made them, and with what."""

    resource: Attributes = field(default_factory=dict)
    scope: str = ""
    scope_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One span. Ids in lower-case hex, empty where there is none; times in nanoseconds since the epoch, 0 where unset."""

    trace_id: str = ""
    span_id: str = ""
    parent_span_id: str = ""
    name: str = ""
    kind: int = 0
    start_ns: int = 0
    end_ns: int = 0
    attributes: Attributes = field(default_factory=dict)
    events: Sequence[SpanEvent] = ()
    status: int = STATUS_UNSET
    status_message: str = ""
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A span that is broken by itself; its neighbours are not."""

    message: str


class Malformed(Exception):
    """A request, or a part of it, that is not what its encoding says."""


class TooMuch(Exception):
    """A request that would take longer to read than anybody's real one; the message names what there is too much of."""
