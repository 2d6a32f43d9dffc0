"""One call under way: begun, ended, recorded. Nothing here raises, whatever it is given."""

import contextvars
import logging
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from ingest.client.diagnostics import logger
from ingest.client.events import LABELS, NO_LABELS, Known, compose, parent_json, tool_json
from ingest.client.failures import error_json
from ingest.client.recorder import Recorder
from ingest.client.snapshots import REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX, snapshot, text
from ingest.contract.event import IDENTIFIER_CHARS_MAX

if TYPE_CHECKING:
    from ingest.client.sessions import BaseSession

# The execution within which this code runs: what is called from there says so as `parent`.
_within: Final[contextvars.ContextVar["Execution | None"]] = contextvars.ContextVar("toolledger_execution", default=None)
# The sessions whose `with` blocks this code runs in, the innermost last.
entered_sessions: Final[contextvars.ContextVar[tuple["BaseSession", ...]]] = contextvars.ContextVar(
    "toolledger_sessions", default=()
)

_NOTHING: Final = object()


class Execution:
    """A call that is recorded when it ends; a context manager, for `with` and `async with` alike.

    Set `result` to what the tool gave, and call `fail` where it failed without raising. What is raised within the block is
    recorded and goes on. Arguments and results are taken down at once: changing them later changes nothing.
    """

    __slots__ = (
        "_arguments",
        "_began_ns",
        "_ended",
        "_failure",
        "_labels",
        "_outer",
        "_parent",
        "_recorder",
        "_request",
        "_response",
        "_started_ms",
        "log_id",
        "message",
        "tool_slug",
    )

    def __init__(
        self,
        recorder: Recorder,
        tool_slug: str,
        *,
        labels: Known = NO_LABELS,
        arguments: Any = _NOTHING,
        log_id: str | None = None,
    ) -> None:
        self._recorder = recorder
        self.tool_slug = tool_slug
        self.log_id = text(log_id, IDENTIFIER_CHARS_MAX) if log_id else recorder.log_id()
        self.message: str | None = None
        self._labels = labels
        self._request: bytes | None = None
        self._response: bytes | None = None
        self._failure: bytes | None = None
        self._ended = False
        self._outer: Execution | None = None
        self._parent = b""
        if arguments is not _NOTHING and arguments is not None and recorder.keeps_payloads:
            self._request = snapshot(arguments, REQUEST_BYTES_MAX)
        self.begin()

    def begin(self) -> None:
        """Start the clock, once more."""
        self._started_ms = time.time_ns() // 1_000_000
        self._began_ns = time.perf_counter_ns()

    @property
    def keeps_payloads(self) -> bool:
        """Whether arguments and results are recorded."""
        return self._recorder.keeps_payloads

    @property
    def recorded(self) -> bool:
        """Whether it has ended."""
        return self._ended

    @property
    def result(self) -> None:
        """What the tool gave; only to be set, as often as you like."""
        return None

    @result.setter
    def result(self, value: Any) -> None:
        if self._recorder.keeps_payloads:
            self._response = snapshot(value, RESPONSE_BYTES_MAX)

    @property
    def arguments(self) -> None:
        """What the tool takes; only to be set, where it is not known before."""
        return None

    @arguments.setter
    def arguments(self, value: Any) -> None:
        if self._recorder.keeps_payloads:
            self._request = snapshot(value, REQUEST_BYTES_MAX)

    def fail(self, error: object) -> None:
        """Say that the call failed: an exception, or a text."""
        self._failure = error_json(error)

    def label(self, **labels: Any) -> None:
        """Say what is known only now: `user_id`, `session_id`, `metadata`, ..., as of `ToolLedger.execution`."""
        self._labels = Known(known(labels), metadata=self.keeps_payloads).under(self._labels)

    def end(self, error: object = None, *, duration_ms: float | None = None, started_ms: int | None = None) -> None:
        """Record the call; a second time does nothing.

        Args:
            error: what went wrong, if anything.
            duration_ms: how long it took, where somebody else measured it.
            started_ms: when it began, epoch ms, likewise.
        """
        if self._ended:
            return
        self._ended = True
        measured_ms = (time.perf_counter_ns() - self._began_ns) / 1e6
        try:
            if duration_ms is None:
                duration_ms = measured_ms
            elif started_ms is None:
                self._started_ms -= int(duration_ms)
            if started_ms is not None:
                self._started_ms = int(started_ms)
        except (TypeError, ValueError, OverflowError):
            logger.warning("no time: duration_ms=%r, started_ms=%r", duration_ms, started_ms)
            duration_ms = measured_ms
        try:
            if error is not None:
                self._failure = error_json(error)
            event = compose(
                log_id=self.log_id,
                started_ms=self._started_ms,
                duration_ms=duration_ms,
                members=self._members(),
                failure=self._failure,
                message=self.message,
                request=self._request,
                response=self._response,
            )
            self._recorder.put(event)
            if logger.isEnabledFor(logging.DEBUG):
                outcome = "succeeded" if self._failure is None else "failed"
                logger.debug("%s %s after %.1f ms: %s, %d bytes", self.tool_slug, outcome, duration_ms, self.log_id, len(event))
        except Exception:
            logger.exception("a call could not be recorded")

    def enter(self) -> "Execution | None":
        """Let what is called from here on be within this call; return what it was within before, for `leave`."""
        outer = _within.get()
        if not self._parent and outer is not None and outer._recorder is self._recorder:
            self._parent = parent_json(outer.log_id, outer.tool_slug)
        _within.set(self)
        return outer

    def leave(self, outer: "Execution | None") -> None:
        """Undo `enter`; in another thread or context than it was called in, there is nothing to undo."""
        if _within.get() is self:
            _within.set(outer)

    def __enter__(self) -> Self:
        self._outer = self.enter()
        self.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        outer, self._outer = self._outer, None
        self.leave(outer)
        # Of a generator whose consumer has had enough.
        self.end(None if kind is GeneratorExit else error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"<Execution {self.log_id} of {self.tool_slug!r}>"

    def _members(self) -> bytes:
        return tool_json(self.tool_slug) + self._labels.json + self._recorder.source + self._parent


def known(labels: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return labels without those that no event has, which are told of in the log."""
    if labels.keys() <= LABELS:
        return labels
    unknown = sorted(labels.keys() - LABELS)
    logger.warning("there is no label %s; known are %s", ", ".join(unknown), ", ".join(sorted(LABELS)))
    return {name: value for name, value in labels.items() if name in LABELS}
