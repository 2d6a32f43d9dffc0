"""Intervals of local time (minutes, hours, days of a zone) as instants in epoch ms. Pure.

A border is an instant at which a new local minute, hour or day begins. Across a change of the clock this means: an hour that
happens twice, or of which only the end does, is two intervals; a day has 23, 24 or 25 hours and begins at its first instant,
also where midnight is skipped; where a zone moves by half an hour, the hour around the change is longer or shorter.
"""

import bisect
import zoneinfo
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Final, Literal
from zoneinfo import ZoneInfo

Unit = Literal["minute", "hour", "day"]

_STEP_MS: Final = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# No zone has changed its clock twice within this time since 1970.
_PROBE_MS: Final = 12 * 3_600_000
_ZONE_CHARS_MAX: Final = 64
# Files that stand among the zones and mean whatever this machine is set to.
_MACHINES: Final = frozenset(("localtime", "posixrules"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Intervals at equal distances: they start at `first_ms`, `first_ms + step_ms`, ..., `count` of them.

    The last one lasts until the next run begins, which may be longer or shorter than `step_ms`.
    """

    first_ms: int
    step_ms: int
    count: int

    def start_of(self, at_ms: int) -> int:
        """Return the start of the interval that holds an instant at or after `first_ms`."""
        return self.first_ms + min((at_ms - self.first_ms) // self.step_ms, self.count - 1) * self.step_ms


@lru_cache(maxsize=64)
def zone(name: str) -> ZoneInfo | None:
    """Return a zone by its IANA name, None for one that is not known."""
    if not name or len(name) > _ZONE_CHARS_MAX:
        return None
    try:
        return ZoneInfo(name) if name not in _MACHINES and name in zoneinfo.available_timezones() else None
    except (OSError, ValueError):
        return None


def intervals(unit: Unit, timezone: ZoneInfo, from_ms: int, to_ms: int) -> tuple[Run, ...]:
    """Return the intervals that meet `[from_ms, to_ms)`, oldest first; the first holds `from_ms`. None in an empty range."""
    if from_ms >= to_ms:
        return ()
    step_ms = _STEP_MS[unit]
    # Two days back, so that the start of the first interval is found even on the longest of days.
    since_ms = from_ms - 2 * _STEP_MS["day"]
    runs: list[Run] = []
    latest_label: int | None = None
    for begin_ms, end_ms, offset_ms in _stretches(timezone, since_ms, to_ms):
        label = (begin_ms + offset_ms) // step_ms
        first_ms = label * step_ms - offset_ms
        if first_ms < begin_ms:
            # The stretch begins within a local interval. It is a new one if the clock jumped into it: ahead, or back into an
            # hour before the latest.
            if latest_label is not None and (label > latest_label or (unit != "day" and label < latest_label)):
                runs.append(Run(first_ms=begin_ms, step_ms=step_ms, count=1))
            first_ms += step_ms
        if unit == "day" and latest_label is not None:
            # A clock put back over midnight lives part of a day again: that day has begun already.
            first_ms = max(first_ms, (latest_label + 1) * step_ms - offset_ms)
        if first_ms < end_ms:
            runs.append(Run(first_ms=first_ms, step_ms=step_ms, count=(end_ms - 1 - first_ms) // step_ms + 1))
        last = (end_ms - 1 + offset_ms) // step_ms
        latest_label = last if latest_label is None or unit != "day" else max(last, latest_label)
    return tuple(_joined(_from(runs, from_ms)))


def starts(runs: Sequence[Run]) -> Iterator[int]:
    """Yield the start of each interval, oldest first."""
    for run in runs:
        yield from range(run.first_ms, run.first_ms + run.count * run.step_ms, run.step_ms)


def count(runs: Sequence[Run]) -> int:
    """Return the number of intervals."""
    return sum(run.count for run in runs)


def start_of(runs: Sequence[Run], at_ms: int) -> int:
    """Return the start of the interval that holds an instant within the intervals."""
    return runs[bisect.bisect_right(runs, at_ms, key=lambda run: run.first_ms) - 1].start_of(at_ms)


def _from(runs: list[Run], from_ms: int) -> Iterator[Run]:
    """Drop what ends before the interval that holds `from_ms`."""
    for run, following in zip(runs, [*runs[1:], None], strict=True):
        if following is not None and following.first_ms <= from_ms:
            continue
        first_ms = run.start_of(from_ms) if run.first_ms <= from_ms else run.first_ms
        skipped = (first_ms - run.first_ms) // run.step_ms
        yield Run(first_ms=first_ms, step_ms=run.step_ms, count=run.count - skipped)


def _joined(runs: Iterator[Run]) -> Iterator[Run]:
    """Join runs that go on at the same distance, as hours do across most changes of the clock."""
    current: Run | None = None
    for run in runs:
        if current is None:
            current = run
        elif current.step_ms == run.step_ms and current.first_ms + current.count * current.step_ms == run.first_ms:
            current = Run(first_ms=current.first_ms, step_ms=run.step_ms, count=current.count + run.count)
        else:
            yield current
            current = run
    if current is not None:
        yield current


def _stretches(timezone: ZoneInfo, from_ms: int, to_ms: int) -> Iterator[tuple[int, int, int]]:
    """Yield (begin, end, offset from UTC) in ms of each stretch of `[from_ms, to_ms)` with one offset."""
    changes = [
        change_ms
        for year in range(_at(from_ms).year, _at(to_ms).year + 1)
        for change_ms in _changes(timezone, year)
        if from_ms < change_ms < to_ms
    ]
    edges = [from_ms, *changes, to_ms]
    for begin_ms, end_ms in pairwise(edges):
        yield begin_ms, end_ms, _offset_ms(timezone, begin_ms)


@lru_cache(maxsize=1024)
def _changes(timezone: ZoneInfo, year: int) -> tuple[int, ...]:
    """Return the instants of a UTC year at which the zone's offset changes."""
    found = []
    at_ms = _ms(datetime(year, 1, 1, tzinfo=UTC))
    end_ms = _ms(datetime(year + 1, 1, 1, tzinfo=UTC))
    while at_ms < end_ms:
        next_ms = min(at_ms + _PROBE_MS, end_ms)
        before = _offset_ms(timezone, at_ms)
        if _offset_ms(timezone, next_ms) != before:
            low, high = at_ms, next_ms
            while high - low > 1000:
                middle = (low + high) // 2000 * 1000
                low, high = (middle, high) if _offset_ms(timezone, middle) == before else (low, middle)
            found.append(high)
        at_ms = next_ms
    return tuple(found)


def _at(at_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=at_ms)


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _offset_ms(timezone: ZoneInfo, at_ms: int) -> int:
    offset = _at(at_ms).astimezone(timezone).utcoffset()
    assert offset is not None
    return offset // timedelta(milliseconds=1)
