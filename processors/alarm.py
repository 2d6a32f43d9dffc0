"""When too much of a partition turns into dead letters: the rule, and what it has to remember. Pure: no I/O, no clock.

Judged by the order of records and by their own times of acceptance, so that the same records are judged alike whenever they are
read and however they are cut into batches.

```
           a run of `run_max`, or a share above `ratio_max`
   quiet ────────────────────────────────────────────────────> alarm
     ^                                                           │
     └───────────────────────────────────────────────────────────┘
           an event that is none, and a share well below again
```
"""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

# The share is taken over five minutes of record time, in slots of ten seconds: long enough that one bad request of a busy
# producer is nothing, short enough that an alarm ends soon after its cause.
WINDOW_MS: Final = 300_000
SLOT_MS: Final = 10_000
# Of fewer events a share says nothing: one bad event of a quiet topic is all of them.
RATIO_EVENTS_MIN: Final = 100
# An alarm that ends where it begins would begin and end with every batch.
_RATIO_ENDS: Final = 0.8
# Projects remembered of a slot, by their dead letters; more would let strangers fill memory.
_PROJECTS_KEPT: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmLimits:
    """What is too much: this many dead letters one after another, or a larger share of events than this."""

    run_max: int
    ratio_max: float


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive events of one partition and one slot of time with the same fate; good ones name no project."""

    at_ms: int
    dead: bool
    count: int
    project_id: str = ""


@dataclass(frozen=True, slots=True)
class _Slot:
    at_ms: int
    events: int
    dead: int
    projects: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What a partition was like up to a place.

    Args:
        run: dead letters in a row at its end.
        alarmed: whether the alarm is on.
    """

    run: int = 0
    alarmed: bool = False
    slots: tuple[_Slot, ...] = ()

    @property
    def ratio(self) -> float:
        """The share of dead letters within the window, 0 to 1; 0 while there are too few events to tell."""
        events = sum(slot.events for slot in self.slots)
        return sum(slot.dead for slot in self.slots) / events if events >= RATIO_EVENTS_MIN else 0.0

    def leader(self) -> tuple[str, float]:
        """Return the project with most dead letters in the window, and its share of them; "" is nobody known."""
        tally: Counter[str] = Counter()
        for slot in self.slots:
            tally.update(dict(slot.projects))
        dead = sum(slot.dead for slot in self.slots)
        if not tally or not dead:
            return "", 0.0
        project, count = tally.most_common(1)[0]
        return project, count / dead


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What more records did to a watch.

    Args:
        crossed: a limit was passed somewhere in them.
        worst: the watch where it was passed first, else as `after`.
        after: the watch behind them.
    """

    crossed: bool
    worst: Watch
    after: Watch


def judge(watch: Watch, stretches: Iterable[Stretch], limits: AlarmLimits) -> Judgement:
    """Let a watch see more of its partition."""
    seen = _Tally(watch)
    worst: Watch | None = None
    for stretch in stretches:
        seen.add(stretch)
        # Only a dead letter can pass a limit, and both grow with each of a stretch: its end tells of all of it.
        if stretch.dead and seen.over(limits):
            worst = worst or seen.watch()
            seen.alarmed = True
        elif seen.alarmed and not stretch.dead and seen.ratio() <= limits.ratio_max * _RATIO_ENDS:
            seen.alarmed = False
    after = seen.watch()
    return Judgement(crossed=worst is not None, worst=worst or after, after=after)


class _Tally:
    """A watch in the making: one step a stretch, however many there are."""

    def __init__(self, watch: Watch) -> None:
        self.run, self.alarmed = watch.run, watch.alarmed
        self._slots = deque((slot.at_ms, [slot.events, slot.dead], Counter(dict(slot.projects))) for slot in watch.slots)
        self._events = sum(slot.events for slot in watch.slots)
        self._dead = sum(slot.dead for slot in watch.slots)

    def add(self, stretch: Stretch) -> None:
        while self._slots and self._slots[0][0] <= stretch.at_ms - WINDOW_MS:
            _, (events, died), _ = self._slots.popleft()
            self._events -= events
            self._dead -= died
        # Times of one partition do not go back; where a broker's clock did, what came belongs to the newest slot.
        if not self._slots or self._slots[-1][0] < stretch.at_ms:
            self._slots.append((stretch.at_ms, [0, 0], Counter()))
        _, counts, projects = self._slots[-1]
        counts[0] += stretch.count
        self._events += stretch.count
        if stretch.dead:
            counts[1] += stretch.count
            self._dead += stretch.count
            projects[stretch.project_id] += stretch.count
        self.run = self.run + stretch.count if stretch.dead else 0

    def ratio(self) -> float:
        return self._dead / self._events if self._events >= RATIO_EVENTS_MIN else 0.0

    def over(self, limits: AlarmLimits) -> bool:
        return self.run >= limits.run_max or self.ratio() > limits.ratio_max

    def watch(self) -> Watch:
        slots = (
            _Slot(at_ms, events, dead, tuple(projects.most_common(_PROJECTS_KEPT)))
            for at_ms, (events, dead), projects in self._slots
        )
        return Watch(run=self.run, alarmed=self.alarmed, slots=tuple(slots))


def stretches(
    *, good: Sequence[int], indexes: Sequence[int], dead: Sequence[tuple[int, int, str]], times_ms: Sequence[tuple[int, int]]
) -> list[Stretch]:
    """Put the events of a batch into stretches, in the order in which they came.

    Args:
        good: offset of each event that is none, in order.
        indexes: the place of each in its record.
        dead: (offset, index, project) of each dead letter, in order.
        times_ms: (offset, time of acceptance) of each record, in order.
    """
    found: list[Stretch] = []
    for first_offset, next_offset, at_ms in _slots(times_ms):
        start, end = bisect_left(good, first_offset), bisect_left(good, next_offset)
        some = dead[bisect_left(dead, (first_offset,)) : bisect_left(dead, (next_offset,))]
        if not some:
            found += [Stretch(at_ms, False, end - start)] if end > start else []
            continue
        events = [(good[place], indexes[place], False, "") for place in range(start, end)]
        for (died, project), alike in groupby(sorted([*events, *((*letter[:2], True, letter[2]) for letter in some)]), _fate):
            found.append(Stretch(at_ms, died, sum(1 for _ in alike), project))
    return found


def _fate(event: tuple[int, int, bool, str]) -> tuple[bool, str]:
    return event[2:]


def _slots(times_ms: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int, int]]:
    """Part records by slots of time: (first offset, next offset, start of the slot)."""
    if not times_ms:
        return
    (first, first_ms), (last, last_ms) = times_ms[0], times_ms[-1]
    if first_ms // SLOT_MS == last_ms // SLOT_MS:
        yield first, last + 1, first_ms - first_ms % SLOT_MS
        return
    for slot, alike in groupby(times_ms, lambda record: record[1] // SLOT_MS):
        offsets = [offset for offset, _ in alike]
        yield offsets[0], offsets[-1] + 1, slot * SLOT_MS


def recalled(receipts: Iterable[tuple[int, int, int]], limits: AlarmLimits) -> Watch:
    """Return a watch as receipts tell it, for whoever takes a partition over: whole batches, so a run may be longer.

    Args:
        receipts: (time of the newest record, events, dead letters) of the last batches, oldest first.
    """
    seen = _Tally(Watch())
    for newest_ms, events, dead in receipts:
        at_ms = newest_ms - newest_ms % SLOT_MS
        if events > dead:
            seen.add(Stretch(at_ms, False, events - dead))
        if dead:
            seen.add(Stretch(at_ms, True, dead))
            # Where in the batch they stood is not on record.
            seen.run = seen.run if events == dead else 0
    seen.alarmed = seen.over(limits)
    return seen.watch()
