"""Bodies as the gateway looks at them: read, cut to size, and given a `log_id`. Pure.

A request or an answer always goes on as the bytes it came as; what is cut here is only what the log keeps of it.
"""

import codecs
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import orjson

from ingest.contract.surrogates import without_halves
from ingest.formats import FormatError, decompress

# What can be undone here; a body in another encoding goes on all the same, and the log says that it could not be read.
READABLE: Final = frozenset({"gzip", "x-gzip", "deflate", "zstd", "identity", ""})
_SPACE: Final = b" \t\r\n"
# Texts and arrays are cut ever shorter until a payload fits: (characters of a text, items of an array or members of an object).
_CUTS: Final = ((65_536, 10_000), (8_192, 1_000), (1_024, 100), (256, 20), (64, 5))
_DEPTH_MAX: Final = 60

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]]', re.DOTALL)
_EMPTY_VALUE: Final = re.compile(rb'\s*:\s*(null|"")')


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """One body.

    Args:
        raw: decompressed, or as much of it as was kept.
        size: of the whole, as it was on the wire.
        whole: whether `raw` is all of it.
        json: whether its headers say that it is JSON.
        unread: why it could not be read, if so.
    """

    raw: bytes
    size: int
    whole: bool = True
    json: bool = True
    unread: str = ""

    @property
    def text(self) -> bytes:
        """What it says: without the mark that some put in front of UTF-8."""
        return self.raw.removeprefix(codecs.BOM_UTF8)

    def members(self) -> Mapping[str, msgspec.Raw] | None:
        """Return the members of a JSON object; None where this is none, or not whole."""
        if not self.whole or self.unread or self.text.lstrip(_SPACE)[:1] != b"{":
            return None
        raw = without_halves(self.text)
        try:
            # The decoder looks only at what it keeps as text.
            str(raw, "utf-8")
            return _members(raw)
        except (ValueError, RecursionError):
            return _lenient_members(raw)


def read(raw: bytes, headers: Mapping[bytes, bytes], *, bytes_max: int) -> Body:
    """Return a body as it can be looked at, decompressed.

    Args:
        raw: as it came, whole.
        headers: with lower-case names.
        bytes_max: a body that becomes larger than that is not read.
    """
    json = _is_json(headers.get(b"content-type", b""))
    encodings = [one.strip().lower() for one in headers.get(b"content-encoding", b"").decode("latin-1").split(",")]
    applied = ["gzip" if one == "x-gzip" else one for one in encodings if one not in ("", "identity")]
    unknown = next((one for one in applied if one not in READABLE), None)
    if unknown is not None:
        return Body(raw=b"", size=len(raw), json=json, unread=f"its encoding {unknown[:40]!r} cannot be undone here")
    text = raw
    try:
        for one in reversed(applied):
            text = _inflate(text, bytes_max) if one == "deflate" else decompress(text, (one,), bytes_max=bytes_max)
    except FormatError as error:
        return Body(raw=b"", size=len(raw), json=json, unread=error.message)
    return Body(raw=text, size=len(raw), json=json)


class Kept:
    """The beginning of a body that goes by."""

    def __init__(self, bytes_max: int) -> None:
        self.size = 0
        self._raw = bytearray()
        self._bytes_max = bytes_max

    def add(self, chunk: bytes) -> None:
        """Take in a part."""
        room = self._bytes_max - len(self._raw)
        if room > 0:
            self._raw += chunk[:room]
        self.size += len(chunk)

    def body(self, headers: Mapping[bytes, bytes], *, ended: bool) -> Body:
        """Return what there is of it; `ended` tells that all of it has gone by."""
        if ended and self.size == len(self._raw):
            return read(bytes(self._raw), headers, bytes_max=self._bytes_max)
        unread = "packed, and not whole" if headers.get(b"content-encoding", b"identity").strip() != b"identity" else ""
        json = _is_json(headers.get(b"content-type", b""))
        return Body(raw=b"" if unread else bytes(self._raw), size=self.size, whole=False, json=json, unread=unread)


def is_held(headers: Mapping[bytes, bytes], *, bytes_max: int) -> bool:
    """Tell whether an answer is read to its end before it goes on: JSON that is not known to be too large."""
    length = headers.get(b"content-length", b"")
    return _is_json(headers.get(b"content-type", b"")) and not (length.isdigit() and int(length) > bytes_max)


def with_log_id(raw: bytes, log_id: str, *, named: bool) -> bytes | None:
    """Return a JSON object with a `log_id`, every other byte as it was; None where it is no object.

    Where the member is there (`named`) and is null or empty, its value is replaced, else it is put behind the last one.
    """
    value = _encode(log_id)
    depth = 0
    for found in _TOKEN.finditer(raw) if named else ():
        token = found[0]
        if token in (b"{", b"["):
            depth += 1
        elif token in (b"}", b"]"):
            depth -= 1
        elif depth == 1 and token == b'"log_id"' and (empty := _EMPTY_VALUE.match(raw, found.end())):
            return raw[: empty.start(1)] + value + raw[empty.end(1) :]
    end = len(raw.rstrip(_SPACE)) - 1
    if end < 1 or raw[end : end + 1] != b"}":
        return None
    comma = b"" if raw[:end].rstrip(_SPACE).endswith(b"{") else b","
    return raw[:end] + comma + b'"log_id":' + value + raw[end:]


