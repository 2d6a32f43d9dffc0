"""`ExportTraceServiceRequest` in JSON: its spans, one by one.

Source: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding: ids are hex, 64-bit numbers are texts or numbers,
unknown members are ignored. A null is the same as nothing (https://protobuf.dev/programming-guides/json/).
"""

import base64
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from ingest.contract.surrogates import without_halves
from ingest.otlp.spans import (
    PARTS_MAX,
    SPANS_MAX,
    Attributes,
    Malformed,
    Origin,
    Span,
    SpanEvent,
    TooMuch,
    Unreadable,
)

# Values inside values: fewer than what protobuf's own limit of 100 messages allows, as each takes two or three.
_DEPTH_MAX: Final = 50
_NUMBER_MAX: Final = 2**64
# Names are not what the format asks for, but some exporters send them all the same.
_STATUS: Final = {"STATUS_CODE_UNSET": 0, "STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}
_KIND: Final = {"SPAN_KIND_INTERNAL": 1, "SPAN_KIND_SERVER": 2, "SPAN_KIND_CLIENT": 3}


class _Value(msgspec.Struct, frozen=True, rename="camel"):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: int | str | None = None
    double_value: float | str | None = None
    array_value: "_Array | None" = None
    kvlist_value: "_Pairs | None" = None
    bytes_value: str | None = None


class _Array(msgspec.Struct, frozen=True):
    values: list[_Value] | None = None


class _Pair(msgspec.Struct, frozen=True):
    key: str | None = None
    value: _Value | None = None


class _Pairs(msgspec.Struct, frozen=True):
    values: list[_Pair] | None = None


class _Event(msgspec.Struct, frozen=True):
    name: str | None = None
    attributes: list[_Pair] | None = None


class _Status(msgspec.Struct, frozen=True):
    code: int | str | None = None
    message: str | None = None


class _Span(msgspec.Struct, frozen=True, rename="camel"):
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    name: str | None = None
    kind: int | str | None = None
    start_time_unix_nano: int | str | None = None
    end_time_unix_nano: int | str | None = None
    attributes: list[_Pair] | None = None
    events: list[_Event] | None = None
    status: _Status | None = None


class _Resource(msgspec.Struct, frozen=True):
    attributes: list[_Pair] | None = None


class _Scope(msgspec.Struct, frozen=True):
    name: str | None = None
    version: str | None = None


class _Nothing(msgspec.Struct, frozen=True):
    """Any object; what is none is refused before it is kept."""


class _ScopeShape(msgspec.Struct, frozen=True):
    spans: list[_Nothing] | None = None


class _ResourceShape(msgspec.Struct, frozen=True, rename="camel"):
    scope_spans: list[_ScopeShape] | None = None


class _Shape(msgspec.Struct, frozen=True, rename="camel"):
    resource_spans: list[_ResourceShape] | None = None


class _ScopeSpans(msgspec.Struct, frozen=True):
    scope: _Scope | None = None
    spans: list[msgspec.Raw] | None = None


class _ResourceSpans(msgspec.Struct, frozen=True, rename="camel"):
    resource: _Resource | None = None
    scope_spans: list[_ScopeSpans] | None = None


class _Request(msgspec.Struct, frozen=True, rename="camel"):
    resource_spans: list[_ResourceSpans] | None = None


_check_shape = msgspec.json.Decoder(_Shape).decode
_decode = msgspec.json.Decoder(_Request).decode
_decode_span = msgspec.json.Decoder(_Span).decode


def spans(body: bytes) -> Iterator[Span | Unreadable]:
    """Give the spans of a request, in order.

    Raises:
        Malformed: the request is none; before the first span.
        TooMuch: it has too many objects.
    """
    if body.count(b"{") > PARTS_MAX:
        raise TooMuch(f"the request holds more than {PARTS_MAX} objects")
    # SDKs cut long attributes, some of them in the middle of a character; the whole request would go with it.
    body = without_halves(body)
    try:
        # The slices of the second reading cost more than what they point to: first it must be clear that they are of objects,
        # whose number is known.
        shape = _check_shape(body)
        if sum(len(scope.spans or ()) for group in shape.resource_spans or () for scope in group.scope_spans or ()) > SPANS_MAX:
            raise TooMuch(f"the request holds more than {SPANS_MAX} spans")
        del shape
        request = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(_told(error)) from None
    for group in request.resource_spans or ():
        resource = _attributes(group.resource.attributes if group.resource else None)
        for scoped in group.scope_spans or ():
            scope = scoped.scope or _Scope()
            origin = Origin(resource=resource, scope=scope.name or "", scope_version=scope.version or "")
            for raw in scoped.spans or ():
                try:
                    yield _span(raw, origin)
                except Malformed as error:
                    yield Unreadable(message=str(error))


def _span(raw: msgspec.Raw, origin: Origin) -> Span:
    try:
        given = _decode_span(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(_told(error)) from None
    status = given.status or _Status()
    return Span(
        trace_id=(given.trace_id or "").lower(),
        span_id=(given.span_id or "").lower(),
        parent_span_id=(given.parent_span_id or "").lower(),
        name=given.name or "",
        kind=_named(given.kind, _KIND),
        start_ns=_number(given.start_time_unix_nano),
        end_ns=_number(given.end_time_unix_nano),
        attributes=_attributes(given.attributes),
        events=[SpanEvent(name=event.name or "", attributes=_attributes(event.attributes)) for event in given.events or ()],
        status=_named(status.code, _STATUS),
        status_message=status.message or "",
        origin=origin,
    )


def _attributes(pairs: list[_Pair] | None, depth: int = 0) -> Attributes:
    return {pair.key or "": None if pair.value is None else _value(pair.value, depth + 1) for pair in pairs or ()}


def _value(given: _Value, depth: int) -> Any:
    if depth > _DEPTH_MAX:
        raise Malformed(f"values are nested deeper than {_DEPTH_MAX} levels")
    if given.array_value is not None:
        return [_value(one, depth + 1) for one in given.array_value.values or ()]
    if given.kvlist_value is not None:
        return _attributes(given.kvlist_value.values, depth)
    if given.int_value is not None:
        return _number(given.int_value)
    try:
        if given.double_value is not None:
            return float(given.double_value)
        if given.bytes_value is not None:
            return base64.b64decode(given.bytes_value)
    except ValueError:
        raise Malformed("a doubleValue is no number, or a bytesValue no base64") from None
    return given.bool_value if given.string_value is None else given.string_value


def _number(given: int | str | None) -> int:
    if isinstance(given, str):
        # As many digits as 64 bits can have; `int` of a long text would take its time.
        digits = given.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 20:
            raise Malformed(f"`{given[:40]}` is no whole number")
        given = int(given)
    if abs(given or 0) >= _NUMBER_MAX:
        raise Malformed("a whole number has more than 64 bits")
    return given or 0


def _named(given: int | str | None, names: dict[str, int]) -> int:
    return names.get(given, 0) if isinstance(given, str) else given or 0


def _told(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "values are nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return "a text is not UTF-8"
    return f"not JSON: {error}" if not isinstance(error, msgspec.ValidationError) else str(error)
