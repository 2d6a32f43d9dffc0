"""CloudEvents 1.0: an envelope around a tool execution, from its attributes and its data to an event's own JSON. Pure.

An event is one by `source` and `id` together, so these make the event's id, and both stay in its `metadata.cloudevent` with all
other attributes. The data is the tool execution, byte for byte as it was sent.

Source: cloudevents/spec 1.0.2: spec.md, formats/json-format.md, bindings/http-protocol-binding.md, kafka-protocol-binding.md.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from ingest.contract.errors import InvalidEvent
from ingest.contract.event import ABSENT, decode_event
from ingest.contract.nesting import LEVELS_MAX

_ID_PREFIX: Final = "ce_"
_ID_HEX_CHARS: Final = 32
_VERSION: Final = "1.0"
_REQUIRED: Final = ("id", "source", "type")
# Neither may stand in any attribute, which is why a line break can part source and id.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# What an envelope needs to be read, and nobody afterwards.
_NOT_KEPT: Final = frozenset(("specversion", "datacontenttype", "data", "data_base64"))
_NULL: Final = b"null"
# W3C Trace Context, `traceparent`.
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")

_KAFKA_PREFIX: Final = "ce_"
_CONTENT_TYPE: Final = "content-type"
STRUCTURED_TYPE: Final = "application/cloudevents+json"
BATCH_TYPE: Final = "application/cloudevents-batch+json"
FORMATS_HEAD: Final = "application/cloudevents"


class _Given(msgspec.Struct, frozen=True):
    """Whether the data has what an envelope can add."""

    id: msgspec.Raw = ABSENT
    timestamp: msgspec.Raw = ABSENT
    context: msgspec.Raw = ABSENT
    metadata: msgspec.Raw = ABSENT


_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_given = msgspec.json.Decoder(_Given).decode
_value = msgspec.json.Decoder(str | bool | int | None).decode
_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode

Attributes = Mapping[str, str | bool | int]


def event_id(source: str, event: str) -> str:
    """Return the id of the event that a source calls by an id: from SHA-256 of both, with a line break between them."""
    return _ID_PREFIX + hashlib.sha256(f"{source}\n{event}".encode()).hexdigest()[:_ID_HEX_CHARS]


def of_structured(raw: bytes | msgspec.Raw) -> bytes:
    """Return the event in a CloudEvent of the JSON format.

    Raises:
        InvalidEvent: it is none, or its data cannot be a tool execution.
    """
    try:
        members = _members(raw)
        attributes = {name: found for name, value in members.items() if (found := _attribute(name, value)) is not None}
    except UnicodeDecodeError:
        raise InvalidEvent("invalid_encoding", "the CloudEvent is not UTF-8") from None
    except RecursionError:
        raise InvalidEvent("nested_too_deep", f"the CloudEvent is nested deeper than {LEVELS_MAX} levels") from None
    except msgspec.ValidationError:
        raise InvalidEvent("invalid_cloudevent", "a CloudEvent in JSON is an object") from None
    except msgspec.DecodeError as error:
        raise InvalidEvent("invalid_json", f"not JSON: {error}") from None
    data = members.get("data")
    encoded = members.get("data_base64")
    if encoded is not None and bytes(encoded) != _NULL:
        if data is not None:
            raise InvalidEvent("invalid_cloudevent", "a CloudEvent has either `data` or `data_base64`, not both")
        if "datacontenttype" not in attributes:
            raise InvalidEvent("invalid_cloudevent", "`data_base64` without `datacontenttype` may be anything; say what it is")
        return event_of(attributes, _decoded(encoded))
    return event_of(attributes, None if data is None else bytes(data))


def is_kafka_header(name: str, value: bytes) -> bool:
    """Tell whether a record with such a header is a CloudEvent, in either mode of the Kafka binding."""
    if name[:3].lower() == _KAFKA_PREFIX:
        return True
    return name.lower() == _CONTENT_TYPE and value[: len(FORMATS_HEAD)].lower() == FORMATS_HEAD.encode()


def of_record(headers: Iterable[tuple[str, bytes | None]], value: bytes) -> bytes:
    """Return the event of a Kafka record that is a CloudEvent, structured or binary.

    Raises:
        InvalidEvent: it is none, or its data cannot be a tool execution.
    """
    attributes: dict[str, str] = {}
    for given, raw in headers:
        name = given.lower()
        if raw is None or not (name == _CONTENT_TYPE or name.startswith(_KAFKA_PREFIX)):
            continue
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise InvalidEvent("invalid_encoding", f"the header {given[:100]} is not UTF-8") from None
        attributes["datacontenttype" if name == _CONTENT_TYPE else name.removeprefix(_KAFKA_PREFIX)] = text
    media = attributes.get("datacontenttype", "").partition(";")[0].strip().lower()
    if not media.startswith(FORMATS_HEAD):
        return event_of(attributes, value)
    if media != STRUCTURED_TYPE:
        raise InvalidEvent("invalid_cloudevent", f"the content type {media[:100]!r} is not understood in a record")
    return of_structured(value)


def readable_id(raw: bytes | msgspec.Raw) -> str | None:
    """Return the CloudEvent's own id, so that the sender of a refused one knows which; None where it cannot be read."""
    try:
        return _text(_members(raw)["id"])
    except (KeyError, ValueError, RecursionError):
        return None


