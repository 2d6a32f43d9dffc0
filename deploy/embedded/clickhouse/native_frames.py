"""ClickHouse's own compressed blocks: what `compress=1` sends and `decompress=1` reads.

A block is a 16-byte checksum, then method (1 byte), size with this header (4), uncompressed size (4), and the compressed
bytes; the checksum covers all behind it. Source: ClickHouse, src/Compression (CompressedReadBufferBase, LZ4).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

import lz4.block
import zstandard

from deploy.embedded.clickhouse.city_hash import city_hash_128
from deploy.embedded.clickhouse.errors import CANNOT_DECOMPRESS, CHECKSUM_DOESNT_MATCH, ClickHouseError

_HEADER: Final = struct.Struct("<BII")
_CHECKSUM_BYTES: Final = 16
_NONE, _LZ4, _ZSTD = 0x02, 0x82, 0x90

# What ClickHouse itself compresses at a time (max_compress_block_size), and the most it takes (DBMS_MAX_COMPRESSED_SIZE).
_BLOCK_BYTES: Final = 1 << 20
_MAX_BLOCK_BYTES: Final = 1 << 30


def read_frames(read: Callable[[int, int], bytes], size: int, *, verify: bool) -> Iterator[bytes]:
    """Yield the content of each block of a body.

    Args:
        read: returns up to `n` bytes of the body from an offset on: `read(n, offset)`.
        size: length of the body in bytes.
        verify: whether checksums are compared; a wrong one means that bytes changed on their way.

    Raises:
        ClickHouseError: bytes that are no block, a block that is cut off, or a checksum that does not fit.
    """
    position = 0
    while position < size:
        checksum = read(_CHECKSUM_BYTES, position)
        header = read(_HEADER.size, position + _CHECKSUM_BYTES)
        if len(header) < _HEADER.size:
            raise _broken("the body ends inside a block's header")
        method, packed_bytes, plain_bytes = _HEADER.unpack(header)
        if not _HEADER.size <= packed_bytes <= _MAX_BLOCK_BYTES or plain_bytes > _MAX_BLOCK_BYTES:
            raise _broken("a block's header gives an impossible size")
        frame = read(packed_bytes, position + _CHECKSUM_BYTES)
        if len(frame) < packed_bytes:
            raise _broken("the body ends inside a block")
        if verify and city_hash_128(frame) != checksum:
            raise ClickHouseError(CHECKSUM_DOESNT_MATCH, "CHECKSUM_DOESNT_MATCH", "Checksum doesn't match: corrupted data")
        yield _unpack(method, frame[_HEADER.size :], plain_bytes)
        position += _CHECKSUM_BYTES + packed_bytes


def _unpack(method: int, packed: bytes, plain_bytes: int) -> bytes:
    try:
        if method == _LZ4:
            plain = bytes(lz4.block.decompress(packed, uncompressed_size=plain_bytes))
        elif method == _ZSTD:
            plain = zstandard.ZstdDecompressor().decompress(packed, max_output_size=plain_bytes)
        elif method == _NONE:
            plain = packed
        else:
            raise _broken(f"a block has the unknown method {method:#x}")
    except (lz4.block.LZ4BlockError, zstandard.ZstdError) as error:
        raise _broken(str(error)) from None
    if len(plain) != plain_bytes:
        raise _broken("a block is not as long as its header says")
    return plain


def _broken(reason: str) -> ClickHouseError:
    return ClickHouseError(CANNOT_DECOMPRESS, "CANNOT_DECOMPRESS", f"Cannot decompress the request body: {reason}")


class NativeFrameEncoder:
    """Packs a result into blocks, LZ4 as ClickHouse does; an `Encoder`."""

    def __init__(self) -> None:
        self._held = bytearray()

    def encode(self, data: bytes) -> bytes:
        """Pack what fills whole blocks; the rest is held back."""
        self._held += data
        whole = len(self._held) - len(self._held) % _BLOCK_BYTES
        blocks = [_pack(bytes(self._held[start : start + _BLOCK_BYTES])) for start in range(0, whole, _BLOCK_BYTES)]
        del self._held[:whole]
        return b"".join(blocks)

    def flush(self) -> bytes:
        """The last, shorter block."""
        rest = _pack(bytes(self._held)) if self._held else b""
        self._held.clear()
        return rest


def _pack(plain: bytes) -> bytes:
    packed = bytes(lz4.block.compress(plain, store_size=False))
    frame = _HEADER.pack(_LZ4, _HEADER.size + len(packed), len(plain)) + packed
    return city_hash_128(frame) + frame
