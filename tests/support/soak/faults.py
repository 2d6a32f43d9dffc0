"""What befalls the parts, at random, and the record of it."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tests.support.soak.parts import Kind, Part

Blow = Literal["kill", "freeze"]

# Dealt like cards, all of them before the first comes again, so that a short run tries each kind too.
_DECK: Final[tuple[tuple[Blow, Kind], ...]] = (
    *(("kill", kind) for kind in ("worker", "worker", "worker", "clickhouse", "clickhouse", "kafka", "kafka", "ingest")),
    *(("freeze", kind) for kind in ("worker", "worker", "clickhouse", "kafka", "ingest")),
)
# Workers of the pipeline are given up by their group after 6 s.
_FROZEN_S: Final = (6.5, 9.0)
_DOWN_S: Final = (0.0, 1.5)
# So that the pipeline is sometimes whole for a moment, and what is caught up can be measured.
_HARMED_MAX: Final = 2
_PAUSE_S: Final = 1.5
_ALONE_SHARE: Final = 0.35
# A part that needs longer than this to come back, or a pipeline that needs longer to catch up, hangs.
START_S_MAX: Final = 120.0
CAUGHT_UP_S_MAX: Final = 180.0


@dataclass(slots=True, kw_only=True)
class Fault:
    """One blow: seconds since the run began, None where it has not come to that yet."""

    number: int
    blow: Blow
    kind: str
    target: str
    began_s: float
    for_s: float
    over_s: float | None = None  # the part answers again
    caught_up_s: float | None = None  # everything that came in until it was over is proved

    @property
    def name(self) -> str:
        return f"{'kill -9' if self.blow == 'kill' else 'freeze'} {self.kind}"

    def line(self) -> str:
        """Return it as a line for people."""
        return f"{self.began_s:8.1f} s  #{self.number:<4} {self.name:<20} {self.target}, for {self.for_s:.1f} s"


class Chaos:
    """Harms parts and lets them come back; to be ticked from the thread that starts processes.

    Args:
        rng: decides everything.
        clock: seconds since the run began.
        caught_up: tells whether everything that came in until a moment is proved.
        tell: takes a line for each thing that happens.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        rng: random.Random,
        clock: Callable[[], float],
        caught_up: Callable[[float], bool],
        tell: Callable[[str], None],
    ) -> None:
        self.parts = parts
        self.faults: list[Fault] = []
        self._rng, self._clock, self._caught_up, self._tell = rng, clock, caught_up, tell
        self._open: dict[str, Fault] = {}
        self._unproved: list[Fault] = []
        self._deck: list[tuple[Blow, Kind]] = []
        self._next_s = 0.0
        self._alone = False

    @property
    def quiet(self) -> bool:
        """Whether nothing is harmed, and everything until then is proved."""
        return not self._open and not self._unproved and all(part.state == "up" for part in self.parts)

    def tick(self, *, strike: bool = True) -> None:
        """Let what is due happen, and perhaps strike.

        Raises:
            AssertionError: a part does not come back, or the pipeline does not catch up.
        """
        now_s = self._clock()
        for part in self.parts:
            self._tend(part, now_s)
        for fault in list(self._unproved):
            assert fault.over_s is not None
            if self._caught_up(fault.over_s):
                fault.caught_up_s = now_s
                self._unproved.remove(fault)
            # Whoever is struck again and again may take longer; a pipeline left alone may not.
            elif not self._open and now_s - max(each.over_s or now_s for each in self._unproved) > CAUGHT_UP_S_MAX:
                raise AssertionError(f"not caught up {CAUGHT_UP_S_MAX:.0f} s after {fault.line()}")
        if strike and now_s >= self._next_s and len(self._open) < _HARMED_MAX and (not self._alone or self.quiet):
            self._strike(now_s)

    def _tend(self, part: Part, now_s: float) -> None:
        fault = self._open.get(part.name)
        if fault is not None and part.state in ("down", "frozen") and now_s >= fault.began_s + fault.for_s:
            if fault.blow == "kill":
                part.start()
            else:
                part.thaw()
        if part.look():
            self._tell(f"{now_s:8.1f} s        {part.name} ended by itself, and is started again")
        if part.state == "starting" and time.monotonic() - part.since_s > START_S_MAX:
            raise AssertionError(f"{part.name} does not come back within {START_S_MAX:.0f} s")
        if fault is not None and part.state == "up":
            fault.over_s = now_s
            del self._open[part.name]
            self._unproved.append(fault)

    def _strike(self, now_s: float) -> None:
        if not self._deck:
            self._deck = self._rng.sample(_DECK, len(_DECK))
        up = [part for part in self.parts if part.state == "up"]
        card = next((card for card in self._deck if card[1] in {part.kind for part in up}), None)
        if card is None:
            return
        self._deck.remove(card)
        blow, kind = card
        part = self._rng.choice([part for part in up if part.kind == kind])
        fault = Fault(
            number=len(self.faults) + 1,
            blow=blow,
            kind=part.kind,
            target=part.name,
            began_s=now_s,
            for_s=self._rng.uniform(*(_FROZEN_S if blow == "freeze" else _DOWN_S)),
        )
        self.faults.append(fault)
        self._open[part.name] = fault
        if blow == "kill":
            part.kill()
        else:
            part.freeze()
        self._tell(fault.line())
        self._alone = self._rng.random() < _ALONE_SHARE
        self._next_s = now_s + self._rng.expovariate(1) * _PAUSE_S
