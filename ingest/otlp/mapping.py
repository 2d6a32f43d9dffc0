"""From a span to an event as any other producer would send it. Pure."""

import base64
import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ingest.contract.event import EVENT_BYTES_MAX, IDENTIFIER_CHARS_MAX, MESSAGE_CHARS_MAX
from ingest.otlp import conventions as names
from ingest.otlp.spans import (
    KIND_CLIENT,
    KIND_SERVER,
    SPAN_ID_CHARS,
    STATUS_ERROR,
    STATUS_OK,
    TRACE_ID_CHARS,
    Attributes,
    Malformed,
    Span,
)

_ID_PREFIX: Final = "otel_"
_HEX: Final = frozenset("0123456789abcdef")
_NS_PER_MS: Final = 1_000_000
_CUT: Final = "..."
# Only what could be an object or an array is looked at as JSON: `5` and `true` are texts that a tool was given.
_JSON_HEADS: Final = ("{", "[")


class _Part(msgspec.Struct, frozen=True):
    text: str = ""


class _Result(msgspec.Struct, frozen=True, rename="camel"):
    """The result of an MCP call, as far as failures go."""

    is_error: bool = False
    content: Sequence[_Part] = ()


_decode_result = msgspec.json.Decoder(_Result).decode
_is_json = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.Encoder().encode


def event_id(trace_id: str, span_id: str) -> str:
    """Return the id of a span's event: the same however often the span is exported."""
    return f"{_ID_PREFIX}{trace_id}_{span_id}"


def event_of(span: Span) -> bytes | None:
    """Return the JSON of a span's event, or None where the span is no execution of a tool.

    The span's own limits are not looked at here: whoever admits events does so. Only texts that a producer cannot help,
    of errors and of where it runs, are cut to what is taken.

    Raises:
        Malformed: ids or times that are none.
    """
    if not names.is_tool_execution(span.attributes):
        return None
    members = _members(span)
    encoded = _encode(members)
    if len(encoded) > EVENT_BYTES_MAX:
        # What nobody asked for goes first.
        members["metadata"]["otel"].pop("attributes", None)
        encoded = _encode(members)
    return encoded


def _members(span: Span) -> dict[str, Any]:
    attributes, resource = span.attributes, span.origin.resource
    _check_id("trace id", span.trace_id, TRACE_ID_CHARS)
    _check_id("span id", span.span_id, SPAN_ID_CHARS)
    if span.start_ns <= 0:
        raise Malformed("the span has no start")
    if span.end_ns <= 0:
        raise Malformed("the span has no end")
    tool = _text(names.first(attributes, names.TOOL)) or names.tool_in(span.name)
    arguments = _content(span, names.ARGUMENTS, names.ARGUMENT_EVENTS)
    result = _content(span, names.RESULT, names.RESULT_EVENTS)
    failed = _failed(span, result)
    members: dict[str, Any] = {
        "id": event_id(span.trace_id, span.span_id),
        "tool_slug": tool,
        "status": "failed" if failed else "success",
        # Clocks are set back at times; the call took place all the same.
        "duration_ms": max(0, span.end_ns - span.start_ns) / _NS_PER_MS,
        "timestamp": span.start_ns // _NS_PER_MS,
        "toolkit_slug": _toolkit(span, tool),
        "session_id": _text(names.first(attributes, names.SESSION)) or _text(names.first(resource, ("session.id",))),
        "user_id": _text(names.first(attributes, names.USER)) or _text(names.first(resource, ("user.id", "enduser.id"))),
        "error": _error(span, result) if failed else None,
        "context": _present(
            trace_id=span.trace_id, request_id=_short(names.first(attributes, names.REQUEST_ID), IDENTIFIER_CHARS_MAX)
        ),
        "source": _present(
            framework=_short(span.origin.scope, IDENTIFIER_CHARS_MAX),
            language=_short(resource.get("telemetry.sdk.language"), IDENTIFIER_CHARS_MAX),
            host=_short(resource.get("host.name"), IDENTIFIER_CHARS_MAX),
        ),
        "data": _present(request=arguments, response=result),
        "metadata": _metadata(span, failed=failed),
    }
    if any(one != "0" for one in span.parent_span_id):
        # It names a log only where the parent is the execution of a tool too; calls of one parent are found by it either way.
        members["parent"] = {"log_id": event_id(span.trace_id, span.parent_span_id)}
    return {name: value for name, value in members.items() if value is not None}


def _check_id(what: str, given: str, chars: int) -> None:
    if len(given) != chars or not _HEX.issuperset(given) or not given.strip("0"):
        raise Malformed(f"the {what} `{given[:40]}` is not {chars} hexadecimal digits, or all zero")


