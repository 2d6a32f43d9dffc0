"""One process's recording: an inbox, a thread that makes batches, a thread that sends them, and an orderly end.

```
 callers ─> inbox ─> collecting thread: redacts, batches ─> sender's memory ─> sending thread ─> server
                                                      └────> disk ────────────────┘
```
Threads, locks, files and connections belong to the process that made them: a forked child makes its own.
"""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

import msgspec

from ingest.client.batches import Batch
from ingest.client.counting import Counts, DropReason
from ingest.client.diagnostics import logger
from ingest.client.inbox import Inbox, memory_of
from ingest.client.options import Options
from ingest.client.sender import Sender
from ingest.contract.event import EVENT_BYTES_MAX

Redact = Callable[[bytes], bytes]

# Of a thread's own making: to be delivered where they happen.
_FAULTS = frozenset({signal.SIGSEGV, signal.SIGFPE, signal.SIGILL, signal.SIGABRT})
# Threads that are asked to end have nothing left but to notice it; both together.
_JOIN_S = 0.5
# Redacting a batch takes some tens of milliseconds, on a machine that is busy a second; who is stuck is told from who is
# slow by that. A signal handler, beneath which a thread may lie that holds everything up, does not wait so long.
_STUCK_S = 10.0
_STUCK_SIGNAL_S = 0.5
_YIELD_EVERY = 8
# What may hold secrets.
_UNREDACTED = frozenset({"data", "metadata", "message", "error"})