def event_of(attributes: Attributes, data: bytes | None) -> bytes:
    """Return the event of a CloudEvent that has been taken apart.

    What is added stands behind the data's own members, which stay as they are: the id of the pair, `metadata.cloudevent`, and,
    where the data has none, the time as `timestamp` and the trace of `traceparent` as `context`.

    Args:
        attributes: all of them, by name; unset ones are not there.
        data: as sent; None where there is none.

    Raises:
        InvalidEvent: a required attribute is missing or none, or the data cannot be a tool execution.
    """
    _check(attributes)
    content_type = str(attributes.get("datacontenttype", "application/json"))
    if not _is_json(content_type):
        raise InvalidEvent("invalid_cloudevent", f"`datacontenttype` is {content_type[:100]!r}; a tool execution is JSON")
    body = (data or b"").strip()
    if body[:1] != b"{":
        raise InvalidEvent("invalid_cloudevent", "the data of the CloudEvent is no tool execution: it is not a JSON object")
    try:
        given = _given(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        decode_event(body)
        raise InvalidEvent("invalid_json", "the data of the CloudEvent is not JSON") from None
    added = {"id": _encode(event_id(str(attributes["source"]), str(attributes["id"])))}
    if _is_absent(given.timestamp) and "time" in attributes:
        added["timestamp"] = _encode(attributes["time"])
    if _is_absent(given.context) and (trace := _TRACEPARENT.fullmatch(str(attributes.get("traceparent", "")))):
        added["context"] = _encode({"trace_id": trace[1]})
    added["metadata"] = _metadata(attributes, given)
    return _appended(body, added)


def _check(attributes: Attributes) -> None:
    version = attributes.get("specversion")
    if version != _VERSION:
        said = "has no `specversion`" if version is None else f"is of version {str(version)[:20]!r}"
        raise InvalidEvent("invalid_cloudevent", f"the CloudEvent {said}; {_VERSION} is taken")
    for name in _REQUIRED:
        value = attributes.get(name)
        if not isinstance(value, str) or not value:
            raise InvalidEvent("invalid_cloudevent", f"the CloudEvent's `{name}` is missing, empty or no text")
    for name, value in attributes.items():
        if isinstance(value, str) and _CONTROL.search(value):
            raise InvalidEvent("invalid_cloudevent", f"the CloudEvent's `{name[:100]}` holds a control character")


def _attribute(name: str, raw: msgspec.Raw) -> str | bool | int | None:
    if name in ("data", "data_base64"):
        return None
    try:
        found: str | bool | int | None = _value(raw)
    except msgspec.ValidationError:
        raise InvalidEvent(
            "invalid_cloudevent", f"the CloudEvent's `{name[:100]}` is no text, whole number or boolean, as attributes are"
        ) from None
    return found


def _decoded(raw: msgspec.Raw) -> bytes:
    try:
        return base64.b64decode(_text(raw), validate=True)
    except (msgspec.MsgspecError, ValueError, binascii.Error):
        raise InvalidEvent("invalid_cloudevent", "`data_base64` is not base64") from None


def _is_json(content_type: str) -> bool:
    media = content_type.partition(";")[0].strip().lower()
    subtype = media.partition("/")[2]
    return subtype == "json" or subtype.endswith("+json")


def _is_absent(raw: msgspec.Raw) -> bool:
    return bytes(raw) in (b"", _NULL, b'""')


def _metadata(attributes: Attributes, given: _Given) -> bytes:
    kept: dict[str, Any] = {name: value for name, value in attributes.items() if name not in _NOT_KEPT}
    if not _is_absent(given.id):
        # No attribute has a name with an underscore.
        kept["data_id"] = given.id
    member = {"cloudevent": _encode(kept)}
    raw = bytes(given.metadata)
    if raw[:1] == b"{":
        return _appended(raw, member)
    # Metadata that is no object is refused, like anybody's.
    return _appended(b"{}", member) if raw in (b"", _NULL) else raw


def _appended(body: bytes, members: Mapping[str, bytes]) -> bytes:
    """Append members to a JSON object; of two of one name the last one counts."""
    added = b",".join(b'"' + name.encode() + b'":' + value for name, value in members.items())
    inner = body[:-1].rstrip()
    return inner + (b"" if inner == b"{" else b",") + added + b"}"
