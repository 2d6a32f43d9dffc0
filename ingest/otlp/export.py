"""From the bytes of an export request to the events in it, and to what is told of the rest. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ingest.admission import Admission, Rejected
from ingest.formats import FormatError, Items
from ingest.otlp import json_form, protobuf
from ingest.otlp.answers import Encoding
from ingest.otlp.mapping import event_of
from ingest.otlp.spans import Malformed, TooMuch, Unreadable

# As many refusals as an answer tells of; an exporter prints it into its log.
_TOLD_MAX: Final = 5
_BROKEN: Final = "invalid_span"


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A request taken apart: events of its tool spans, the tool spans that are broken by themselves, and how many others."""

    events: Sequence[bytes]
    broken: Sequence[Rejected]
    ignored: int


def encoding_of(content_type: str) -> Encoding | None:
    """Return the encoding of a content type, None for any that OTLP does not have."""
    media = content_type.partition(";")[0].strip().lower()
    if media in ("application/x-protobuf", "application/protobuf"):
        return "protobuf"
    return "json" if media == "application/json" else None


def take_apart(body: bytes, encoding: Encoding, *, events_max: int) -> Export:
    """Read a request.

    Args:
        body: decompressed.
        events_max: it may hold that many tool spans.

    Raises:
        FormatError: 400 for what is no request, 413 for one that holds too much.
    """
    events: list[bytes] = []
    broken: list[Rejected] = []
    ignored = 0
    try:
        for span in protobuf.spans(body) if encoding == "protobuf" else json_form.spans(body):
            if span is None:
                ignored += 1
                continue
            try:
                if isinstance(span, Unreadable):
                    raise Malformed(span.message)
                event = event_of(span)
            except Malformed as error:
                broken.append(Rejected(index=len(events) + len(broken), code=_BROKEN, message=str(error)))
            else:
                if event is None:
                    ignored += 1
                else:
                    events.append(event)
            if len(events) + len(broken) > events_max:
                raise FormatError(413, f"the request holds more than {events_max} tool spans; send fewer at once")
    except Malformed as error:
        raise FormatError(400, f"the body is no ExportTraceServiceRequest in {encoding}: {error}") from None
    except TooMuch as error:
        raise FormatError(413, f"{error}; send fewer spans at once") from None
    return Export(events=events, broken=broken, ignored=ignored)


def items_of(export: Export) -> Items:
    """Return the events of a request as items to be judged, as any other's."""
    return Items(raws=export.events, utf8=True, bytes_max=sum(map(len, export.events)))


def with_broken(export: Export, admission: Admission) -> Admission:
    """Return what became of all tool spans: those that were broken before count among the refused."""
    return Admission(ids=admission.ids, raws=admission.raws, rejected=[*export.broken, *admission.rejected])


def told(rejected: Sequence[Rejected]) -> str:
    """Return what an exporter is told of refused spans."""
    lines = [f"{one.id}: {one.message}" if one.id else one.message for one in rejected[:_TOLD_MAX]]
    more = len(rejected) - len(lines)
    return f"{len(rejected)} tool spans were refused: " + "; ".join(lines) + (f"; and {more} more" if more else "")