class Delivery:
    """From `put` to the server, or to disk."""

    def __init__(self, options: Options, redact: Redact) -> None:
        self._options = options
        self._redact = redact
        self._inbox = Inbox(
            bytes_max=options.memory_bytes_max, batch_events=options.batch_events_max, batch_bytes=options.batch_bytes_max
        )
        self._sender = Sender(options, release=self._inbox.release)
        # Reentrant, as every lock here: a signal handler may flush while its thread collects.
        self._collecting = threading.RLock()
        self._batches = 0
        # Taken from the inbox, and not yet with the sender; more than one only where a signal handler came in between.
        self._in_hand: list[list[bytes]] = []
        self._starting = threading.RLock()
        self._threads: list[threading.Thread] = []
        self._next_start_s = float("-inf")
        self._stopping = False
        self._refusals_told = 0
        self._let_go: Callable[[], object] | None = None
        self.started = False
        self.closed = self._ended = False

    def put(self, event: bytes) -> None:
        """Take an event over. Never waits; what has no room is counted as dropped."""
        self._inbox.put(event)
        if self.closed:
            # For what other exit handlers record: it goes to disk. Asked afterwards, so that nothing stays behind between.
            self.collect()
        elif not self.started:
            self.start()

    def start(self) -> None:
        """Start the threads, unless they run."""
        with self._starting:
            if self.started or self.closed or time.monotonic() < self._next_start_s:
                return
            try:
                for name, work in (("collect", self._collect), ("send", self._sender.run)):
                    thread = threading.Thread(target=_without_signals, args=(work,), name=f"toolledger-{name}", daemon=True)
                    thread.start()
                    self._threads.append(thread)
            except RuntimeError as error:
                # No more threads, or the interpreter is about to end; then the end sends what there is.
                self._next_start_s = time.monotonic() + 1.0
                logger.debug("no thread could be started: %s", error)
                return
            self.started = True

    def collect(self, *, whole_only: bool = False, stuck_s: float = _STUCK_S) -> int:
        """Make batches of what was put so far, in whatever thread; return the number of the last batch.

        Args:
            whole_only: leave what does not fill a batch.
            stuck_s: whoever collects for longer than that is stuck.
        """
        # A signal handler may have interrupted a thread that holds what the collecting thread waits for: then that one is
        # in nobody's way, and what both hand over counts once.
        alone = self._collecting.acquire(timeout=stuck_s)
        try:
            for events in list(self._in_hand):
                # Of a collection that this one interrupted, or that is stuck: it may never go on. If it does, it hands all of
                # it over once more, and gives the memory back; by their ids calls count once.
                self._hand_over(list(events), held_bytes=0)
            while self._inbox.full or not whole_only:
                taken: list[bytes] = []
                self._in_hand.append(taken)
                self._inbox.take(taken)
                if taken:
                    self._hand_over(taken, held_bytes=memory_of(taken))
                self._in_hand = [each for each in self._in_hand if each is not taken]
                if not taken:
                    break
            return self._batches
        finally:
            if alone:
                self._collecting.release()

    def _hand_over(self, events: list[bytes], *, held_bytes: int) -> None:
        if events:
            redacted = self._redacted(events)
            self._batches += 1
            self._sender.take(Batch(number=self._batches, events=redacted, held_bytes=held_bytes))

    def flush(self, timeout_s: float) -> bool:
        """Wait until what was put before is out of memory; true if the server has answered for all of it."""
        deadline_s = time.monotonic() + timeout_s
        self.start()
        before = self._kept_or_lost()
        last = self.collect()
        sender = self._sender
        with sender.changed:
            while sender.holds(last):
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or not self._wait(left_s):
                    return False
        return self._kept_or_lost() == before

    def close(self, timeout_s: float, *, in_signal: bool = False) -> None:
        """Send what can be sent by then, put the rest to disk, end the threads. Closing again does nothing.

        Args:
            timeout_s: sending may take that long.
            in_signal: this is a signal handler, which may have interrupted anything of ours.
        """
        if self.closed and not (in_signal and not self._ended):
            # A signal that comes within the end itself sees it through: nothing beneath it may go on.
            return
        stuck_s = _STUCK_SIGNAL_S if in_signal else _STUCK_S
        deadline_s = time.monotonic() + timeout_s
        sender = self._sender
        last = self.collect(stuck_s=stuck_s)
        with sender.changed:
            while sender.holds(last) or sender.owes_disk:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or sender.hopeless(deadline_s) or not self._wait(left_s):
                    break
        self.closed = True
        self.collect(stuck_s=stuck_s)
        sender.evacuate()
        self._ended = True
        self._stop()
        sender.close()
        counts = self.counts()
        logger.debug("closed: %s", counts)
        if counts.spooled:
            logger.info("%d calls went to disk, in %s", counts.spooled, self._options.spool_folder)

    def let_go(self, then: Callable[[], object]) -> None:
        """Close without waiting, and call something afterwards. The garbage collector may call this, at any line of any code.

        That is why no thread is started and no lock taken here; where none runs there is nothing to send either.
        """
        if not self.started:
            self.closed = True
            then()
            return
        self._let_go = then
        self._inbox.rouse()

    def forget(self) -> None:
        """In a forked child: close what was copied from the parent, who goes on with all of it."""
        self._sender.forget()

    def counts(self) -> Counts:
        """Count what became of the calls so far."""
        sender, inbox = self._sender, self._inbox
        with sender.changed:
            dropped: Counter[DropReason] = Counter(sender.dropped)
            if inbox.events_refused:
                dropped["memory_full"] += inbox.events_refused
            recorded = inbox.events_put + inbox.events_refused
            # Damaged and refused files are of whatever process.
            own = sum(events for reason, events in dropped.items() if reason in ("memory_full", "closed", "internal"))
            return Counts(
                recorded=recorded,
                accepted=sender.accepted,
                rejected=sender.rejected,
                spooled=sender.spooled,
                dropped=sum(dropped.values()),
                # What a signal handler handed over a second time counts twice on its way.
                waiting=max(recorded - sender.accepted - sender.rejected - sender.spooled - own, 0),
                recovered=sender.recovered,
                dropped_by_reason=dict(dropped),
            )

    def _wait(self, left_s: float) -> bool:
        """Wait for the sender to get on; where no thread does, do its work here. False when there is nothing to wait for."""
        if any(thread.name.endswith("send") and thread.is_alive() for thread in self._threads):
            self._sender.changed.wait(left_s)
            return True
        return self._sender.step(wait=False)

    def _kept_or_lost(self) -> tuple[int, int]:
        counts = self.counts()
        return counts.spooled, counts.dropped

    def _collect(self) -> None:
        """The collecting thread."""
        inbox, interval_s = self._inbox, self._options.flush_interval_s
        while not self._stopping:
            inbox.wait(None)
            due_s = time.monotonic() + interval_s
            try:
                while not self._stopping and self._let_go is None and (left_s := due_s - time.monotonic()) > 0:
                    self.collect(whole_only=True)
                    inbox.wait(left_s)
                self.collect()
                self._tell_of_refusals()
                if self._let_go is not None:
                    self.close(self._options.close_timeout_s)
                    self._let_go()
            except Exception:
                logger.exception("collecting failed in an unexpected way")

    def _redacted(self, events: list[bytes]) -> list[bytes]:
        redact = self._redact
        try:
            made = []
            for place, event in enumerate(events):
                made.append(redact(event))
                if place % _YIELD_EVERY == 0:
                    # Lets callers at the interpreter's lock, which they would otherwise wait for by the 5 ms.
                    time.sleep(0)
        except Exception:
            logger.exception("redaction failed; calls go without what it could not look through")
            made = [self._redacted_or_bare(event) for event in events]
        if max(map(len, made)) > EVENT_BYTES_MAX:
            made = [event if len(event) <= EVENT_BYTES_MAX else _bare(event) for event in made]
        return made

    def _redacted_or_bare(self, event: bytes) -> bytes:
        try:
            return self._redact(event)
        except Exception:
            return _bare(event)

    def _tell_of_refusals(self) -> None:
        refused = self._inbox.events_refused
        if refused > self._refusals_told:
            self._sender.tell("calls were dropped: memory is full (memory_bytes_max)", refused - self._refusals_told)
            self._refusals_told = refused

    def _stop(self) -> None:
        self._stopping = True
        self._sender.stop()
        self._inbox.rouse()
        until_s = time.monotonic() + _JOIN_S
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(until_s - time.monotonic(), 0))


def _without_signals(work: Callable[[], None]) -> None:
    """Run a thread of ours, to which no signal of the program is delivered.

    The system may give a signal to any thread; Python's handlers run in the main one, which sleeps on, if it waits in a call of
    the system's, when another thread was woken instead.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _FAULTS)
    work()


def _bare(event: bytes) -> bytes:
    """Return an event without what may hold secrets: the call counts all the same."""
    members = msgspec.json.decode(event, type=dict[str, msgspec.Raw])
    kept = {name: value for name, value in members.items() if name not in _UNREDACTED}
    if "error" in members:
        kept["error"] = msgspec.Raw(b'{"message":"(left out)"}')
    return msgspec.json.encode(kept)
