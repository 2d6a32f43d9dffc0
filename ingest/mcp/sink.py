"""Where events go: the seam to the client that sends them."""

import http.client
import threading
import time
from collections import deque
from typing import Final, Protocol
from urllib.parse import urlsplit

_QUEUE_BYTES_MAX: Final = 32 * 1024 * 1024
_BATCH_BYTES_MAX: Final = 4 * 1024 * 1024
_BATCH_EVENTS_MAX: Final = 500
_TIMEOUT_S: Final = 10.0
_PAUSE_S: Final = 1.0


class Sink(Protocol):
    """Takes events and never makes the caller wait."""

    def record(self, event: bytes) -> None:
        """Take one event's JSON."""

    def close(self, timeout_s: float) -> int:
        """Send what is left; return how many events could not be sent."""


class HttpSink:
    """Posts events to `/v1/events` from a thread, in batches, until it is told otherwise."""

    def __init__(self, url: str, api_key: str) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
        self._path = parts.path.rstrip("/") + "/v1/events"
        self._headers = {"x-api-key": api_key, "content-type": "application/x-ndjson", "user-agent": "toolledger-mcp"}
        self._events: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._changed = threading.Condition()
        self._deadline_s: float | None = None
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def record(self, event: bytes) -> None:
        """Take one event's JSON; the oldest goes where there is no room."""
        with self._changed:
            self._events.append(event)
            self._bytes += len(event)
            while self._bytes > _QUEUE_BYTES_MAX:
                self._bytes -= len(self._events.popleft())
                self._dropped += 1
            self._changed.notify()

    def close(self, timeout_s: float) -> int:
        """Send what is left; return how many events could not be sent."""
        with self._changed:
            self._deadline_s = time.monotonic() + timeout_s
            self._changed.notify()
        self._thread.join(timeout_s)
        return self._dropped + len(self._events)

    def _send(self) -> None:
        while batch := self._next_batch():
            while not self._post(batch):
                with self._changed:
                    self._changed.wait(_PAUSE_S)
                    if self._deadline_s is not None and time.monotonic() > self._deadline_s:
                        self._dropped += len(batch)
                        return

    def _next_batch(self) -> list[bytes]:
        with self._changed:
            while not self._events and self._deadline_s is None:
                self._changed.wait()
            batch: list[bytes] = []
            size = 0
            while self._events and len(batch) < _BATCH_EVENTS_MAX and size < _BATCH_BYTES_MAX:
                batch.append(self._events.popleft())
                size += len(batch[-1])
            self._bytes -= size
            return batch

    def _post(self, batch: list[bytes]) -> bool:
        """Send one batch; return whether it is settled, accepted or refused for good."""
        try:
            self._connection.request("POST", self._path, b"\n".join(batch), self._headers)
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return False
        if answer.status == 202:
            return True
        if answer.status in (408, 429) or answer.status >= 500:
            return False
        self._dropped += len(batch)
        return True
