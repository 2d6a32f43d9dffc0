"""How long to wait before the next try: longer each time, and never the same for everybody. Pure but for chance."""

import random
from typing import Final

_FIRST_S: Final = 0.5
_DOUBLINGS_MAX: Final = 10


def jittered(seconds: float, *, low: float = 0.5, high: float = 1.0) -> float:
    """Return a time between two multiples of another, so that those who failed together do not come back together."""
    return seconds * random.uniform(low, high)  # noqa: S311 - no secret


def backoff_s(failures: int, *, most_s: float) -> float:
    """Return how long to wait after so many failures in a row."""
    return jittered(min(most_s, _FIRST_S * 2 ** min(max(failures - 1, 0), _DOUBLINGS_MAX)))
