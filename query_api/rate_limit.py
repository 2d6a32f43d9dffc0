"""How many requests a key may send: a fixed window of one minute per key. Pure: the time is given.

A window begins with a key's first request after its last one ended, not with the clock's minute, so that keys that were
stopped do not all come back in the same second. Only keys in force are counted: a guessed key never gets here.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

WINDOW_S: Final = 60
# The official clients wait for what Retry-After says only below a minute, and else come back within seconds (CONTRACT 6).
RETRY_AFTER_S_MAX: Final = WINDOW_S - 1
# What is announced where nothing is limited: the incumbent's usual limit, so that clients that pace themselves by it go on.
ANNOUNCED_UNLIMITED: Final = 10_000
# A window takes some 200 bytes. With more keys at work in a minute the oldest is forgotten: too lenient, never too strict.
_KEYS_MAX: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a key stands after a request.

    Args:
        limit: requests in a window, as announced.
        remaining: how many more would be taken now.
        retry_after_s: whole seconds, 1 to `RETRY_AFTER_S_MAX`, where this request is refused; else 0.
    """

    limit: int
    remaining: int
    retry_after_s: int = 0


class RateLimit:
    """Counts requests by key.

    Args:
        per_window: requests of one key in a window; 0: all are taken, and the same is announced for ever.
        keys_max: windows held at once.
    """

    def __init__(self, per_window: int, *, keys_max: int = _KEYS_MAX) -> None:
        self._limit = per_window
        self._keys_max = keys_max
        # key -> (begin, requests taken), oldest first: a window never moves, so those that are over stand at the front.
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def untouched(self) -> Standing:
        """Return the standing of a caller that is not counted: one that is unknown, or has sent nothing yet."""
        limit = self._limit or ANNOUNCED_UNLIMITED
        return Standing(limit=limit, remaining=limit)

    def take(self, key: str, *, now_s: float) -> Standing:
        """Count one request.

        Args:
            key: whose; its hash, so that no key is held here.
            now_s: of a clock that never goes back.
        """
        if not self._limit:
            return self.untouched()
        self._forget(now_s)
        began_s, taken = self._windows.get(key, (now_s, 0))
        if taken >= self._limit:
            wait_s = math.ceil(began_s + WINDOW_S - now_s)
            return Standing(limit=self._limit, remaining=0, retry_after_s=min(max(1, wait_s), RETRY_AFTER_S_MAX))
        if not taken and len(self._windows) >= self._keys_max:
            self._windows.popitem(last=False)
        self._windows[key] = (began_s, taken + 1)
        return Standing(limit=self._limit, remaining=self._limit - taken - 1)

    def __len__(self) -> int:
        """Return how many windows are held."""
        return len(self._windows)

    def _forget(self, now_s: float) -> None:
        while self._windows and now_s >= next(iter(self._windows.values()))[0] + WINDOW_S:
            self._windows.popitem(last=False)
