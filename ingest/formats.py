"""From the bytes of a request to its items: one object, an array, or NDJSON; plain, gzip or zstd. Pure.

An item is the slice of the body that holds one event, so that what is passed on is byte for byte what was sent.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import zstandard

Item = bytes | msgspec.Raw
Shape = Literal["json", "ndjson"]

# A zstd frame may ask its reader for a window of gigabytes; the format's own recommendation for readers is 8 MiB.
_ZSTD_WINDOW_BYTES_MAX: Final = 8 * 1024 * 1024
# zstd can say 128 KiB in 4 bytes: a step of 512 bytes becomes at most 16 MiB, so that a bomb passes the limit by no more.
_ZSTD_STEP_BYTES: Final = 512
# gzip bounds its own output; what a call leaves unread is copied each time, so it is fed in slices too.
_GZIP_STEP_BYTES: Final = 64 * 1024
_GZIP_PART_BYTES: Final = 256 * 1024
# A member for each event is as fine as anybody appends; millions of empty ones would only burn time.
_MEMBERS_MAX: Final = 10_000
_BOM: Final = b"\xef\xbb\xbf"
_SPACE: Final = b" \t\r\n"
_NDJSON_TYPES: Final = frozenset(
    f"application/{name}" for name in ("x-ndjson", "ndjson", "jsonl", "x-jsonl", "jsonlines", "x-jsonlines", "json-lines")
)
_JSON_TYPES: Final = frozenset(("", "application/json", "text/json"))

_split_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_whole = msgspec.json.Decoder(msgspec.Raw).decode


class FormatError(Exception):
    """A body that cannot be taken apart at all.

    Args:
        status: 400 broken, 413 too large, 415 not understood.
        message: what was wrong, with the limit.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """The items of one body, in the order sent.

    `lines` holds the line of each item, from 1, for NDJSON. `utf8` tells that the whole body is UTF-8; if not, each item has
    to be looked at. No item is larger than `bytes_max`.
    """

    raws: Sequence[Item]
    lines: Sequence[int] | None = None
    utf8: bool
    bytes_max: int

    def part(self, start: int, end: int) -> "Items":
        """Return some of the items, by their places."""
        lines = None if self.lines is None else self.lines[start:end]
        return Items(raws=self.raws[start:end], lines=lines, utf8=self.utf8, bytes_max=self.bytes_max)


def shape_of(content_type: str) -> Shape:
    """Tell how a body of this content type is written; without one it is taken for JSON.

    Raises:
        FormatError: 415 for a type or a charset that is not understood.
    """
    media, _, parameters = content_type.partition(";")
    media = media.strip().lower()
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        charset = value.strip().strip('"').lower()
        if name.strip().lower() == "charset" and charset not in ("utf-8", "utf8", "us-ascii"):
            raise FormatError(415, f"the charset {charset!r} is not understood; JSON is UTF-8")
    if media in _JSON_TYPES:
        return "json"
    if media in _NDJSON_TYPES:
        return "ndjson"
    raise FormatError(415, f"the content type {media!r} is not understood; send application/json or application/x-ndjson")


def encodings_of(content_encoding: str) -> tuple[str, ...]:
    """List the encodings of a `Content-Encoding` header in the order they were applied.

    Raises:
        FormatError: 415 for one that is not understood, or for more than two.
    """
    names = [name.strip().lower() for name in content_encoding.split(",")]
    found = tuple("gzip" if name == "x-gzip" else name for name in names if name not in ("", "identity"))
    for name in found:
        if name not in ("gzip", "zstd"):
            raise FormatError(415, f"the content encoding {name!r} is not understood; send gzip, zstd or identity")
    if len(found) > 2:
        raise FormatError(415, "more than two content encodings are not taken")
    return found


def decompress(body: bytes, encodings: Sequence[str], *, bytes_max: int) -> bytes:
    """Undo the encodings, the last applied first; several gzip members or zstd frames are read one after the other.

    Args:
        body: as sent.
        encodings: gzip or zstd, as `encodings_of` lists them.
        bytes_max: the result may hold that many bytes; reading stops there, whatever the body claims.

    Raises:
        FormatError: 413 beyond the limit, 400 for broken or truncated data.
    """
    for name in reversed(encodings):
        body = _gunzip(body, bytes_max) if name == "gzip" else _unzstd(body, bytes_max)
    return body


