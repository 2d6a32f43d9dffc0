"""Bodies of HTTP messages, piece by piece: decoded, and event streams taken apart. Pure."""

import codecs
import zlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, Protocol

from ingest.mcp.lines import Line, Lines, TooLong

# What comes out at once of a compressed piece: a small piece may hold very much.
_DECODED_BYTES_MAX: Final = 1024 * 1024
_ZLIB_OR_GZIP: Final = 47


class Decoder(Protocol):
    """Undoes a content coding; `failed` once it could not."""

    failed: bool

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yield what a piece holds, in pieces of bounded size."""


class _Plain:
    failed = False

    def decode(self, data: bytes) -> Iterator[bytes]:
        yield data


class _Zlib:
    def __init__(self) -> None:
        self.failed = False
        self._decoder = zlib.decompressobj(_ZLIB_OR_GZIP)

    def decode(self, data: bytes) -> Iterator[bytes]:
        rest = data
        while True:
            try:
                found = self._decoder.decompress(rest, _DECODED_BYTES_MAX)
            except zlib.error:
                self.failed = True
                return
            rest = self._decoder.unconsumed_tail
            # A second stream behind the first is one that is not read.
            self.failed = bool(self._decoder.unused_data)
            yield found
            if not rest and len(found) < _DECODED_BYTES_MAX:
                return


class _Zstandard:
    def __init__(self, module: Any) -> None:
        self.failed = False
        self._decoder = module.ZstdDecompressor().decompressobj()
        self._fault = module.ZstdError

    def decode(self, data: bytes) -> Iterator[bytes]:
        try:
            yield self._decoder.decompress(data)
        except self._fault:
            self.failed = True
            return


class _Unreadable:
    failed = True

    def decode(self, data: bytes) -> Iterator[bytes]:  # noqa: ARG002 - a coding that nobody here knows
        yield from ()


def decoder_for(encoding: str | None) -> Decoder:
    """Return the decoder of a `Content-Encoding`; of one that is not known, one that gives nothing."""
    name = (encoding or "identity").strip().lower()
    if name == "identity":
        return _Plain()
    if name in ("gzip", "x-gzip", "deflate"):
        return _Zlib()
    if name == "zstd":
        try:
            import zstandard  # noqa: PLC0415 - only where a server uses it
        except ImportError:
            return _Unreadable()
        return _Zstandard(zstandard)
    return _Unreadable()


class ServerSentEvent(NamedTuple):
    """One event of a stream; `data` is None where it has none, as those have that only give an id."""

    kind: str
    data: Line | None
    id_: str | None


class EventStream:
    """Takes a `text/event-stream` apart, wherever it is cut. Line ends may be LF, CR LF or CR."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._return = b""
        self._fresh = True
        self._begin()

    def _begin(self) -> None:
        self._kind = ""
        self._data: list[Line] = []
        self._id: str | None = None
        self._any = False

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take the next piece; return the events that end in it."""
        piece = self._return + data
        # A CR may be the first half of a line end.
        self._return = b"\r" if piece.endswith(b"\r") else b""
        piece = piece[: len(piece) - len(self._return)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        found = [self._take(line) for line in self._lines.feed_all(piece)] if piece else []
        return [event for event in found if event is not None]

    def end(self) -> list[ServerSentEvent]:
        """Return what ends with the stream. An event without the empty line behind it is none, by the standard."""
        return self.feed(b"\n") if self._return else []

    def _take(self, line: Line | None) -> ServerSentEvent | None:
        if self._fresh and isinstance(line, bytes):
            line = line.removeprefix(codecs.BOM_UTF8)
        self._fresh = False
        if line is None:
            if not self._any:
                return None
            event = ServerSentEvent(self._kind or "message", _joined(self._data), self._id)
            self._begin()
            return event
        name, value = _field(line)
        if name == b"data":
            self._data.append(value)
        elif isinstance(value, bytes) and name in (b"id", b"event"):
            text = value.decode(errors="replace")
            if name == b"id":
                self._id = text
            else:
                self._kind = text
        self._any = self._any or name in (b"data", b"id")
        return None


def _field(line: Line) -> tuple[bytes, Line]:
    head = line.head if isinstance(line, TooLong) else line
    name, _, value = head.partition(b":")
    value = value.removeprefix(b" ")
    return name, TooLong(value, line.tail, line.size) if isinstance(line, TooLong) else value


def _joined(lines: list[Line]) -> Line | None:
    if not lines:
        return None
    # A line that is too long is the message, or none can be made of it.
    return next((line for line in lines if isinstance(line, TooLong)), None) or b"\n".join(
        line for line in lines if isinstance(line, bytes)
    )
