"""What the client says of itself, to the logger `toolledger`, which never leaves this machine.

`TOOLLEDGER_LOG_LEVEL` (debug, info, warning, error, silent) sets its level; without it the application's own configuration of
logging decides. No line holds a secret. Payloads stand in lines only with the level debug and `TOOLLEDGER_LOG_PAYLOADS=yes`,
redacted even then.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Final, TextIO

logger: Final = logging.getLogger("toolledger")

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "silent": logging.CRITICAL + 1,
}
# While a server is away the same is to be said of every batch.
_EVERY_S: Final = 30.0


class _LastResort(logging.StreamHandler[TextIO]):
    """Shows lines on standard error as long as nobody else does."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.root.handlers:
            super().emit(record)


def configure() -> None:
    """Set the level that the environment asks for; asking again changes nothing."""
    asked = os.environ.get("TOOLLEDGER_LOG_LEVEL", "").strip().lower()
    if asked not in _LEVELS:
        return
    logger.setLevel(_LEVELS[asked])
    if not logger.handlers:
        handler = _LastResort()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)


def shows_payloads() -> bool:
    """Tell whether lines may hold (redacted) payloads."""
    return logger.isEnabledFor(logging.DEBUG) and os.environ.get("TOOLLEDGER_LOG_PAYLOADS", "").lower() in ("yes", "true", "1")


class Seldom:
    """Says the same thing once in a while, with the number of events it is about since the last time."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._lock = threading.RLock()
        self._said: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def warn(self, what: str, *arguments: object, events: int = 0) -> None:
        """Log a warning, unless the same was said a moment ago.

        Args:
            what: the template, which also tells what is the same.
            arguments: of the template.
            events: how many calls this is about; added up over the times it was not said.
        """
        with self._lock:
            now_s = self._now_s()
            events += self._unsaid.pop(what, 0)
            said = self._said.get(what)
            if said is not None and now_s - said < _EVERY_S:
                self._unsaid[what] = events
                return
            self._said[what] = now_s
        logger.warning(what + (" (%d calls)" if events else ""), *arguments, *((events,) if events else ()))
