"""The duration sketch: counts in logarithmic buckets, which merge exactly by adding.

A value v > 0 falls into bucket ceil(ln v / ln GAMMA); the bucket stands for 2 GAMMA^i / (GAMMA + 1), within ACCURACY of each of
its values. Zero, and anything below TINY_MS, has a bucket of its own.
Source: DDSketch (Masson, Rim, Lee, VLDB 2019), section 2.
"""

import math
from collections.abc import Mapping
from typing import Final

# Below the promised 1 %, so that a logarithm rounded differently by two libraries cannot break the promise.
ACCURACY: Final = 0.009
GAMMA: Final = (1 + ACCURACY) / (1 - ACCURACY)
LN_GAMMA: Final = math.log(GAMMA)
TINY_MS: Final = 1e-6
ZERO_BUCKET: Final = -32_768


def bucket(value_ms: float) -> int:
    """Return the bucket of a duration; fits Int16 for every duration an event may have."""
    return ZERO_BUCKET if value_ms < TINY_MS else math.ceil(math.log(value_ms) / LN_GAMMA)


def value(index: int) -> float:
    """Return the duration in ms that a bucket stands for."""
    return 0.0 if index == ZERO_BUCKET else 2 * math.exp(index * LN_GAMMA) / (GAMMA + 1)


def quantile(buckets: Mapping[int, int], q: float) -> float | None:
    """Return the value at rank ceil(q * n) (at least 1) of what was counted, None of nothing.

    Args:
        buckets: bucket -> count, in any order.
        q: 0 to 1.
    """
    total = sum(buckets.values())
    if not total:
        return None
    rank = max(1, math.ceil(q * total))
    for index in sorted(buckets):
        rank -= buckets[index]
        if rank <= 0:
            return value(index)
    raise AssertionError("a rank lies within the total")
