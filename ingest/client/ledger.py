"""`ToolLedger` and `AsyncToolLedger`: what a program records its tool calls with, and asks about them.

Both record in the same way, from any thread, process and event loop: recording takes some microseconds, never waits and never
raises. They differ in what is waited for: sessions' `execute`, `flush`, `close`, and questions.
"""

import asyncio
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack

from ingest.client import diagnostics
from ingest.client.counting import Counts
from ingest.client.events import NO_LABELS, Known, Labels
from ingest.client.executions import Execution, entered_sessions, known
from ingest.client.logs import AsyncLogs, Logs
from ingest.client.options import Options, resolve
from ingest.client.reading import Reader
from ingest.client.recorder import Recorder
from ingest.client.redaction import redaction
from ingest.client.sessions import AsyncSession, Session
from ingest.client.tools import recorded, undecorated
from ingest.client.usage import AsyncUsage, Usage

F = TypeVar("F", bound=Callable[..., Any])


class BaseLedger:
    """What both clients have.

    Args:
        api_key: of the project (TOOLLEDGER_API_KEY). Without one nothing is recorded, which is said once in the log.
        base_url: of the service (TOOLLEDGER_URL), http://127.0.0.1:8600 by default.
        payloads: whether arguments, results and metadata are recorded (TOOLLEDGER_PAYLOADS), yes by default.
        redact_patterns: patterns of your own secrets, RE2 expressions (TOOLLEDGER_REDACT_PATTERNS, one a line); they need the
            package google-re2. Of one with a group, the group is replaced.
        redact_names: names of members whose values are your own secrets (TOOLLEDGER_REDACT_NAMES, with commas).
        spool: folder for calls that cannot be sent yet (TOOLLEDGER_SPOOL), or False for none; by default one of this address
            and key in the user's state folder. A folder that is named keeps what it holds for whatever key comes next: give
            each project its own.
        spool_bytes_max: most bytes in that folder (TOOLLEDGER_SPOOL_BYTES_MAX), compressed.
        memory_bytes_max: most bytes of calls in memory; what comes beyond it, with no room on disk, is dropped and counted.
        batch_events_max: a request holds at most so many calls.
        batch_bytes_max: a request is closed at so many bytes before compression.
        flush_interval_s: a call waits at most that long for others to go with.
        timeout_s: an answer must begin by then.
        close_timeout_s: the end of the process may wait that long for the server; the rest goes to disk.
        framework: what calls the tools, as in `langchain`; shown with each log.

    Raises:
        ConfigurationError: a value that cannot be used.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        payloads: bool | None = None,
        redact_patterns: Sequence[str] | None = None,
        redact_names: Sequence[str] | None = None,
        spool: str | os.PathLike[str] | Literal[False] | None = None,
        spool_bytes_max: int | None = None,
        memory_bytes_max: int | None = None,
        batch_events_max: int | None = None,
        batch_bytes_max: int | None = None,
        flush_interval_s: float | None = None,
        timeout_s: float | None = None,
        close_timeout_s: float | None = None,
        framework: str | None = None,
    ) -> None:
        options = resolve(
            api_key=api_key,
            base_url=base_url,
            payloads=payloads,
            redact_patterns=redact_patterns,
            redact_names=redact_names,
            spool=spool,
            spool_bytes_max=spool_bytes_max,
            environment=os.environ,
            memory_bytes_max=memory_bytes_max,
            batch_events_max=batch_events_max,
            batch_bytes_max=batch_bytes_max,
            flush_interval_s=flush_interval_s,
            timeout_s=timeout_s,
            close_timeout_s=close_timeout_s,
            framework=framework,
        )
        self._set_up(options)

    def _set_up(self, options: Options) -> None:
        diagnostics.configure()
        self.options = options
        self.recorder = Recorder(options, redaction(options))
        self.reader = Reader(options)
        # The decorated functions, as they were, by tool slug: what `execute` calls without `tool=`.
        self.tools: dict[str, Callable[..., Any]] = {}
        # Nobody can close what nobody holds; the end of the process would, but that may be long.
        weakref.finalize(self, self.recorder.let_go).atexit = False
        if options.api_key is None:
            diagnostics.logger.warning("no API key (api_key=, TOOLLEDGER_API_KEY): calls are not recorded")
        else:
            diagnostics.logger.debug("records to %s; on disk: %s", options.base_url, options.spool_folder or "nothing")

    def tool(self, tool_slug: str, **labels: Unpack[Labels]) -> Callable[[F], F]:
        """Decorate a function: each call of it is recorded; what it returns and raises goes on to its caller.

        For sync and async functions, generators, async generators, and methods. Within a session's `with` block the calls are
        that session's.

        Args:
            tool_slug: names the tool.
            labels: of every call: `user_id`, `session_id`, `toolkit_slug`, `connected_account_id`, `auth_config_id`,
                `sandbox_id`, `trace_id`, `request_id`, `metadata`.
        """
        own = self.known(labels)

        def decorate(function: F) -> F:
            made = recorded(function, lambda arguments: self.begin(tool_slug, own, arguments))
            self.tools[tool_slug] = undecorated(made)
            return made

        return decorate

    def execution(self, tool_slug: str, *, arguments: Any = None, **labels: Unpack[Labels]) -> Execution:
        """Record what happens in a `with` (or `async with`) block as one call; what is raised in it goes on.

        Args:
            tool_slug: names the tool.
            arguments: what it takes; may be set later.
            labels: of this call, as of `tool`.
        """
        return self.begin(tool_slug, self.known(labels), arguments)

    def record(
        self,
        tool_slug: str,
        *,
        duration_ms: float,
        started_ms: int | None = None,
        error: object = None,
        arguments: Any = None,
        result: Any = None,
        message: str | None = None,
        log_id: str | None = None,
        **labels: Unpack[Labels],
    ) -> str:
        """Record a call that is over; return the id of its log.

        Args:
            tool_slug: names the tool.
            duration_ms: how long it took.
            started_ms: when it began, epoch ms; by default so long ago.
            error: what went wrong, an exception or a text; without one it succeeded.
            arguments: what the tool took.
            result: what it gave.
            message: one line for people.
            log_id: your own id, where you have one that comes again with a retry.
            labels: as of `tool`.
        """
        execution = self.begin(tool_slug, self.known(labels), arguments, log_id=log_id)
        execution.message = message
        if result is not None:
            execution.result = result
        execution.end(error, duration_ms=duration_ms, started_ms=started_ms)
        return execution.log_id

    def counts(self) -> Counts:
        """Count what became of the calls of this process."""
        return self.recorder.counts()

    def known(self, labels: Mapping[str, Any]) -> Known:
        """Return labels as calls have them."""
        return Known(known(dict(labels)), metadata=self.recorder.keeps_payloads) if labels else NO_LABELS

    def begin(self, tool_slug: str, labels: Known, arguments: Any, *, log_id: str | None = None) -> Execution:
        """Begin a call; within a session's `with` block it is that session's."""
        entered = entered_sessions.get()
        if entered and entered[-1].ledger is self:
            labels = labels.under(entered[-1].labels)
        return Execution(self.recorder, tool_slug, labels=labels, arguments=arguments, log_id=log_id)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # For processes that are spawned: the same client once more, with threads of its own.
        return _again, (type(self), self.options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.options.base_url}>"


class ToolLedger(BaseLedger):
    """Records tool calls and answers questions about them, for code that is not async.

    `with ToolLedger() as ledger` closes it at the end; without, the end of the process does.
    """

    def _set_up(self, options: Options) -> None:
        super()._set_up(options)
        self.logs = Logs(self.reader)
        self.usage = Usage(self.reader)

    def session(self, **labels: Unpack[Labels]) -> Session:
        """Begin a session, as in `session(user_id="user_123")`: the labels go to each of its calls.

        Its id is made here unless `session_id` is given.
        """
        return Session(self, labels)

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until everything recorded so far has left memory; true if the server has answered for all of it."""
        return self.recorder.flush(timeout_s)

    def close(self, timeout_s: float | None = None) -> None:
        """Send what can be sent within `timeout_s` (`close_timeout_s`), put the rest to disk, and end."""
        self.recorder.close(timeout_s)
        self.reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class AsyncToolLedger(BaseLedger):
    """As `ToolLedger`, for async code: what waits is awaited, and waits in a thread, so that no loop is held up.

    It may be made before a loop runs, and used from several.
    """

    def _set_up(self, options: Options) -> None:
        super()._set_up(options)
        self.logs = AsyncLogs(Logs(self.reader))
        self.usage = AsyncUsage(Usage(self.reader))

    def session(self, **labels: Unpack[Labels]) -> AsyncSession:
        """Begin a session. As `ToolLedger.session`."""
        return AsyncSession(self, labels)

    async def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until everything recorded so far has left memory. As `ToolLedger.flush`."""
        return await asyncio.to_thread(self.recorder.flush, timeout_s)

    async def close(self, timeout_s: float | None = None) -> None:
        """Send what can be sent in time, put the rest to disk, and end. As `ToolLedger.close`."""
        await asyncio.to_thread(self.recorder.close, timeout_s)
        self.reader.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _again(kind: type[BaseLedger], options: Options) -> BaseLedger:
    made = kind.__new__(kind)
    made._set_up(options)
    return made
