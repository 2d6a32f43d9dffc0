"""Open what `toolledger send` reads: any file, plain, gzip or zstd, told by its first bytes; as text that knows where it is."""

import io
import os
import select
import stat
import sys
import zlib
from collections.abc import Callable
from typing import IO, Final, Protocol

from ingest.contract.errors import ConfigurationError

# What one read gives at least, unless the file ends.
READ_BYTES: Final = 256 * 1024
# zstd can say 128 KiB in 4 bytes: what one read becomes stays within 64 MiB, whatever the file claims.
_ZSTD_READ_BYTES: Final = 2 * 1024
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_HEAD_BYTES: Final = 8
# What people hand over by mistake, by its first bytes, and what makes NDJSON of it.
_FOREIGN: Final = (
    (b"PK\x03\x04", "a zip archive: unzip -p {} | toolledger send -"),
    (b"BZh", "bzip2: bzip2 -dc {} | toolledger send -"),
    (b"\xfd7zXZ\x00", "xz: xz -dc {} | toolledger send -"),
    (b"\x04\x22\x4d\x18", "lz4: lz4 -dc {} | toolledger send -"),
    (b"PAR1", "Parquet: write it as NDJSON first, one event a line"),
    (b"\xff\xfe", "UTF-16: iconv -f UTF-16 -t UTF-8 {} | toolledger send -"),
    (b"\xfe\xff", "UTF-16: iconv -f UTF-16 -t UTF-8 {} | toolledger send -"),
)


class Text:
    """The plain bytes of a file, read once from front to back.

    Args:
        read: gives the next bytes, none at the end; raises EOFError, OSError or zlib's and zstd's errors where it is broken.
        offset: of the first byte that it gives.
        waits: tells whether the next bytes are still to come, as from somebody who writes into a pipe now and then.
    """

    def __init__(self, read: Callable[[], bytes], offset: int = 0, *, waits: Callable[[], bool] = lambda: False) -> None:
        self.offset = offset
        self._read = read
        self._waits = waits
        self._back = b""

    def read(self) -> bytes:
        """Return the next bytes, as many as come together; none at the end."""
        found, self._back = self._back or self._read(), b""
        self.offset += len(found)
        return found

    def waits(self) -> bool:
        """Tell whether reading on would wait for somebody."""
        return not self._back and self._waits()

    def unread(self, text: bytes) -> None:
        """Give the last bytes back, to be read again."""
        self._back = text + self._back
        self.offset -= len(text)

    def skip_to(self, offset: int) -> None:
        """Read on and forget until an offset is reached.

        Raises:
            EOFError: the text ends before it.
        """
        while self.offset < offset:
            found = self.read()
            if not found:
                raise EOFError(f"it ends at byte {self.offset}, and was read up to {offset} before")
            if self.offset > offset:
                self.unread(found[len(found) - (self.offset - offset) :])


def open_raw(name: str) -> IO[bytes]:
    """Open a file, or standard input as `-`.

    Raises:
        ConfigurationError: it cannot be read; says what to do.
    """
    if name == "-":
        if sys.stdin is None:
            raise ConfigurationError("standard input is closed: name files, or pipe them in")
        # Without a buffer, so that what is there can be told from what is still to come.
        return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
    try:
        opened = open(name, "rb", buffering=0)  # noqa: SIM115 - the caller closes it
    except IsADirectoryError:
        raise ConfigurationError(f"{name} is a directory: name its files, as in {name.rstrip('/')}/*.ndjson") from None
    except FileNotFoundError:
        raise ConfigurationError(f"{name} cannot be read: there is no such file") from None
    except PermissionError:
        raise ConfigurationError(f"{name} cannot be read: permission denied; as its owner: chmod +r {name}") from None
    except OSError as error:
        raise ConfigurationError(f"{name} cannot be read: {error.strerror}") from None
    return opened


def is_plain(raw: IO[bytes]) -> bool:
    """Tell whether a file that was just opened is its own plain text; some of its bytes are read."""
    return not _head(raw).startswith((_GZIP, _ZSTD))


def is_stored(raw: IO[bytes]) -> bool:
    """Tell whether it is a file that can be read again, and not a pipe or a terminal."""
    try:
        return stat.S_ISREG(os.fstat(raw.fileno()).st_mode)
    except (OSError, io.UnsupportedOperation):
        return False


