"""A session: the calls made for one user in one conversation."""

import asyncio
import inspect
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, Unpack

from ingest.client.diagnostics import logger
from ingest.client.events import Labels
from ingest.client.executions import Execution, entered_sessions
from ingest.client.failures import message_of
from ingest.client.results import Result
from ingest.client.snapshots import text
from ingest.client.tools import conclude, undecorated
from ingest.contract.event import IDENTIFIER_CHARS_MAX

if TYPE_CHECKING:
    from ingest.client.ledger import BaseLedger

F = TypeVar("F", bound=Callable[..., Any])
Tool = Callable[..., Any]

# A generator that is closed in another context than it was in leaves its session behind: these must not become more and more.
_NESTED_MAX: Final = 64


class BaseSession:
    """What both kinds of session have.

    Within its `with` block, what the client's decorated functions record belongs to it; other threads are told of it by
    being given the session.
    """

    def __init__(self, ledger: "BaseLedger", labels: Mapping[str, Any]) -> None:
        self.ledger = ledger
        given = labels.get("session_id")
        self.id = ("" if given is None else text(given, IDENTIFIER_CHARS_MAX)) or ledger.recorder.session_id()
        self.labels = ledger.known({**labels, "session_id": self.id})
        logger.debug("session %s began for user %s", self.id, self.user_id)

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self.id

    @property
    def user_id(self) -> str | None:
        """On whose behalf."""
        found: str | None = self.labels.labels.get("user_id")
        return found

    def tool(self, tool_slug: str, **labels: Unpack[Labels]) -> Callable[[F], F]:
        """Decorate a function: what it is called for belongs to this session. As `ToolLedger.tool`."""
        merged: Labels = {**self.labels.labels, **labels}  # type: ignore[typeddict-item]
        return self.ledger.tool(tool_slug, **merged)

    def execution(self, tool_slug: str, *, arguments: Any = None, **labels: Unpack[Labels]) -> Execution:
        """Record what happens in a `with` block as a call of this session. As `ToolLedger.execution`."""
        return self._begin(tool_slug, arguments, labels)

    def __enter__(self) -> Self:
        entered_sessions.set((*entered_sessions.get()[-_NESTED_MAX:], self))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # Nothing of it is kept in the session: several threads and tasks may be in it at once, each from another one.
        entered = entered_sessions.get()
        if entered and entered[-1] is self:
            entered_sessions.set(entered[:-1])

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    def _begin(self, tool_slug: str, arguments: Any, labels: Mapping[str, Any]) -> Execution:
        return self.ledger.begin(tool_slug, self.ledger.known(labels).under(self.labels), arguments)

    def _find(self, tool_slug: str, tool: Tool | None) -> Tool:
        """Return what is to be called: the given tool, or the one decorated with this slug."""
        found = self.ledger.tools.get(tool_slug) if tool is None else tool
        if found is None:
            raise LookupError(f"Tool not found: {tool_slug}; pass tool=, or decorate it with @ledger.tool({tool_slug!r})")
        # A decorated function would record the call a second time.
        return undecorated(found)


class Session(BaseSession):
    """A session whose tools are called at once."""

    def execute(
        self,
        tool_slug: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        tool: Tool | None = None,
        **labels: Unpack[Labels],
    ) -> Result:
        """Call a tool and record the call.

        Args:
            tool_slug: names the tool.
            arguments: the tool is called with these by name.
            tool: what to call; by default the function that `ledger.tool(tool_slug)` decorated. One that is async is run to
                its end, which only works where no event loop runs.
            labels: of this call, beside those of the session.

        Returns:
            What the tool returned as `data`, or what it raised as `error`; of a generator an iterator, which raises by itself.

        Raises:
            TypeError: the tool is async and an event loop runs here: use `AsyncToolLedger`.
        """
        execution = self._begin(tool_slug, arguments or {}, labels)
        outer = execution.enter()
        try:
            result = self._find(tool_slug, tool)(**(arguments or {}))
            if inspect.iscoroutine(result):
                result = _run(result)
        except _NeedsLoop:
            raise TypeError(f"{tool_slug} is async: await it with AsyncToolLedger, or decorate it with @ledger.tool") from None
        except Exception as error:
            execution.end(error)
            return Result(error=message_of(error), log_id=execution.log_id, exception=error)
        except BaseException as error:
            execution.end(error)
            raise
        finally:
            execution.leave(outer)
        return Result(data=conclude(execution, result), log_id=execution.log_id)


class AsyncSession(BaseSession):
    """A session whose tools are awaited."""

    async def execute(
        self,
        tool_slug: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        tool: Tool | None = None,
        **labels: Unpack[Labels],
    ) -> Result:
        """Call a tool and record the call, as `Session.execute`; a tool that is not async is called in a thread of its own."""
        execution = self._begin(tool_slug, arguments or {}, labels)
        outer = execution.enter()
        try:
            found = self._find(tool_slug, tool)
            if _is_async(found):
                result = found(**(arguments or {}))
            else:
                result = await asyncio.to_thread(found, **(arguments or {}))
            if inspect.isawaitable(result):
                result = await result
        except Exception as error:
            execution.end(error)
            return Result(error=message_of(error), log_id=execution.log_id, exception=error)
        except BaseException as error:
            execution.end(error)
            raise
        finally:
            execution.leave(outer)
        return Result(data=conclude(execution, result), log_id=execution.log_id)


class _NeedsLoop(Exception):
    """A coroutine that cannot be run here."""


def _run(coroutine: Any) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    coroutine.close()
    raise _NeedsLoop


def _is_async(tool: Tool) -> bool:
    """Tell whether calling a tool does nothing yet: what it returns is awaited or iterated."""
    kinds = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    # Of an object that can be called, its class says of what kind.
    return any(kind(tool) or kind(vars(type(tool)).get("__call__")) for kind in kinds)
