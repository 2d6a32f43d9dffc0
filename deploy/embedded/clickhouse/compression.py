"""Content encodings: bodies in, results out.

Each coder works in C without the GIL. A body may be several frames in a row (clickhouse-connect sends lz4 so): all of them
are decoded, for decoding the first alone would lose rows without an error.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Iterator
from typing import Any, Final, Protocol

import lz4.frame
import zstandard

from deploy.embedded.clickhouse.errors import CANNOT_DECOMPRESS, UNKNOWN_COMPRESSION_METHOD, ClickHouseError

_SLICE_BYTES: Final = 1 << 20

# Names under which the engine itself reads a compressed file (`FROM INFILE .. COMPRESSION`).
ENGINE_METHODS: Final = {"gzip": "gz", "deflate": "deflate", "zstd": "zstd", "lz4": "lz4", "xz": "xz", "bz2": "bz2", "br": "br"}

# What a client may be answered with, best first. Source: ClickHouse prefers them in about this order (chooseHTTPCompressionMethod).
_RESULT_ENCODINGS: Final = ("zstd", "lz4", "gzip", "deflate")


class _Decoder(Protocol):
    unused_data: bytes | None
    eof: bool

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
        UNKNOWN_COMPRESSION_METHOD, "UNKNOWN_COMPRESSION_METHOD", f"Unknown compression method in Content-Encoding: {encoding}"
    )


def decode(data: Any, encoding: str) -> Iterator[bytes]:
    """Yield the decoded content of `data` (a buffer), frame after frame, in pieces.

    Raises:
        ClickHouseError: an encoding that is not known, bytes that are not in it, or a last frame that is cut off.
    """
    view = memoryview(data)
    decoder = _decoder(encoding)
    started = False
    position = 0
    try:
        while position < len(view):
            piece = view[position : position + _SLICE_BYTES]
            if decoder.eof:
                decoder = _decoder(encoding)
            output = decoder.decompress(piece)
            started = True
            position += len(piece)
            if decoder.eof:
                position -= len(decoder.unused_data or b"")
            if output:
                yield output
    except (zlib.error, zstandard.ZstdError, lzma.LZMAError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise ClickHouseError(
            CANNOT_DECOMPRESS, "CANNOT_DECOMPRESS", f"Cannot decompress the request body as {encoding}: {error}"
        ) from None
    if started and not decoder.eof:
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
