"""The decorator: a function of any kind, recorded each time it is called, and otherwise as it was."""

import functools
import inspect
import types
from collections.abc import Callable, Generator
from typing import Any, Final, TypeVar

from ingest.client.executions import Execution
from ingest.client.streams import async_streaming, awaited, stream

F = TypeVar("F", bound=Callable[..., Any])
# Makes the execution of a call with these arguments.
Begin = Callable[[Any], Execution]

_ORIGINAL: Final = "__toolledger_original__"
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

_async_stream = async_streaming(lambda execution, source: (execution, source))


def recorded(function: F, begin: Begin) -> F:
    """Return the function, recorded; one of the same kind, as `inspect` tells kinds.

    Args:
        function: sync or async, generator or async generator, or anything else that can be called.
        begin: makes the execution of a call from its arguments.

    Raises:
        TypeError: it cannot be called; says what to do.
    """
    if not callable(function):
        raise TypeError(f"a {type(function).__name__} cannot be recorded; put the decorator beneath it, next to the function")
    named = Arguments(function)
    wrapper: Any
    if inspect.iscoroutinefunction(function):
        wrapper = _of_coroutine(function, begin, named)
    elif inspect.isasyncgenfunction(function):
        wrapper = async_streaming(lambda *args, **kwargs: (begin(named(args, kwargs)), function(*args, **kwargs)))
    elif inspect.isgeneratorfunction(function):
        wrapper = _of_generator(function, begin, named)
    else:
        wrapper = _of_function(function, begin, named)
    made: Any = functools.wraps(function)(wrapper)
    setattr(made, _ORIGINAL, function)
    return made  # type: ignore[no-any-return]


def undecorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that was decorated; any other as it is."""
    found: Callable[..., Any] = getattr(function, "__dict__", {}).get(_ORIGINAL, function)
    return found


def conclude(execution: Execution, result: Any) -> Any:
    """Record a call that has returned; what it returned may still have to be awaited or iterated, and is wrapped then."""
    kind = type(result)
    if kind is types.CoroutineType:
        return awaited(execution, result)
    if kind is types.GeneratorType:
        return stream(execution, result)
    if kind is types.AsyncGeneratorType:
        return _async_stream(execution, result)
    execution.result = result
    execution.end()
    return result


def _of_function(function: Callable[..., Any], begin: Begin, named: "Arguments") -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        execution = begin(named(args, kwargs))
        outer = execution.enter()
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            execution.end(error)
            raise
        finally:
            execution.leave(outer)
        return conclude(execution, result)

    return wrapper


def _of_coroutine(function: Callable[..., Any], begin: Begin, named: "Arguments") -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        execution = begin(named(args, kwargs))
        outer = execution.enter()
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            execution.end(error)
            raise
        finally:
            execution.leave(outer)
        execution.result = result
        execution.end()
        return result

    return wrapper


def _of_generator(function: Callable[..., Any], begin: Begin, named: "Arguments") -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        source: Generator[Any, Any, Any] = function(*args, **kwargs)
        return (yield from stream(begin(named(args, kwargs)), source))

    return wrapper


class Arguments:
    """Names the arguments of a call as its function does."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._names: tuple[str, ...] = ()
        self._rest = "args"
        self._bound = False
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            # Of a function written in C.
            return
        self._names = tuple(each.name for each in parameters if each.kind in _POSITIONAL)
        self._rest = next((each.name for each in parameters if each.kind is inspect.Parameter.VAR_POSITIONAL), "args")
        # The object that a method is called on is no argument of the tool.
        in_class = "." in getattr(function, "__qualname__", "").rpartition("<locals>.")[2]
        self._bound = in_class and self._names[:1] in (("self",), ("cls",))

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        if not args:
            return kwargs
        names = self._names
        made = dict(zip(names, args, strict=False))
        if self._bound:
            made.pop(names[0], None)
        if len(args) > len(names):
            made[self._rest] = args[len(names) :]
        if kwargs:
            made.update(kwargs)
        return made