def text_of(raw: IO[bytes], name: str, offset: int = 0) -> Text:
    """Return the plain text of a file from an offset of that text on.

    Raises:
        ConfigurationError: it is of a kind that is not read.
        EOFError, OSError, zlib.error, zstandard.ZstdError: it is broken, or ends before the offset.
    """
    head = _head(raw)
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            raise ConfigurationError(f"{name} is {what.format(name)}")
    if head.startswith(_GZIP):
        return _skipped(_Decompressed(raw, head, _Gzip, READ_BYTES), offset)
    if head.startswith(_ZSTD):
        return _skipped(_Decompressed(raw, head, _Zstd, _ZSTD_READ_BYTES), offset)
    if offset > len(head) and is_stored(raw):
        if os.fstat(raw.fileno()).st_size < offset:
            raise EOFError(f"it was read up to byte {offset} before, and is shorter now")
        raw.seek(offset)
        return Text(lambda: raw.read(READ_BYTES) or b"", offset)
    if is_stored(raw):
        plain = Text(lambda: raw.read(READ_BYTES) or b"", len(head))
    else:
        plain = Text(lambda: _available(raw), len(head), waits=lambda: not select.select([raw], [], [], 0)[0])
    plain.unread(head)
    plain.skip_to(offset)
    return plain


def _available(raw: IO[bytes]) -> bytes:
    """Return what is there, waiting only where nothing is."""
    return os.read(raw.fileno(), READ_BYTES)


def broken() -> tuple[type[Exception], ...]:
    """Return what reading may raise where a file is broken."""
    import zstandard

    return (EOFError, OSError, zlib.error, zstandard.ZstdError)


def _head(raw: IO[bytes]) -> bytes:
    head = b""
    while len(head) < _HEAD_BYTES and (more := raw.read(_HEAD_BYTES - len(head))):
        head += more
    return head


def _skipped(source: "_Decompressed", offset: int) -> Text:
    text = Text(source.read)
    text.skip_to(offset)
    return text


class _Stream(Protocol):
    """One gzip member or zstd frame."""

    def decompress(self, data: bytes, /) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    @property
    def unused(self) -> bytes:
        """What was given and not used yet."""


class _Gzip:
    """One member, in bounded steps: a bomb is no larger than a step at a time."""

    name = "gzip"
    padding = b"\0"

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)

    def decompress(self, data: bytes, /) -> bytes:
        return self._member.decompress(data, 4 * READ_BYTES)

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def unused(self) -> bytes:
        return self._member.unused_data if self._member.eof else self._member.unconsumed_tail


class _Zstd:
    """One frame."""

    name = "zstd"
    padding = b""

    def __init__(self) -> None:
        import zstandard

        self._frame = zstandard.ZstdDecompressor().decompressobj()

    def decompress(self, data: bytes, /) -> bytes:
        return self._frame.decompress(data)

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def unused(self) -> bytes:
        return self._frame.unused_data if self._frame.eof else b""


class _Decompressed:
    """Reads one member or frame after another, and does not take a file cut short for its end."""

    def __init__(self, raw: IO[bytes], head: bytes, kind: type[_Gzip] | type[_Zstd], step_bytes: int) -> None:
        self._raw, self._kind, self._step_bytes = raw, kind, step_bytes
        self._stream: _Stream | None = kind()
        self._rest = head

    def read(self) -> bytes:
        begins = False
        while True:
            if self._stream is None:
                self._rest = self._rest.lstrip(self._kind.padding)
                if not self._rest:
                    self._rest = self._raw.read(self._step_bytes) or b""
                    if not self._rest:
                        return b""
                    continue
                self._stream, begins = self._kind(), True
            data = self._rest or self._raw.read(self._step_bytes)
            if not data:
                raise EOFError(f"its {self._kind.name} data is cut short: get the whole file")
            try:
                plain = self._stream.decompress(data)
            except broken() as error:
                if begins:
                    name = self._kind.name
                    raise OSError(f"behind its {name} data is something that is none ({error}): cut it off") from None
                raise
            self._rest = self._stream.unused
            if self._stream.eof:
                self._stream = None
            if plain:
                return plain