def _toolkit(span: Span, tool: str) -> str | None:
    """Return the toolkit or server a span names; None leaves it to what is known of the tool's name."""
    found = names.first(span.attributes, names.TOOLKIT) or names.toolkit_in(tool)
    if found is None and names.is_mcp_call(span.attributes):
        if span.kind == KIND_SERVER:
            found = span.origin.resource.get("service.name")
        elif span.kind == KIND_CLIENT:
            found = names.first(span.attributes, names.SERVER_ADDRESS)
    return _text(found)


def _failed(span: Span, result: Any) -> bool:
    """Tell whether the tool failed; of an exception that was caught nothing follows."""
    if span.status == STATUS_ERROR:
        return True
    if span.status == STATUS_OK:
        return False
    if names.first(span.attributes, names.ERROR_TYPE) is not None or names.says_failed(span.attributes):
        return True
    escaped = any(event.attributes.get("exception.escaped") in (True, "true", "True") for event in span.events)
    return escaped or _mcp_failure(span, result) is not None


def _mcp_failure(span: Span, result: Any) -> str | None:
    """Return what the result of an MCP call says where it says of itself that it is an error."""
    if not names.is_mcp_call(span.attributes) or result is None:
        return None
    try:
        given = _decode_result(result if isinstance(result, msgspec.Raw) else _encode(result))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not given.is_error:
        return None
    return "\n".join(part.text for part in given.content if part.text)


def _error(span: Span, result: Any) -> dict[str, Any]:
    exceptions = [event.attributes for event in span.events if event.name == names.EXCEPTION_EVENT]
    raised: Attributes = exceptions[-1] if exceptions else {}
    told = _text(raised.get("exception.message"))
    message = span.status_message or _text(names.first(span.attributes, names.ERROR_MESSAGE))
    # SDKs describe the status as `ValueError: text`; the type has a place of its own.
    if not message or (told and message.endswith(f": {told}")):
        message = told or message or _mcp_failure(span, result)
    kind = names.first(span.attributes, names.ERROR_TYPE) or raised.get("exception.type")
    return _present(
        message=_short(message, MESSAGE_CHARS_MAX),
        code=_short(names.first(span.attributes, names.ERROR_CODE), IDENTIFIER_CHARS_MAX),
        type=_short(kind, IDENTIFIER_CHARS_MAX),
    )


def _metadata(span: Span, *, failed: bool) -> dict[str, Any]:
    resource = span.origin.resource
    # A second spelling that says something else is kept, and so is an error of what did not fail.
    told = names.TOLD if failed else {name: same for name, same in names.TOLD.items() if same not in names.ERRORS}
    kept = {
        name: _plain(value)
        for name, value in span.attributes.items()
        if name not in told or _text(value) != _text(names.first(span.attributes, told[name]))
    }
    otel = _present(
        span_id=span.span_id,
        parent_span_id=span.parent_span_id or None,
        span_name=span.name or None,
        scope_version=span.origin.scope_version or None,
        service_name=_text(resource.get("service.name")),
        exception_stacktrace=_stacktrace(span),
        attributes=kept or None,
    )
    return _present(tool_call_id=_text(names.first(span.attributes, names.CALL_ID))) | {"otel": otel}


def _stacktrace(span: Span) -> str | None:
    found = [event.attributes.get("exception.stacktrace") for event in span.events if event.name == names.EXCEPTION_EVENT]
    return _short(found[-1], MESSAGE_CHARS_MAX) if found else None


def _content(span: Span, attributes: Sequence[str], events: Sequence[tuple[str, str]]) -> Any:
    """Return arguments or result: from an attribute, or from the last span event that holds it."""
    found = names.first(span.attributes, attributes)
    if found is None:
        for wanted, member in events:
            for event in reversed(span.events):
                if event.name == wanted and event.attributes.get(member) not in (None, ""):
                    return _json(event.attributes[member])
    return _json(found)


def _json(value: Any) -> Any:
    """Return a text that is JSON as the very JSON it is; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in _JSON_HEADS:
        try:
            return _is_json(value)
        except (msgspec.MsgspecError, RecursionError):
            return value
    return _plain(value)


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold: infinities and bytes as texts."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value


def _text(value: Any) -> str | None:
    """Return an identifier as text: some are sent as numbers."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    return _encode(_plain(value)).decode()


def _short(value: Any, chars: int) -> str | None:
    text = _text(value)
    return text if text is None or len(text) <= chars else text[: chars - len(_CUT)] + _CUT


def _present(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