def kept(body: Body, *, bytes_max: int) -> tuple[msgspec.Raw, bool]:
    """Return what the log keeps of a body, as JSON, and whether that is less than the whole.

    JSON stays as it is where it fits; else its texts and arrays are cut, so that members keep their names and secrets can
    still be told by them. Of JSON that is not whole only the size is kept, because secrets in it could not.
    """
    if not body.raw and body.whole and not body.unread:
        return msgspec.Raw(b"null"), False
    as_json = body.json or body.text.lstrip(_SPACE)[:1] in (b"{", b"[")
    if body.unread or (not body.whole and as_json):
        return _note(f"not kept: {body.unread or 'larger than is held here'}", body.size), True
    raw = without_halves(body.text) if as_json else body.text
    value = _json(raw)
    if value is None:
        return _text(body, bytes_max)
    if len(raw) <= bytes_max:
        return msgspec.Raw(raw.strip(_SPACE)), False
    for chars, items in _CUTS:
        encoded = _encode(_cut(value, chars, items, _DEPTH_MAX))
        if len(encoded) <= bytes_max:
            return msgspec.Raw(encoded), True
    return _note("not kept: too large", body.size), True


def clip(text: str, chars_max: int) -> str:
    """Return a text that is no longer than that, with a note of what was cut."""
    if len(text) <= chars_max:
        return text
    note = f" ... [{len(text)} characters]"
    return text[: chars_max - len(note)] + note


def text_of(raw: msgspec.Raw | None) -> str:
    """Return a JSON string's text, or that of a number; "" for anything else."""
    if raw is None:
        return ""
    value = _json(bytes(raw))
    if isinstance(value, str):
        # Half a surrogate pair is no character, and no event may hold one.
        return value.encode(errors="replace").decode()
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def flag_of(raw: msgspec.Raw | None) -> bool | None:
    """Return a JSON boolean, None for anything else."""
    return {b"true": True, b"false": False}.get(b"" if raw is None else bytes(raw))


def _json(raw: bytes) -> Any:
    """Return the value of a JSON text, None where it is none."""
    try:
        return orjson.loads(raw)
    except ValueError:
        return None


def _lenient_members(raw: bytes) -> Mapping[str, msgspec.Raw] | None:
    """Read what many clients take for JSON though it is none: NaN and infinities, which become null."""
    try:
        value = json.loads(raw, parse_constant=lambda _: None)
        return {name: msgspec.Raw(_encode(one)) for name, one in value.items()}
    except (ValueError, RecursionError, OverflowError):
        return None


def _is_json(content_type: bytes) -> bool:
    media = content_type.partition(b";")[0].strip().lower()
    return media in (b"", b"application/json", b"text/json") or media.endswith(b"+json")


def _inflate(raw: bytes, bytes_max: int) -> bytes:
    # By name zlib's form; some servers send the bare stream.
    for bits in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
        stream = zlib.decompressobj(wbits=bits)
        try:
            text = stream.decompress(raw, bytes_max + 1)
        except zlib.error:
            continue
        if len(text) > bytes_max:
            raise FormatError(413, f"it holds more than {bytes_max} bytes after decompression")
        if stream.eof:
            return text
    raise FormatError(400, "the body is not deflate")


def _cut(value: Any, chars: int, items: int, depth: int) -> Any:
    if isinstance(value, str):
        return clip(value, chars)
    if isinstance(value, list):
        if not depth:
            return f"[{len(value)} items]"
        more = [f"... [{len(value)} items]"] if len(value) > items else []
        return [_cut(one, chars, items, depth - 1) for one in value[:items]] + more
    if isinstance(value, dict):
        if not depth:
            return f"[{len(value)} members]"
        found = {clip(name, 256): _cut(one, chars, items, depth - 1) for name, one in list(value.items())[:items]}
        return found | ({"...": f"[{len(value)} members]"} if len(value) > items else {})
    return value


def _text(body: Body, bytes_max: int) -> tuple[msgspec.Raw, bool]:
    """Keep a text as a JSON string. Escapes may make six bytes of one, so it is cut until it fits."""
    text = body.raw.decode(errors="replace")
    chars = bytes_max
    while len(encoded := _encode(clip(text, chars))) > bytes_max:
        chars = chars * bytes_max // (len(encoded) + bytes_max)
    return msgspec.Raw(encoded), not body.whole or chars < len(text)


def _note(text: str, size: int) -> msgspec.Raw:
    return msgspec.Raw(_encode({"truncated": True, "bytes": size, "note": text}))
