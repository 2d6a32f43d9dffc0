"""Send files batch by batch, several under way at once, and keep how far all is answered."""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Final

import msgspec

from deploy.cli.send_input import START, Batch, Mark, Refusal, Source
from deploy.cli.send_state import Kept, State, go_on, identity_of, random_seed, sample_before
from deploy.cli.send_to import IN_FLIGHT, Sender
from ingest.contract.errors import ConfigurationError, LedgerError

# What a kill can lose: that much is sent again, and counts once.
_SAVE_EVERY_S: Final = 1.0
# How long what is under way may still take once the send is given up.
_LAST_ANSWERS_S: Final = 5.0


@dataclass(slots=True)
class Counts:
    """Of a run, with what its files brought from runs before."""

    accepted: int = 0
    rejected: int = 0
    # Of this run alone.
    events: int = 0
    began: float = field(default_factory=time.monotonic)

    def rate(self) -> float:
        """Return events answered a second."""
        return self.events / max(time.monotonic() - self.began, 0.001)


class _Tracked:
    """What is kept of the file being sent; nothing of a stream, which nobody can read again."""

    def __init__(self, kept: Kept | None, state: State | None, source: Source) -> None:
        self._kept, self._source = kept, source
        self.state = state
        self.seed = state.seed if state is not None else random_seed()
        self.mark = state.mark if state is not None else START
        self._last_start = self.mark

    def moved(self, batch: Batch, refused: int) -> None:
        """All up to the end of a batch is answered."""
        self._last_start, self.mark = batch.start, batch.end
        if self.state is None:
            return
        self.state = msgspec.structs.replace(
            self.state,
            offset=batch.end.offset,
            number=batch.end.number,
            kind=batch.kind,
            accepted=self.state.accepted + len(batch.numbers) + len(batch.refused) - refused,
            rejected=self.state.rejected + refused,
        )
        if self._kept is not None and self._kept.is_due(_SAVE_EVERY_S):
            self.save()

    def save(self, *, finished: bool = False) -> None:
        if self._kept is None or self.state is None:
            return
        # A file that grows is gone on with from its last batch, which had room left.
        at = self._last_start if finished else self.state.mark
        self._kept.save(
            msgspec.structs.replace(self.state, offset=at.offset, number=at.number, sample=self.sample(at), finished=finished)
        )

    def sample(self, at: Mark) -> str:
        """Return a digest of the file's bytes before a mark, where that is a place in the file."""
        if not self._source.plain:
            return ""
        try:
            return sample_before(self._source.path, at.offset)
        except OSError:
            return ""


_Sent = tuple[Batch, "Future[list[Refusal]]"]


class Run:
    """Sends one file after another.

    Args:
        sender: takes batches.
        target: names the place they are sent to.
        anew: forget what was sent of the files before.
        refused: called with each event that was not taken.
        remark: called with what people should know of a file.
    """

    def __init__(
        self,
        sender: Sender,
        *,
        target: str,
        anew: bool,
        refused: Callable[[Source, str, Refusal], None],
        remark: Callable[[Source, str], None],
    ) -> None:
        self.counts = Counts()
        self._sender, self._target, self._anew = sender, target, anew
        self._refused, self._remark = refused, remark

    def send(self, source: Source, moved: Callable[[Source, Counts], None]) -> None:
        """Send a file from where it was left.

        Raises:
            LedgerError: it cannot be read to its end, or is not taken.
            KeyboardInterrupt: somebody wants it to end; what was answered by then is kept.
        """
        kept = Kept.of(self._target, source.path) if source.stored else None
        with kept.held(source.name) if kept is not None else nullcontext():
            tracked = self._begin(source, kept)
            waiting: deque[_Sent] = deque()
            try:
                for batch in source.batches(tracked.mark):
                    waiting.append((batch, self._submit(batch, tracked.seed)))
                    while len(waiting) > IN_FLIGHT:
                        self._settle_first(source, tracked, waiting)
                        moved(source, self.counts)
                while waiting:
                    self._settle_first(source, tracked, waiting)
                    moved(source, self.counts)
            except BaseException:
                self._give_up(source, tracked, waiting)
                raise
            tracked.save(finished=True)

    def _begin(self, source: Source, kept: Kept | None) -> _Tracked:
        if kept is None:
            return _Tracked(None, None, source)
        try:
            identity = identity_of(source.path)
        except OSError as error:
            raise ConfigurationError(f"{source.name} cannot be read: {error.strerror}") from None
        kept.tidy()
        state, remark = go_on(kept.read(), identity, source.path, anew=self._anew)
        if remark:
            self._remark(source, remark)
        self.counts.accepted += state.accepted
        self.counts.rejected += state.rejected
        tracked = _Tracked(kept, state, source)
        # From now on its seed is known, whatever happens.
        kept.begin(msgspec.structs.replace(state, sample=tracked.sample(state.mark)))
        return tracked

    def _submit(self, batch: Batch, seed: str) -> "Future[list[Refusal]]":
        if batch.raws:
            return self._sender.submit(batch, f"send-{seed}-{batch.start.offset}")
        nothing: Future[list[Refusal]] = Future()
        nothing.set_result([])
        return nothing

    def _settle_first(self, source: Source, tracked: _Tracked, waiting: "deque[_Sent]") -> None:
        # It stays in line until it is settled: somebody may interrupt anywhere.
        self._settle(source, tracked, *waiting[0])
        waiting.popleft()

    def _settle(self, source: Source, tracked: _Tracked, batch: Batch, answer: "Future[list[Refusal]]") -> None:
        refused = sorted([*batch.refused, *answer.result()], key=lambda one: one.number)
        if batch.end.offset <= tracked.mark.offset:
            return
        tracked.moved(batch, len(refused))
        events = len(batch.numbers) + len(batch.refused)
        self.counts.events += events
        self.counts.accepted += events - len(refused)
        self.counts.rejected += len(refused)
        for one in refused:
            self._refused(source, batch.kind, one)

    def _give_up(self, source: Source, tracked: _Tracked, waiting: "deque[_Sent]") -> None:
        """Take in what is answered yet, in order, and keep how far that is; what lies behind will be sent again."""
        deadline = time.monotonic() + _LAST_ANSWERS_S
        self._sender.hurry()
        with suppress(LedgerError, CancelledError, TimeoutError, OSError, KeyboardInterrupt):
            for batch, answer in waiting:
                answer.exception(max(0.0, deadline - time.monotonic()))
                self._settle(source, tracked, batch, answer)
        tracked.save()
