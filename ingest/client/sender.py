"""One process's way to the server: what waits in memory and on disk, one request at a time, with backoff.

Order: batches in memory first, since a call is to be searchable within a second; after each few of them one from disk, so that
what waits there comes to its turn under any load. While the server does not take anything, batches go to disk at once.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from ingest.client.batches import Batch
from ingest.client.counting import DropReason
from ingest.client.diagnostics import Seldom, logger, shows_payloads
from ingest.client.exchange import Exchange
from ingest.client.frames import pack, unpack
from ingest.client.judging import Delivered, TooLarge, TryAgain
from ingest.client.options import Options
from ingest.client.pauses import backoff_s, jittered
from ingest.client.spool import Segment, Spool

_BACKOFF_S_MAX: Final = 30.0
# A wrong key or address is mended by people.
_UNWELCOME_S: Final = 60.0
# Other processes may have died and left files behind.
_LOOK_S: Final = 30.0
# An answer takes a few milliseconds; one that takes so long leaves too much to a kill.
_SLOW_S: Final = 1.0
_MEMORY_BATCHES_PER_DISK: Final = 4
# What is on disk for that long, and the server has refused all the while that it was asked, nobody will mend. Age alone says
# nothing: after a weekend without a network, the first answer may come from a proxy, or from a server that is starting.
_REFUSED_S_MAX: Final = 86_400.0
# Of a closing client: a server that cannot be reached twice in a row is not waited for.
_TRIES_AT_CLOSE: Final = 2
_FAULTS_MAX: Final = 3
# Of a line in a log.
_SHOWN_BYTES: Final = 2_000


class Sender:
    """Everything behind the inbox, for one process.

    Args:
        release: gives back that many bytes of memory; called with the lock held.
    """

    def __init__(self, options: Options, *, release: Callable[[int], None]) -> None:
        self._options = options
        self._release = release
        self._seldom = Seldom()
        self._spool = Spool(options.spool_folder, bytes_max=options.spool_bytes_max, seldom=self._seldom)
        self._exchange = Exchange(options)
        # Reentrant: a signal handler that flushes may interrupt one that waits.
        self.changed = threading.Condition(threading.RLock())
        self._waiting: deque[Batch] = deque()
        self._waiting_bytes = 0
        self._sending: Batch | None = None
        self._sending_since_s = 0.0
        self._segment: Segment | None = None
        self._spool_due = True
        self._look_at_s = 0.0
        self._from_memory = 0
        self._not_before_s = 0.0
        self._failures = 0
        # Since when nothing but refusals came, None where the last answer was none.
        self._unwelcome_since_s: float | None = None
        self._stopping = False
        self.accepted = self.rejected = self.spooled = self.recovered = 0
        self.dropped: Counter[DropReason] = Counter()

    # What the collector and those who flush call.

    def take(self, batch: Batch) -> None:
        """Take a batch over: to be sent, or to disk where sending has to wait; of a closed client to disk, or nowhere."""
        with self.changed:
            if self._stopping:
                if not self._spill(batch):
                    self._drop(batch, "closed")
                # Nobody else will: the file must be free for the next process.
                self._spool.close()
                return
            if self._has_to_wait() or self._is_slow() or self._waiting_bytes + batch.size > self._options.memory_bytes_max // 2:
                self.spill()
                if self._spill(batch):
                    return
            # What waits behind a request goes together, instead of in as many requests as there were moments.
            if not self._waiting or not self._waiting[-1].join(batch, self._options):
                self._waiting.append(batch)
            self._waiting_bytes += batch.size
            self.changed.notify_all()

    def spill(self) -> None:
        """Put all that waits in memory to disk, as far as it takes it."""
        with self.changed:
            while self._waiting and self._spill(self._waiting[0]):
                self._waiting_bytes -= self._waiting.popleft().size

    def holds(self, number: int) -> bool:
        """Whether a batch up to that number is still in memory."""
        with self.changed:
            first = self._waiting[0].number if self._waiting else number + 1
            sending = self._sending.number if self._sending is not None else number + 1
            return min(first, sending) <= number

    def hopeless(self, deadline_s: float) -> bool:
        """Whether waiting until then for the server is no use."""
        with self.changed:
            return (
                self._not_before_s > deadline_s
                or self._unwelcome_since_s is not None
                or (self._exchange.unreachable and self._failures >= _TRIES_AT_CLOSE)
            )

    @property
    def owes_disk(self) -> bool:
        """Whether something that this process put to disk may still be there."""
        with self.changed:
            return self.spooled > 0 and (self._spool_due or self._segment is not None)

    def tell(self, what: str, events: int) -> None:
        """Say in the log, once in a while, what happened to so many calls."""
        self._seldom.warn(what, events=events)

    def evacuate(self) -> None:
        """Put everything to disk, also what is being sent at this moment; what disk does not take is dropped and counted."""
        with self.changed:
            self.spill()
            if self._sending is not None and self._spool.append(pack(self._sending.ndjson(), len(self._sending.events))):
                # It may have been accepted, or be accepted yet: by its ids it counts once.
                self._settle(self._sending, spooled=len(self._sending.events))
                self._sending = None
            while self._waiting:
                self._drop(self._waiting.popleft(), "closed")
            self._waiting_bytes = 0
            if self._sending is not None:
                self._drop(self._sending, "closed")
                self._sending = None
            # Under the same lock: what is handed over from here on goes to disk, for nobody sends it any more.
            self._stopping = True

    def stop(self) -> None:
        """Let `run` end after what it is doing."""
        with self.changed:
            self._stopping = True
            self.changed.notify_all()
            self._exchange.abort()

    def close(self) -> None:
        """Let go of files and the connection."""
        self._spool.close()
        self._leave()
        self._exchange.close()

    def forget(self) -> None:
        """In a forked child: close what was copied, without a word to anybody."""
        self._spool.forget()
        if self._segment is not None:
            self._segment.leave()
        self._exchange.forget()

    # What the sending thread does.

    def run(self) -> None:
        """Send until stopped."""
        while self.step():
            pass
        # One that was claimed while `close` looked elsewhere would be nobody's for as long as this process lives.
        self._leave()

    def step(self, *, wait: bool = True) -> bool:
        """Send one batch; false when there is nothing to do and it is not to wait, or when stopped."""
        if not self._next(wait=wait):
            return False
        try:
            if self._sending is not None:
                self._send_batch(self._sending)
            else:
                self._send_from_disk()
        except Exception:
            logger.exception("sending failed in an unexpected way")
            self._faulted()
        return True

    def _next(self, *, wait: bool) -> bool:
        """Choose what to send: a batch from memory becomes `_sending`; true with none chosen means: from disk."""
        with self.changed:
            while not self._stopping:
                now_s = time.monotonic()
                wait_s = self._not_before_s - now_s
                if wait_s <= 0:
                    if now_s >= self._look_at_s:
                        self._spool_due, self._look_at_s = True, now_s + jittered(_LOOK_S)
                    turn_of_disk = self._spool_due and self._from_memory >= _MEMORY_BATCHES_PER_DISK
                    if self._waiting and not turn_of_disk:
                        self._sending, self._sending_since_s = self._waiting.popleft(), now_s
                        self._waiting_bytes -= self._sending.size
                        self._from_memory += 1
                        return True
                    if self._spool_due:
                        self._from_memory = 0
                        return True
                    wait_s = self._look_at_s - now_s
                if not wait:
                    return False
                self.changed.wait(wait_s)
            return False

    def _send_batch(self, batch: Batch) -> None:
        if shows_payloads():
            logger.debug(
                "sending %d calls; the first: %s", len(batch.events), batch.events[0][:_SHOWN_BYTES].decode(errors="replace")
            )
        outcome = self._exchange.send(batch.ndjson(), len(batch.events))
        with self.changed:
            if self._sending is not batch:
                # Put to disk by somebody who could not wait; whatever was answered, it counts once.
                return
            self._sending = None
            if isinstance(outcome, TooLarge) and len(batch.events) > 1:
                self._waiting.extendleft(reversed(batch.halves()))
                self._waiting_bytes += batch.size
            elif isinstance(outcome, TryAgain):
                self._put_off(outcome)
                if not self._spill(batch):
                    self._waiting.appendleft(batch)
                    self._waiting_bytes += batch.size
                self.spill()
            else:
                found = self._answered(outcome, len(batch.events))
                self._settle(batch, accepted=found.accepted, rejected=found.rejected)
            self.changed.notify_all()

    def _send_from_disk(self) -> None:
        segment = self._segment or self._claim()
        if segment is None:
            return
        if not segment.frames:
            self._segment = None
            segment.remove()
            return
        frame = segment.following
        outcome = self._exchange.send_packed(frame.body, frame.events)
        if isinstance(outcome, TooLarge) and frame.events > 1:
            lines = unpack(frame).splitlines(keepends=True)
            middle = len(lines) // 2
            segment.done()
            segment.frames.extend(pack(b"".join(half), len(half)) for half in (lines[middle:], lines[:middle]))
        elif isinstance(outcome, TryAgain):
            self._put_off(outcome)
            if min(self._refused_for_s(), time.time() - segment.modified_s) > _REFUSED_S_MAX:
                events = sum(each.events for each in segment.frames)
                self._segment = None
                segment.remove()
                self._lose(events, "refused_for_too_long", "the server has refused calls for a day: %s", outcome.why)
        else:
            found = self._answered(outcome, frame.events)
            segment.done()
            with self.changed:
                self.recovered += found.accepted + found.rejected

    def _claim(self) -> Segment | None:
        with self.changed:
            # Before looking: what is put to disk meanwhile is due again.
            self._spool_due = False
        segment = self._spool.claim()
        with self.changed:
            self._segment = segment
            self._spool_due = self._spool_due or segment is not None
            self.changed.notify_all()
        if segment is not None and segment.damaged_bytes:
            self._lose(segment.damaged_events, "damaged", "%s holds torn or damaged calls", segment.path)
        return segment

    def _leave(self) -> None:
        """Let others have the segment that was claimed."""
        with self.changed:
            segment, self._segment = self._segment, None
        if segment is not None:
            segment.leave()

    def _faulted(self) -> None:
        """After a fault of ours: it must neither end the thread, nor make it run hot, nor be met for ever."""
        with self.changed:
            batch, self._sending = self._sending, None
            if batch is not None:
                batch.faults += 1
                if batch.faults >= _FAULTS_MAX:
                    self._drop(batch, "internal")
                else:
                    self._waiting.appendleft(batch)
                    self._waiting_bytes += batch.size
            elif self._segment is not None:
                # Left to the next process, or to a later look.
                self._segment.leave()
                self._segment, self._spool_due = None, False
            self._put_off(TryAgain(why="an unexpected fault, which the log shows"))

    # What becomes of a batch.

    def _answered(self, outcome: Delivered | TooLarge, events: int) -> Delivered:
        self._failures, self._unwelcome_since_s = 0, None
        found = (
            outcome if isinstance(outcome, Delivered) else Delivered(accepted=0, rejected=events, codes={"too_large": events})
        )
        if found.rejected:
            why = ", ".join(f"{code} ({times})" for code, times in sorted(found.codes.items()))
            self._seldom.warn("the server refused calls, which are not sent again", events=found.rejected)
            logger.info("refused: %s; ids: %s", why, ", ".join(found.ids))
        return found

    def _put_off(self, why: TryAgain) -> None:
        with self.changed:
            self._failures += 1
            if not why.unwelcome:
                self._unwelcome_since_s = None
            elif self._unwelcome_since_s is None:
                self._unwelcome_since_s = time.monotonic()
            most_s = _UNWELCOME_S if why.unwelcome else _BACKOFF_S_MAX
            wait_s = backoff_s(self._failures, most_s=most_s)
            if why.retry_after_s is not None:
                # Never earlier than asked for; a little later, so that not everybody comes at once.
                wait_s = max(wait_s, jittered(why.retry_after_s, low=1.0, high=1.1))
            self._not_before_s = time.monotonic() + wait_s
            self.changed.notify_all()
        logger.debug("sending is put off for %.2f s: %s", wait_s, why.why)
        self._seldom.warn("calls are not taken at present, and are kept: %s", why.why)

    def _has_to_wait(self) -> bool:
        return self._failures > 0 and time.monotonic() < self._not_before_s

    def _refused_for_s(self) -> float:
        return time.monotonic() - self._unwelcome_since_s if self._unwelcome_since_s is not None else 0.0

    def _is_slow(self) -> bool:
        return self._sending is not None and time.monotonic() - self._sending_since_s > _SLOW_S

    def _spill(self, batch: Batch) -> bool:
        if not self._spool.usable or not self._spool.append(pack(batch.ndjson(), len(batch.events))):
            return False
        self._spool_due = True
        self._settle(batch, spooled=len(batch.events))
        self.changed.notify_all()
        return True

    def _drop(self, batch: Batch, reason: DropReason) -> None:
        self._settle(batch)
        self._lose(len(batch.events), reason, "calls were dropped: %s", reason)

    def _settle(self, batch: Batch, *, accepted: int = 0, rejected: int = 0, spooled: int = 0) -> None:
        self.accepted += accepted
        self.rejected += rejected
        self.spooled += spooled
        self._release(batch.held_bytes)

    def _lose(self, events: int, reason: DropReason, what: str, *arguments: object) -> None:
        with self.changed:
            self.dropped[reason] += events
        self._seldom.warn(what, *arguments, events=events)
