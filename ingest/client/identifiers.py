"""Ids made at the caller, so that whatever is sent twice counts once."""

import os
from base64 import urlsafe_b64encode
from collections import deque
from typing import Final

LOG_PREFIX: Final = "log_"
SESSION_PREFIX: Final = "ses_"
# 9 bytes are 12 URL-safe characters without padding, also many in a row; 72 random bits, as ingest makes them.
_BYTES: Final = 9
_CHARS: Final = 12
# One call of the system for so many ids: 60 ns an id instead of a microsecond.
_AT_ONCE: Final = 256


class Identifiers:
    """A supply of random ids, for any number of threads.

    Belongs to one process: a copy of it in a forked child would give the parent's ids once more, and what is recorded under
    an id that is known already is a duplicate.
    """

    def __init__(self) -> None:
        self._ready: deque[str] = deque()

    def log_id(self) -> str:
        """Return a new id of a log."""
        return LOG_PREFIX + self._take()

    def session_id(self) -> str:
        """Return a new id of a session."""
        return SESSION_PREFIX + self._take()

    def _take(self) -> str:
        try:
            return self._ready.popleft()
        except IndexError:
            text = urlsafe_b64encode(os.urandom(_BYTES * _AT_ONCE)).decode()
            fresh = [text[at : at + _CHARS] for at in range(0, len(text), _CHARS)]
            self._ready.extend(fresh[1:])
            return fresh[0]
