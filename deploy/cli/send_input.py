"""Read events from files: NDJSON, a JSON array or one JSON object; plain, gzip or zstd, told apart by their first bytes."""

import gzip
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

import msgspec

from ingest.contract.errors import ConfigurationError
from ingest.contract.event import EVENT_BYTES_MAX

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BATCH_EVENTS: Final = 500
# Well below what ingest takes in one body, so that one batch is a fraction of a second of work.
BATCH_BYTES: Final = 4 * 1024 * 1024
# A line is never read further than that into memory; what is cut there is refused for its size.
_LINE_BYTES_MAX: Final = 2 * EVENT_BYTES_MAX
# A frame may expand a thousandfold: what one read gives stays within a few megabytes for anything but a bomb.
_ZSTD_READ_BYTES: Final = 16 * 1024
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an event stands, for people: a line of NDJSON or an item of an array, from 1."""

    file: str
    kind: str
    number: int

    def __str__(self) -> str:
        return f"{self.file} {self.kind} {self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Events that are sent together; `lines` tells whether the body has to be NDJSON, because an item may be broken."""

    places: tuple[Place, ...]
    raws: tuple[bytes, ...]
    lines: bool

    def body(self) -> tuple[bytes, str]:
        """Return the request's body and its content type."""
        if self.lines:
            return b"\n".join(self.raws), "application/x-ndjson"
        return b"[" + b",".join(self.raws) + b"]", "application/json"


class Source:
    """One file, or standard input as `-`."""

    def __init__(self, name: str) -> None:
        """Open it.

        Raises:
            ConfigurationError: it cannot be read.
        """
        self.name = "stdin" if name == "-" else name
        try:
            self._raw: IO[bytes] = sys.stdin.buffer if name == "-" else Path(name).open("rb")  # noqa: SIM115 - `batches` closes it
            self.size = Path(name).stat().st_size if name != "-" and Path(name).is_file() else None
        except OSError as error:
            raise ConfigurationError(f"{name} cannot be read: {error.strerror}") from None

    def position(self) -> int:
        """Return how many bytes of the file were read so far; 0 where that cannot be told."""
        return self._raw.tell() if self.size is not None and not self._raw.closed else 0

    def batches(self) -> Iterator[Batch]:
        """Yield all events in their order.

        Raises:
            ConfigurationError: it is cut short, or an array whose own syntax is broken.
        """
        try:
            with self._raw:
                plain = _decompressed(self._raw)
                head = _head(plain)
                if _begins_document(head):
                    yield from _batches(self._document(b"".join([*head, plain.read()])), lines=False)
                else:
                    yield from _batches(self._lines(head, plain), lines=True)
        except (EOFError, OSError, _zstd_error()) as error:
            raise ConfigurationError(f"{self.name} cannot be read to its end: {error}") from None

    def _document(self, text: bytes) -> Iterator[tuple[Place, bytes]]:
        try:
            if text.lstrip()[:1] == b"[":
                items = msgspec.json.decode(text, type=list[msgspec.Raw])
            else:
                items = [msgspec.json.decode(text, type=msgspec.Raw)]
        except msgspec.DecodeError as error:
            raise ConfigurationError(f"{self.name} is neither NDJSON nor one JSON document: {error}") from None
        for number, item in enumerate(items, 1):
            yield Place(file=self.name, kind="item", number=number), bytes(item)

    def _lines(self, head: Sequence[bytes], plain: IO[bytes]) -> Iterator[tuple[Place, bytes]]:
        for number, line in enumerate(chain(head, _read_lines(plain)), 1):
            if text := line.strip():
                yield Place(file=self.name, kind="line", number=number), text


def _read_lines(plain: IO[bytes]) -> Iterator[bytes]:
    while line := plain.readline(_LINE_BYTES_MAX):
        yield line
        # Too large to be an event: its beginning is refused for its size, the rest of the line is skipped.
        while not line.endswith(b"\n") and (line := plain.readline(_LINE_BYTES_MAX)):
            pass


def _head(plain: IO[bytes]) -> list[bytes]:
    """Read up to the second line that is not blank: enough to tell a document from lines."""
    head: list[bytes] = []
    for line in _read_lines(plain):
        head.append(line.removeprefix(_BOM) if not head else line)
        if sum(1 for each in head if each.strip()) == 2:
            break
    return head


def _begins_document(head: Sequence[bytes]) -> bool:
    """Tell whether a file is one JSON document: an array, or an object that goes on after its first line.

    An NDJSON file may have a broken first line too; then its second line is an object of its own.
    """
    lines = [line.strip() for line in head if line.strip()]
    if not lines or lines[0][:1] not in (b"[", b"{"):
        return False
    if lines[0][:1] == b"[":
        return True
    return not _is_object(lines[0]) and not (len(lines) > 1 and lines[1][:1] == b"{" and _is_object(lines[1]))


def _is_object(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def _batches(items: Iterable[tuple[Place, bytes]], *, lines: bool) -> Iterator[Batch]:
    places: list[Place] = []
    raws: list[bytes] = []
    size = 0
    for place, raw in items:
        if raws and (len(raws) >= BATCH_EVENTS or size + len(raw) > BATCH_BYTES):
            yield Batch(places=tuple(places), raws=tuple(raws), lines=lines)
            places, raws, size = [], [], 0
        places.append(place)
        raws.append(raw)
        size += len(raw)
    if raws:
        yield Batch(places=tuple(places), raws=tuple(raws), lines=lines)


def _decompressed(raw: IO[bytes]) -> IO[bytes]:
    buffered = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, raw))
    magic = buffered.peek(4)[:4]
    if magic.startswith(_GZIP):
        return cast(IO[bytes], gzip.GzipFile(fileobj=buffered))
    if magic == _ZSTD:
        return io.BufferedReader(_ZstdReader(buffered), EVENT_BYTES_MAX)
    return buffered


class _ZstdReader(io.RawIOBase):
    """Reads one zstd frame after another; unlike the library's own reader, it does not take a file cut short for its end."""

    def __init__(self, source: IO[bytes]) -> None:
        import zstandard

        self._frames = zstandard.ZstdDecompressor()
        self._frame = self._frames.decompressobj()
        self._source = source
        self._plain = b""
        self._begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        while not self._plain:
            chunk = self._frame.unused_data if self._frame.eof else b""
            chunk = chunk or self._source.read(_ZSTD_READ_BYTES)
            if not chunk:
                if self._begun and not self._frame.eof:
                    raise EOFError("the last zstd frame is cut short")
                return 0
            if self._frame.eof:
                self._frame = self._frames.decompressobj()
            self._begun = True
            self._plain = self._frame.decompress(chunk)
        taken = self._plain[: len(view)]
        view[: len(taken)] = taken
        self._plain = self._plain[len(taken) :]
        return len(taken)


def _zstd_error() -> type[Exception]:
    import zstandard

    return zstandard.ZstdError
