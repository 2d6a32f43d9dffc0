"""Tools that give their result piece by piece: the call ends when the last piece was taken.

A consumer that stops early has what it wanted: the call succeeded. What raises within, or is thrown in, is recorded and goes
on. The pieces are kept as far as a payload reaches, then only counted.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, Final, TypeVar

import msgspec

from ingest.client.executions import Execution
from ingest.client.snapshots import RESPONSE_BYTES_MAX, snapshot

Y = TypeVar("Y")
S = TypeVar("S")
R = TypeVar("R")

_PIECE_BYTES_MAX: Final = RESPONSE_BYTES_MAX // 4
# Each piece costs its caller a snapshot: a stream of a million tokens keeps the first of them.
_PIECES_MAX: Final = 10_000


class Pieces:
    """What a stream gave so far."""

    def __init__(self, *, kept: bool) -> None:
        self._room = RESPONSE_BYTES_MAX - 256 if kept else 0
        self._raws: list[msgspec.Raw] = []
        self._count = 0

    def add(self, piece: Any) -> None:
        """Take a piece down."""
        self._count += 1
        if self._room <= 0 or len(self._raws) >= _PIECES_MAX:
            return
        raw = snapshot(piece, min(_PIECE_BYTES_MAX, self._room))
        self._room -= len(raw) + 1
        self._raws.append(msgspec.Raw(raw))

    def result(self, returned: Any = None) -> Any:
        """Return what to record: the pieces, how many more there were, and what a generator returned."""
        left_out = self._count - len(self._raws)
        pieces: list[Any] = [*self._raws, f"<{left_out} more pieces>"] if left_out else list(self._raws)
        return pieces if returned is None else {"pieces": pieces, "returned": returned}


def stream(execution: Execution, source: Generator[Y, S, R]) -> Generator[Y, S, R]:
    """Pass a generator's pieces on, both ways, and record the call at its end."""
    pieces = Pieces(kept=execution.keeps_payloads)
    advance: Any = source.__next__
    given: tuple[Any, ...] = ()
    try:
        while True:
            outer = execution.enter()
            try:
                piece = advance(*given)
            except StopIteration as stop:
                execution.result = pieces.result(stop.value)
                execution.end()
                return stop.value  # type: ignore[no-any-return]
            finally:
                execution.leave(outer)
            pieces.add(piece)
            try:
                sent = yield piece
            except GeneratorExit:
                source.close()
                raise
            except BaseException as thrown:
                advance, given = source.throw, (thrown,)
            else:
                advance, given = (source.__next__, ()) if sent is None else (source.send, (sent,))
    except GeneratorExit:
        execution.result = pieces.result()
        execution.end()
        raise
    except BaseException as error:
        execution.result = pieces.result()
        execution.end(error)
        raise


def async_streaming(open_call: Callable[..., tuple[Execution, AsyncGenerator[Any, Any]]]) -> Callable[..., Any]:
    """Return an async generator function that passes the pieces of a call on, both ways, and records it at its end.

    Args:
        open_call: makes the execution and the tool's generator from the arguments of a call.
    """

    async def streaming(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        execution, source = open_call(*args, **kwargs)
        pieces = Pieces(kept=execution.keeps_payloads)
        advance: Any = source.__anext__
        given: tuple[Any, ...] = ()
        left: BaseException | None = None
        try:
            while True:
                outer = execution.enter()
                try:
                    piece = await advance(*given)
                except StopAsyncIteration:
                    execution.result = pieces.result()
                    execution.end()
                    return
                finally:
                    execution.leave(outer)
                pieces.add(piece)
                try:
                    sent = yield piece
                except GeneratorExit:
                    await source.aclose()
                    raise
                except BaseException as thrown:
                    # A loop that ends cancels what closes a stream that was left: the consumer stopped, as above.
                    left = thrown if isinstance(thrown, asyncio.CancelledError) else None
                    advance, given = source.athrow, (thrown,)
                else:
                    advance, given = (source.__anext__, ()) if sent is None else (source.asend, (sent,))
        except GeneratorExit:
            execution.result = pieces.result()
            execution.end()
            raise
        except BaseException as error:
            execution.result = pieces.result()
            execution.end(None if error is left else error)
            raise

    return streaming


async def awaited(execution: Execution, source: Awaitable[R]) -> R:
    """Wait for a tool's result and record the call."""
    outer = execution.enter()
    try:
        result = await source
    except BaseException as error:
        execution.end(error)
        raise
    finally:
        execution.leave(outer)
    execution.result = result
    execution.end()
    return result
