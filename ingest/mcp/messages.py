"""JSON-RPC as it may come: anything that is not what it should be reads as nothing. Pure."""

import json
import re
from typing import Any, Final

import msgspec

from ingest.contract.surrogates import without_halves
from ingest.mcp.lines import HEAD_BYTES, TAIL_BYTES, Line, TooLong

Members = dict[str, msgspec.Raw]
Id = str | int | float

_members: Final = msgspec.json.Decoder(Members).decode
_batch: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_any: Final = msgspec.json.Decoder().decode
_FAULTS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_WHITE: Final = b" \t\r\n\xef\xbb\xbf"
_ID: Final = rb'"id"\s*:\s*(-?\d+|"(?:[^"\\]|\\.)*")'
# Of a line too long to be read: where implementations put the id, before the result or behind it.
_ID_BEFORE: Final = re.compile(rb'^\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?' + _ID + rb"\s*[,}]")
_ID_BEHIND: Final = re.compile(rb"[,{]\s*" + _ID + rb'\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')
_ERROR_BEFORE: Final = re.compile(rb'^[^{]*\{[^{]*"error"\s*:\s*\{')
_IS_ERROR: Final = re.compile(rb'"isError"\s*:\s*true\b')
_METHOD: Final = re.compile(rb'"method"\s*:\s*"([^"\\]*)"')
_NAME: Final = re.compile(rb'"name"\s*:\s*"([^"\\]*)"')


def messages(line: Line) -> list[Members]:
    """Return the messages of a line: one, those of a batch, or none where it is no JSON-RPC."""
    if isinstance(line, TooLong):
        return _skimmed(line)
    text = line.strip(_WHITE)
    if not text or text[0] not in b"{[":
        return []
    try:
        str(text, "utf-8")
    except UnicodeDecodeError:
        # What cannot be a character would make the whole event unreadable later.
        text = text.decode(errors="replace").encode()
    text = without_halves(text)
    try:
        return [_members(text)] if text[0] == b"{"[0] else [members(one) for one in _batch(text)]
    except RecursionError:
        return _skimmed(TooLong(text[:HEAD_BYTES], text[-TAIL_BYTES:], len(text)))
    except _FAULTS:
        return _tolerated(text)


def _tolerated(line: bytes) -> list[Members]:
    """Read what is no JSON by the standard but is by habit: NaN and infinities, which then are null."""
    try:
        read = json.loads(line, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return []
    found = read if isinstance(read, list) else [read]
    return [
        {name: msgspec.Raw(json.dumps(part).encode()) for name, part in one.items()} for one in found if isinstance(one, dict)
    ]


def _skimmed(line: TooLong) -> list[Members]:
    """Read what can be known of a line from its two ends."""
    found = _ID_BEFORE.search(line.head) or _ID_BEHIND.search(line.tail)
    if found is None:
        return []
    size = msgspec.json.encode({"bytes": line.size, "cut": True})
    read: Members = {"id": msgspec.Raw(found[1])}
    method = _METHOD.search(line.head) or _METHOD.search(line.tail)
    if method is not None:
        name = _NAME.search(line.head) or _NAME.search(line.tail)
        params: dict[str, Any] = {"arguments": msgspec.Raw(size)}
        if name is not None:
            params["name"] = name[1].decode(errors="replace")
        read |= {"method": msgspec.Raw(b'"%b"' % method[1]), "params": msgspec.Raw(msgspec.json.encode(params))}
    elif _ERROR_BEFORE.search(line.head):
        read["error"] = msgspec.Raw(size)
    elif _IS_ERROR.search(line.head[:1_024]) or _IS_ERROR.search(line.tail):
        read["result"] = msgspec.Raw(b'{"isError":true,"cut":%b}' % size)
    else:
        read["result"] = msgspec.Raw(size)
    return [read]


def members(raw: msgspec.Raw | bytes | None) -> Members:
    """Return an object's members; none where it is no object."""
    if raw is None:
        return {}
    try:
        return _members(raw)
    except _FAULTS:
        return {}


def value(raw: msgspec.Raw | bytes | None) -> Any:
    """Return any JSON value; None where there is none."""
    if raw is None:
        return None
    try:
        return _any(raw)
    except _FAULTS:
        return None


def text(raw: msgspec.Raw | None) -> str | None:
    """Return a string; None where it is none, or empty."""
    found = value(raw)
    return found if isinstance(found, str) and found else None


def identity(raw: msgspec.Raw | None) -> Id | None:
    """Return the id of a request or a progress token: a string or a number."""
    found = value(raw)
    return found if isinstance(found, str | int | float) and not isinstance(found, bool) else None
