"""Kafka's murmur2 of `project_id/id`: the partition an event calls home.

A foreign producer with that key and the common partitioner lands in the same place.
Source: org.apache.kafka.common.utils.Utils.murmur2 and toPositive; ClickHouse's kafkaMurmurHash is the same, made positive.
"""

import struct
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_R: Final = 24
# Below that many keys, plain arithmetic is faster than a few dozen array steps.
_COLUMNS_PAY_FROM: Final = 12


def event_key(project_id: str, event_id: str) -> bytes:
    """Return the record key of an event, UTF-8."""
    return f"{project_id}/{event_id}".encode()


def home_partition(key: bytes, partitions: int) -> int:
    """Return the home of one key, 0 <= home < partitions."""
    return _murmur2_scalar(key) % partitions


def home_partitions(keys: Sequence[bytes], partitions: int) -> NDArray[np.int64]:
    """Return the home partition of each key, in the order given.

    Keys of one length are hashed together, a word at a time over all rows, so the cost per key is a few array steps.
    """
    return murmur2(keys).astype(np.int64) % partitions


def homes(project_id: str, event_ids: Sequence[str], partitions: int) -> list[int]:
    """Return the home partition of each event of one project, in the order given.

    The same as `home_partitions` of their keys, made for many ids of one length: they are hashed without making the keys.
    """
    count = len(event_ids)
    if count < _COLUMNS_PAY_FROM:
        return [_murmur2_scalar(event_key(project_id, event_id)) % partitions for event_id in event_ids]
    lengths = set(map(len, event_ids))
    joined = "".join(event_ids).encode()
    if len(lengths) > 1 or len(joined) != count * (length := lengths.pop()) or not length:
        return _as_list(home_partitions([event_key(project_id, event_id) for event_id in event_ids], partitions))
    prefix = np.frombuffer(f"{project_id}/".encode(), dtype=np.uint8)
    rows = np.empty((count, len(prefix) + length), dtype=np.uint8)
    rows[:, : len(prefix)] = prefix
    rows[:, len(prefix) :] = np.frombuffer(joined, dtype=np.uint8).reshape(count, length)
    positive = _murmur2_rows(rows, rows.shape[1]) & np.uint32(0x7FFFFFFF)
    return _as_list(positive.astype(np.int64) % partitions)


def _as_list(partitions: NDArray[np.int64]) -> list[int]:
    result: list[int] = partitions.tolist()
    return result


def murmur2(keys: Sequence[bytes]) -> NDArray[np.uint32]:
    """Return murmur2 of each key, made positive (31 bits) as Kafka does before the modulo."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        by_length[len(key)].append(index)
    result = np.empty(len(keys), dtype=np.uint32)
    for length, indexes in by_length.items():
        joined = b"".join(keys) if len(indexes) == len(keys) else b"".join([keys[index] for index in indexes])
        matrix = np.frombuffer(joined, dtype=np.uint8).reshape(len(indexes), length)
        result[indexes] = _murmur2_rows(matrix, length)
    return result & np.uint32(0x7FFFFFFF)


def _murmur2_rows(rows: NDArray[np.uint8], length: int) -> NDArray[np.uint32]:
    multiplier = np.uint32(_M)
    state = np.full(len(rows), (_SEED ^ length) & 0xFFFFFFFF, dtype=np.uint32)
    whole = length - length % 4
    words = np.ascontiguousarray(rows[:, :whole]).view("<u4")
    for column in range(whole // 4):
        word = words[:, column] * multiplier
        word ^= word >> np.uint32(_R)
        word *= multiplier
        state *= multiplier
        state ^= word
    tail = length - whole
    if tail:
        for place in range(tail - 1, -1, -1):
            state ^= rows[:, whole + place].astype(np.uint32) << np.uint32(8 * place)
        state *= multiplier
    state ^= state >> np.uint32(13)
    state *= multiplier
    state ^= state >> np.uint32(15)
    return state


def _murmur2_scalar(key: bytes) -> int:
    """Hash one key, already made positive."""
    length = len(key)
    state = (_SEED ^ length) & 0xFFFFFFFF
    whole = length - length % 4
    for word in struct.unpack(f"<{whole // 4}I", key[:whole]):
        mixed = word * _M & 0xFFFFFFFF
        mixed = (mixed ^ mixed >> _R) * _M & 0xFFFFFFFF
        state = (state * _M & 0xFFFFFFFF) ^ mixed
    if whole < length:
        state = (state ^ int.from_bytes(key[whole:], "little")) * _M & 0xFFFFFFFF
    state = (state ^ state >> 13) * _M & 0xFFFFFFFF
    return (state ^ state >> 15) & 0x7FFFFFFF
