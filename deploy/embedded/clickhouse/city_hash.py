"""CityHash128 as ClickHouse uses it for the checksums of its compressed blocks.

Source: CityHash 1.0.2 by Google (G. Pike and J. Alakuijala); later versions give other values.
"""

from __future__ import annotations

import struct
from typing import Final

_MASK: Final = (1 << 64) - 1
_K0: Final = 0xC3A5C85C97CB3127
_K1: Final = 0xB492B66FBE98F273
_K2: Final = 0x9AE16A3B2F90404F
_K3: Final = 0xC949D7C7509E6557
_K_MUL: Final = 0x9DDFEA08EB382D69

_WORD: Final = struct.Struct("<Q")
_PAIR: Final = struct.Struct("<QQ")
_HALF: Final = struct.Struct("<I")
_LANE: Final = struct.Struct("<8Q")
_HALF_LANE: Final = struct.Struct("<4Q")


def _rotate(value: int, shift: int) -> int:
    return (value >> shift) | ((value << (64 - shift)) & _MASK)


def _shift_mix(value: int) -> int:
    return value ^ (value >> 47)


def _hash_16(low: int, high: int) -> int:
    a = _shift_mix(((low ^ high) * _K_MUL) & _MASK)
    b = _shift_mix(((high ^ a) * _K_MUL) & _MASK)
    return (b * _K_MUL) & _MASK


def _word(data: bytes, offset: int) -> int:
    return int(_WORD.unpack_from(data, offset)[0])


def _hash_up_to_16(data: bytes) -> int:
    size = len(data)
    if size > 8:
        first, last = _word(data, 0), _word(data, size - 8)
        return _hash_16(first, _rotate((last + size) & _MASK, size)) ^ last
    if size >= 4:
        first = int(_HALF.unpack_from(data, 0)[0])
        return _hash_16((size + (first << 3)) & _MASK, int(_HALF.unpack_from(data, size - 4)[0]))
    if size > 0:
        y = data[0] + (data[size >> 1] << 8)
        z = size + (data[size - 1] << 2)
        return (_shift_mix(((y * _K2) ^ (z * _K3)) & _MASK) * _K2) & _MASK
    return _K2


def _weak_32(w: int, x: int, y: int, z: int, a: int, b: int) -> tuple[int, int]:
    """Mix 32 bytes (four words) into a pair of words."""
    a = (a + w) & _MASK
    b = _rotate((b + a + z) & _MASK, 21)
    c = a
    a = (a + x + y) & _MASK
    b = (b + _rotate(a, 44)) & _MASK
    return (a + z) & _MASK, (b + c) & _MASK


def _murmur(data: bytes, a: int, b: int) -> tuple[int, int]:
    size = len(data)
    remaining = size - 16
    if remaining <= 0:
        a = (_shift_mix((a * _K1) & _MASK) * _K1) & _MASK
        c = (b * _K1 + _hash_up_to_16(data)) & _MASK
        d = _shift_mix((a + (_word(data, 0) if size >= 8 else c)) & _MASK)
    else:
        c = _hash_16((_word(data, size - 8) + _K1) & _MASK, a)
        d = _hash_16((b + size) & _MASK, (c + _word(data, size - 16)) & _MASK)
        a = (a + d) & _MASK
        offset = 0
        while remaining > 0:
            a = ((a ^ (_shift_mix((_word(data, offset) * _K1) & _MASK) * _K1)) * _K1) & _MASK
            b ^= a
            c = ((c ^ (_shift_mix((_word(data, offset + 8) * _K1) & _MASK) * _K1)) * _K1) & _MASK
            d ^= c
            offset += 16
            remaining -= 16
    a, b = _hash_16(a, c), _hash_16(d, b)
    return a ^ b, _hash_16(b, a)


def _seeded(data: bytes, x: int, y: int) -> tuple[int, int]:
    size = len(data)
    if size < 128:
        return _murmur(data, x, y)
    z = (size * _K1) & _MASK
    v0 = (_rotate(y ^ _K1, 49) * _K1 + _word(data, 0)) & _MASK
    v1 = (_rotate(v0, 42) * _K1 + _word(data, 8)) & _MASK
    w0 = (_rotate((y + z) & _MASK, 35) * _K1 + x) & _MASK
    w1 = (_rotate((x + _word(data, 88)) & _MASK, 53) * _K1) & _MASK
    whole = size - size % 128
    for offset in range(0, whole, 64):
        d0, d1, d2, d3, d4, d5, d6, d7 = _LANE.unpack_from(data, offset)
        x = (_rotate((x + y + v0 + d2) & _MASK, 37) * _K1) & _MASK ^ w1
        y = (_rotate((y + v1 + d6) & _MASK, 42) * _K1) & _MASK ^ v0
        z = _rotate(z ^ w0, 33)
        v0, v1 = _weak_32(d0, d1, d2, d3, (v1 * _K1) & _MASK, (x + w0) & _MASK)
        w0, w1 = _weak_32(d4, d5, d6, d7, (z + w1) & _MASK, y)
        z, x = x, z
    rest = size - whole
    y = (y + _rotate(w0, 37) * _K0 + z) & _MASK
    x = (x + _rotate((v0 + z) & _MASK, 49) * _K0) & _MASK
    done = 0
    while done < rest:
        done += 32
        # The last steps may reach back into bytes that were hashed before.
        offset = size - done
        y = (_rotate((y - x) & _MASK, 42) * _K0 + v1) & _MASK
        w0 = (w0 + _word(data, offset + 16)) & _MASK
        x = (_rotate(x, 49) * _K0 + w0) & _MASK
        w0 = (w0 + v0) & _MASK
        d0, d1, d2, d3 = _HALF_LANE.unpack_from(data, offset)
        v0, v1 = _weak_32(d0, d1, d2, d3, v0, v1)
    x, y = _hash_16(x, v0), _hash_16(y, w0)
    return (_hash_16((x + v1) & _MASK, w1) + y) & _MASK, _hash_16((x + w1) & _MASK, (y + v1) & _MASK)


def city_hash_128(data: bytes) -> bytes:
    """The 16 bytes of CityHash128 of `data`, low word first; about 10 MB/s."""
    size = len(data)
    if size >= 16:
        low, high = _seeded(data[16:], _word(data, 0) ^ _K3, _word(data, 8))
    elif size >= 8:
        low, high = _seeded(b"", (_word(data, 0) ^ (size * _K0)) & _MASK, _word(data, size - 8) ^ _K1)
    else:
        low, high = _seeded(data, _K0, _K1)
    return _PAIR.pack(low, high)