def split(body: bytes, shape: Shape, *, items_max: int) -> Items:
    """Take a body apart.

    A JSON body is one object or an array; one that is neither but has several lines, of which some are objects, is read as
    NDJSON, whatever its type said. A broken line or array member is an item like any other and is refused on its own later;
    only an array whose own syntax is broken is refused as a whole, because its members cannot be told apart.

    Args:
        body: decompressed.
        shape: as `shape_of` tells.
        items_max: the body may hold that many items.

    Raises:
        FormatError: 400 for an empty body or a broken array, 413 for too many items.
    """
    if body.startswith(_BOM):
        body = body[len(_BOM) :]
    utf8 = is_utf8(body)
    if shape == "json":
        head = body[:64].lstrip(_SPACE)[:1] or body.lstrip(_SPACE)[:1]
        if head == b"[":
            return Items(raws=_bounded(_array(body), items_max), utf8=utf8, bytes_max=len(body))
        if head and not _is_several_lines(body):
            return Items(raws=[body], utf8=utf8, bytes_max=len(body))
    raws: list[Item] = []
    lines: list[int] = []
    for line, text in enumerate(body.split(b"\n"), 1):
        if text and not text.isspace():
            raws.append(text)
            lines.append(line)
    return Items(raws=_bounded(raws, items_max), lines=lines, utf8=utf8, bytes_max=len(body))


def is_utf8(body: Item) -> bool:
    """Tell whether bytes are UTF-8; the decoder looks only at what it keeps, so payloads need a look of their own."""
    if isinstance(body, bytes) and body.isascii():
        return True
    try:
        str(body, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _bounded(raws: Sequence[Item], items_max: int) -> Sequence[Item]:
    if not raws:
        raise FormatError(400, "the body holds no events")
    if len(raws) > items_max:
        raise FormatError(413, f"the body holds {len(raws)} events; at most {items_max} are taken at once")
    return raws


def _array(body: bytes) -> list[msgspec.Raw]:
    try:
        return _split_array(body)
    except RecursionError:
        raise FormatError(400, "the array is nested too deep") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(400, f"the array is not JSON, so that its events cannot be told apart: {error}") from None


def _is_several_lines(body: bytes) -> bool:
    """Tell NDJSON from one object, whole or broken, that happens to be printed over several lines."""
    if b"\n" not in body.strip(_SPACE) or _is_json(body):
        return False
    return any(_is_json(line) for line in body.split(b"\n") if line.lstrip(_SPACE)[:1] == b"{")


def _is_json(body: bytes) -> bool:
    try:
        _whole(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


class _Output:
    """What a decompressor gave so far; refuses to grow beyond the limit."""

    def __init__(self, bytes_max: int) -> None:
        self.parts: list[bytes] = []
        self._left = bytes_max
        self._bytes_max = bytes_max
        self._members = 0

    def begin_member(self) -> None:
        self._members += 1
        if self._members > _MEMBERS_MAX:
            raise FormatError(413, f"the body has more than {_MEMBERS_MAX} compressed members; that is the limit")

    def add(self, part: bytes) -> None:
        self._left -= len(part)
        if self._left < 0:
            raise FormatError(413, f"the body holds more than {self._bytes_max} bytes after decompression; that is the limit")
        self.parts.append(part)


def _gunzip(body: bytes, bytes_max: int) -> bytes:
    output = _Output(bytes_max)
    fed = 0
    rest = b""
    try:
        while fed < len(body) or rest:
            # Zeros between members and at the end are padding.
            rest = rest.lstrip(b"\0")
            if not rest:
                rest = body[fed : fed + _GZIP_STEP_BYTES].lstrip(b"\0")
                fed += _GZIP_STEP_BYTES
                continue
            output.begin_member()
            member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            while not member.eof:
                if not rest:
                    rest = body[fed : fed + _GZIP_STEP_BYTES]
                    fed += _GZIP_STEP_BYTES
                    if not rest:
                        raise FormatError(400, "the gzip body ends too early")
                output.add(member.decompress(rest, _GZIP_PART_BYTES))
                rest = member.unconsumed_tail
            rest = member.unused_data
    except zlib.error as error:
        raise FormatError(400, f"the body is not gzip: {error}") from None
    return b"".join(output.parts)


def _unzstd(body: bytes, bytes_max: int) -> bytes:
    output = _Output(bytes_max)
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES_MAX)
    fed = 0
    try:
        while fed < len(body):
            output.begin_member()
            frame = decompressor.decompressobj(read_across_frames=False)
            while not frame.eof:
                step = body[fed : fed + _ZSTD_STEP_BYTES]
                if not step:
                    raise FormatError(400, "the zstd body ends too early")
                output.add(frame.decompress(step))
                fed += len(step)
            fed -= len(frame.unused_data)
    except zstandard.ZstdError as error:
        raise FormatError(400, f"the body is not zstd: {error}") from None
    return b"".join(output.parts)
