"""Recording for as long as the program runs, over forks and to the last moment.

- **Exit**: what waits is sent, or put to disk, when the interpreter ends, and when a child of `multiprocessing` does, which
  ends without the interpreter's exit handlers (before Python 3.13) or with none inherited (since).
- **SIGTERM**: only where nobody handles it, when the client is made in the main thread: what waits is sent or put to disk, then
  the signal takes its usual course, exit status included. An application that sets a handler, before or after, has it alone.
  Not in children of `multiprocessing`: a handler of Python's does not run where the signal comes an instant before a wait that
  nothing ends, and who ends a pool by that signal would wait for ever.
- **Fork**: the child begins anew, with nothing of the parent's in memory; the parent goes on.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Final

from ingest.client.counting import Counts
from ingest.client.delivery import Delivery, Redact
from ingest.client.diagnostics import logger
from ingest.client.events import source_json
from ingest.client.identifiers import Identifiers
from ingest.client.options import Options

_recorders: Final[set["Recorder"]] = set()
_hooks: Final[set[str]] = set()


class Recorder:
    """What a client records with; one for each client."""

    def __init__(self, options: Options, redact: Redact) -> None:
        self.options = options
        self.source = source_json(framework=options.framework)
        # A key is known, so that recording is of use at all.
        self.enabled = options.api_key is not None
        self.keeps_payloads = self.enabled and options.payloads
        self._redact = redact
        self._hooked = self._forked = False
        self._begin()
        if self.enabled:
            _recorders.add(self)
            _hook_fork()
            atexit.register(close_all)
            _hook_sigterm()

    def log_id(self) -> str:
        """Return a new id of a log."""
        if os.getpid() != self._process_id:
            # A fork that Python was not told of: without this both processes would give the same ids.
            self.begin_in_child()
        return self._identifiers.log_id()

    def session_id(self) -> str:
        """Return a new id of a session."""
        if os.getpid() != self._process_id:
            self.begin_in_child()
        return self._identifiers.session_id()

    def put(self, event: bytes) -> None:
        """Take an event over; never raises."""
        if not self.enabled:
            return
        try:
            delivery = self._delivery
            delivery.put(event)
            if not self._hooked:
                self._hooked = True
                _hook_child(forked=self._forked)
        except Exception:
            logger.exception("a call could not be recorded")

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was put is out of memory; true if the server has answered for it."""
        return not self.enabled or self._delivery.flush(timeout_s)

    def close(self, timeout_s: float | None = None, *, in_signal: bool = False) -> None:
        """Send what can be sent in time, put the rest to disk, end the threads."""
        self._delivery.close(self.options.close_timeout_s if timeout_s is None else timeout_s, in_signal=in_signal)

    def let_go(self) -> None:
        """Close without waiting: nobody holds the client any more."""
        self._delivery.let_go(lambda: _recorders.discard(self))

    def counts(self) -> Counts:
        """Count what became of the calls of this process."""
        return self._delivery.counts()

    def begin_in_child(self) -> None:
        """In a forked child: leave everything to the parent and begin anew."""
        self._delivery.forget()
        self._forked = True
        self._begin()

    def _begin(self) -> None:
        self._process_id = os.getpid()
        self._identifiers = Identifiers()
        self._delivery = Delivery(self.options, self._redact)
        self._hooked = False


def close_all(*, in_signal: bool = False) -> None:
    """Close every client of this process, side by side: together they take no longer than the slowest."""
    waiting = list(_recorders)
    if len(waiting) == 1:
        waiting[0].close(in_signal=in_signal)
        return
    threads = []
    for recorder in waiting:
        thread = threading.Thread(target=recorder.close, kwargs={"in_signal": in_signal}, daemon=True)
        try:
            thread.start()
            threads.append(thread)
        except RuntimeError:
            # No more threads at the end of the interpreter: one after the other.
            recorder.close(in_signal=in_signal)
    for thread in threads:
        thread.join()


def _hook_fork() -> None:
    if "fork" not in _hooks and hasattr(os, "register_at_fork"):
        _hooks.add("fork")
        os.register_at_fork(before=_unhook_sigterm, after_in_parent=_hook_sigterm_again, after_in_child=_begin_all)


def _unhook_sigterm() -> None:
    """Before a fork: the child has no handler of ours until it is known what kind of child it is.

    Not even for a moment: Python forgets a signal that comes to a child with a handler before it has begun.
    """
    with contextlib.suppress(ValueError):
        if signal.getsignal(signal.SIGTERM) is _on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _hooks.add("sigterm again")


def _hook_sigterm_again() -> None:
    if "sigterm again" in _hooks:
        _hooks.discard("sigterm again")
        _hook_sigterm()


def _begin_all() -> None:
    _hooks.discard("sigterm again")
    # Where another thread than the main one forked, which cannot change handlers.
    _unhook_sigterm()
    _hooks.discard("sigterm again")
    for recorder in list(_recorders):
        with contextlib.suppress(Exception):
            recorder.begin_in_child()


def _hook_child(*, forked: bool) -> None:
    """At the first call of a process: see to it that it does not end with calls in memory, if it is somebody's child."""
    if forked:
        # Twice is harmless, and what was inherited may have been cleared.
        atexit.register(close_all)
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        from multiprocessing import util  # noqa: PLC0415 - only where it is in use already

        # A priority: without one it would not be called in every kind of child.
        util.Finalize(None, close_all, exitpriority=100)
    elif forked:
        _hook_sigterm()


def _hook_sigterm() -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    try:
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _on_sigterm)
    except ValueError:
        # Not the main interpreter.
        logger.debug("SIGTERM cannot be watched here")


def _on_sigterm(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    try:
        close_all(in_signal=True)
    finally:
        os.kill(os.getpid(), number)
