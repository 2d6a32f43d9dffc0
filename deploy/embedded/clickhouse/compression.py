"""Content encodings: bodies in, results out.

Each coder works in C without the GIL. A body may be several frames in a row (clickhouse-connect sends lz4 so): all of them
are decoded, for decoding the first alone would lose rows without an error. Bodies are decoded here and not by the engine,
which takes a frame that is cut off for the end of the data.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import lz4.frame
import zstandard

from deploy.embedded.clickhouse.errors import CANNOT_DECOMPRESS, UNKNOWN_COMPRESSION_METHOD, ClickHouseError

_SLICE_BYTES: Final = 1 << 20
_MIN_SLICE_BYTES: Final = 4096

# What a client may be answered with, best first.
# Source: the order in which ClickHouse prefers them, chooseHTTPCompressionMethod.
_RESULT_ENCODINGS: Final = ("zstd", "lz4", "gzip", "deflate")


class _Decoder(Protocol):
    @property
    def unused_data(self) -> bytes | None: ...

    @property
    def eof(self) -> bool: ...

    def decompress(self, data: Any, /) -> bytes: ...


def _decoder(encoding: str) -> _Decoder:
    match encoding:
        case "gzip":
            return zlib.decompressobj(31)
        case "deflate":
            return zlib.decompressobj()
        case "zstd":
            return zstandard.ZstdDecompressor().decompressobj()
        case "lz4":
            decoder: _Decoder = lz4.frame.LZ4FrameDecompressor()
            return decoder
        case "xz":
            return lzma.LZMADecompressor()
        case "bz2":
            return bz2.BZ2Decompressor()
    raise ClickHouseError(
        UNKNOWN_COMPRESSION_METHOD,
        "UNKNOWN_COMPRESSION_METHOD",
        f"Unknown compression method in Content-Encoding: {encoding}",
    )


def decode(read: Callable[[int, int], bytes], size: int, encoding: str) -> Iterator[bytes]:
    """Yield the decoded content of an encoded body, frame after frame, in pieces.

    Args:
        read: returns up to `n` bytes of the body from an offset on: `read(n, offset)`.
        size: length of the body in bytes.
        encoding: name from `Content-Encoding`.

    Raises:
        ClickHouseError: an encoding that is not known, bytes that are not in it, or a last frame that is cut off.
    """
    decoder = _decoder(encoding)
    position = 0
    piece_bytes = _SLICE_BYTES
    try:
        while position < size:
            if decoder.eof:
                decoder = _decoder(encoding)
            piece = read(piece_bytes, position)
            output = decoder.decompress(piece)
            unused = len(decoder.unused_data or b"") if decoder.eof else 0
            position += len(piece) - unused
            # What lies behind a frame is read again with the next one: short frames are read in short pieces.
            piece_bytes = (
                max(_MIN_SLICE_BYTES, 2 * (len(piece) - unused)) if decoder.eof else min(_SLICE_BYTES, 2 * piece_bytes)
            )
            if output:
                yield output
    except (zlib.error, zstandard.ZstdError, lzma.LZMAError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise ClickHouseError(
            CANNOT_DECOMPRESS, "CANNOT_DECOMPRESS", f"Cannot decompress the request body as {encoding}: {error}"
        ) from None
    if size and not decoder.eof:
        raise ClickHouseError(CANNOT_DECOMPRESS, "CANNOT_DECOMPRESS", f"The {encoding} request body ends inside a frame")


class Encoder(Protocol):
    """Encodes a result piece by piece."""

    def encode(self, data: bytes) -> bytes:
        """Encode `data`; may hold some of it back."""
        ...

    def flush(self) -> bytes:
        """What was held back, and the end of the stream."""
        ...


class _CompressorEncoder:
    """zlib and zstandard compressors share this form."""

    def __init__(self, compressor: Any) -> None:
        self._compressor = compressor

    def encode(self, data: bytes) -> bytes:
        return bytes(self._compressor.compress(data))

    def flush(self) -> bytes:
        return bytes(self._compressor.flush())


class _Lz4Encoder:
    def __init__(self) -> None:
        self._compressor = lz4.frame.LZ4FrameCompressor()
        self._begun = False

    def encode(self, data: bytes) -> bytes:
        head = b"" if self._begun else self._compressor.begin()
        self._begun = True
        return bytes(head + self._compressor.compress(data))

    def flush(self) -> bytes:
        head = b"" if self._begun else self._compressor.begin()
        return bytes(head + self._compressor.flush())


def choose_encoding(accept_encoding: str) -> str | None:
    """The encoding to answer an `Accept-Encoding` header with, or None for none."""
    offered = {part.split(";")[0].strip().lower() for part in accept_encoding.split(",")}
    return next((encoding for encoding in _RESULT_ENCODINGS if encoding in offered), None)


def encoder(encoding: str, level: int) -> Encoder:
    """A new encoder for `encoding`, one of those `choose_encoding` returns; `level` is zlib's, 1 to 9."""
    if encoding == "gzip":
        return _CompressorEncoder(zlib.compressobj(level, zlib.DEFLATED, 31))
    if encoding == "deflate":
        return _CompressorEncoder(zlib.compressobj(level))
    if encoding == "zstd":
        return _CompressorEncoder(zstandard.ZstdCompressor(level=1).compressobj())
    return _Lz4Encoder()
