"""Where calls are put by those who make them: bounded, and never waited at."""

import queue
import threading
from collections import deque
from typing import Final

# The list's and the bytes object's own share of an event in memory.
_OVERHEAD_BYTES: Final = 64


def memory_of(events: list[bytes]) -> int:
    """Return the bytes that events take in memory, as they are counted."""
    return sum(map(len, events)) + _OVERHEAD_BYTES * len(events)


class Inbox:
    """Events of any number of threads, in order of arrival.

    Nothing here can wait for anything but another `put`: an event is appended under a lock that is held for a microsecond,
    and reentrant, because a signal handler or a finalizer that records may interrupt a thread within it. (Two such puts may
    then lose one size in the count of bytes: the bound is off by one event, no event is lost.)
    """

    def __init__(self, *, bytes_max: int, batch_events: int, batch_bytes: int) -> None:
        self._bytes_max = bytes_max
        self._batch_events = batch_events
        self._batch_bytes = batch_bytes
        self._lock = threading.RLock()
        # Of those who take, apart from those who put: nobody who records waits for it.
        self._taking = threading.RLock()
        self._events: deque[bytes] = deque()
        self._put_bytes = self._taken_bytes = 0
        # Counted apart, each by one side alone, so that neither waits for the other.
        self._released_bytes = 0
        self._roused = self._full = False
        # SimpleQueue is reentrant, other than an Event or a Condition.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.events_put = self.events_refused = 0

    def put(self, event: bytes) -> bool:
        """Take an event; false where memory is full.

        Memory is what is here, waits to be sent, or is being sent: it is given back by `release`.
        """
        size = len(event) + _OVERHEAD_BYTES
        with self._lock:
            held_bytes = self._put_bytes + size - self._released_bytes
            if held_bytes > self._bytes_max:
                self.events_refused += 1
                return False
            self._put_bytes += size
            self.events_put += 1
            self._events.append(event)
            if not self._roused:
                self._roused = True
            elif not self._full and self.full:
                self._full = True
            else:
                return True
        self._wake.put(None)
        return True

    def take(self, taken: list[bytes]) -> None:
        """Move what is there into a list, at most one batch by number and size.

        A signal handler that takes over in the midst finds each event in the list or here; at worst in both, which its id
        puts right.
        """
        # Before looking: what comes afterwards rouses again.
        self._roused = self._full = False
        size = 0
        events = self._events
        with self._taking:
            while events and len(taken) < self._batch_events and size < self._batch_bytes:
                event = events[0]
                taken.append(event)
                events.popleft()
                size += len(event)
            self._taken_bytes += size + _OVERHEAD_BYTES * len(taken)

    def release(self, size: int) -> None:
        """Give back the memory of events that were sent, kept on disk or dropped, as `memory_of` counts it.

        For one thread at a time.
        """
        self._released_bytes += size

    @property
    def held_bytes(self) -> int:
        """Bytes in memory, here and on the way out."""
        return self._put_bytes - self._released_bytes

    @property
    def empty(self) -> bool:
        """Whether nothing waits here."""
        return not self._events

    def rouse(self) -> None:
        """Let whoever waits look again."""
        self._wake.put(None)

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until something was put into the empty inbox, a batch is full, or somebody roused; false if nothing did."""
        try:
            self._wake.get(timeout=timeout_s)
        except queue.Empty:
            return False
        return True

    @property
    def full(self) -> bool:
        """Whether a whole batch waits."""
        return len(self._events) >= self._batch_events or self._put_bytes - self._taken_bytes >= self._batch_bytes
