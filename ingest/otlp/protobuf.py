"""`ExportTraceServiceRequest` in protobuf: its spans, one by one.

The envelope is walked by hand and each span parsed alone, by the official classes: parsed as a whole, a body of empty messages
would take thirty times its size in memory before anybody could refuse it, and one broken span would lose all the others
(decision 15).
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from ingest.otlp.conventions import MARKS
from ingest.otlp.spans import PARTS_MAX, Malformed, Origin, Span, SpanEvent, TooMuch, Unreadable
from ingest.otlp.wire import Wire

# A tool's span this large makes no event that fits; parsed, it may take thirty times that.
_SPAN_BYTES_MAX: Final = 4 * 1024 * 1024
_MARKS: Final = tuple(mark.encode() for mark in MARKS)


def spans(body: bytes) -> Iterator[Span | Unreadable | None]:
    """Give the spans of a request, in order.

    Yields:
        None for a span in which nothing tells of a tool, without parsing it.

    Raises:
        Malformed: the request is none; before the first span, or behind some.
        TooMuch: it has too many spans, or attributes.
    """
    return _Reader(body).spans()


class _Reader:
    """One request, and how many values may still be taken out of it."""

    def __init__(self, body: bytes) -> None:
        self._wire = Wire(body)
        self._left = PARTS_MAX

    def spans(self) -> Iterator[Span | Unreadable | None]:
        for number, start, end in self._wire.messages(0, len(self._wire.data)):
            if number == 1:
                yield from self._resource_spans(start, end)

    def _resource_spans(self, start: int, end: int) -> Iterator[Span | Unreadable | None]:
        parts = list(self._wire.messages(start, end))
        resource = _parsed(Resource, self._joined(parts))
        attributes = self._attributes(resource.attributes)
        for number, begin, stop in parts:
            if number == 2:
                yield from self._scope_spans(begin, stop, attributes)

    def _scope_spans(self, start: int, end: int, resource: dict[str, Any]) -> Iterator[Span | Unreadable | None]:
        parts = list(self._wire.messages(start, end))
        scope = _parsed(InstrumentationScope, self._joined(parts))
        origin = Origin(resource=resource, scope=scope.name, scope_version=scope.version)
        data = self._wire.data
        for number, begin, stop in parts:
            if number != 2:
                continue
            if not any(data.find(mark, begin, stop) >= 0 for mark in _MARKS):
                yield None
                continue
            try:
                yield self._span(data[begin:stop], origin)
            except Malformed as error:
                yield Unreadable(message=str(error))

    def _joined(self, parts: Iterable[tuple[int, int, int]]) -> bytes:
        """Return what describes all spans of a group; where it comes twice, the format has it joined."""
        return b"".join(self._wire.data[begin:stop] for number, begin, stop in parts if number == 1)

    def _span(self, raw: bytes, origin: Origin) -> Span:
        if len(raw) > _SPAN_BYTES_MAX:
            raise Malformed(f"the span has {len(raw)} bytes; at most {_SPAN_BYTES_MAX} are read")
        given = _parsed(SpanMessage, raw)
        return Span(
            trace_id=given.trace_id.hex(),
            span_id=given.span_id.hex(),
            parent_span_id=given.parent_span_id.hex(),
            name=given.name,
            kind=given.kind,
            start_ns=given.start_time_unix_nano,
            end_ns=given.end_time_unix_nano,
            attributes=self._attributes(given.attributes),
            events=[SpanEvent(name=event.name, attributes=self._attributes(event.attributes)) for event in given.events],
            status=given.status.code,
            status_message=given.status.message,
            origin=origin,
        )

    def _attributes(self, pairs: Iterable[KeyValue]) -> dict[str, Any]:
        return {pair.key: self._value(pair.value) for pair in pairs}

    def _value(self, given: AnyValue) -> Any:
        self._left -= 1
        if self._left < 0:
            raise TooMuch(f"the request holds more than {PARTS_MAX} attributes")
        kind = given.WhichOneof("value")
        if kind is None or kind == "string_value_strindex":
            return None
        if kind == "array_value":
            return [self._value(one) for one in given.array_value.values]
        if kind == "kvlist_value":
            return self._attributes(given.kvlist_value.values)
        return getattr(given, kind)


def _parsed(kind: Any, raw: bytes) -> Any:
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise Malformed(f"not protobuf: {error}") from None
