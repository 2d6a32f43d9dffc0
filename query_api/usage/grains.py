"""Which rows answer a range exactly: whole windows where they fit, raw rows at the ragged edges. Pure.

from                                                                                to
 |--raw--|-- minutes --|-- hours --|----------- days -----------|-- hours --|-- minutes --|-raw-|
         ^ whole windows only, the coarsest first, of the smallest family that knows the columns asked for

Who was there is known without edges: a row of a day also says when the first and the last call of that day were.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from ingest.contract.tables import (
    KIND_SESSION_DAY,
    KIND_SESSION_HOUR,
    KIND_TOOL_DAY,
    KIND_TOOL_HOUR,
    KIND_TOOL_MINUTE,
    KIND_USER_DAY,
    KIND_USER_HOUR,
)
from query_api.usage import calendar
from query_api.usage.calendar import Run

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
# Borders that cut windows (days of a zone with half hours) each cost a range of raw rows; a year of days is the most that pays.
_CUT_BORDERS_MAX: Final = 400
# Where finer windows may do instead, fewer: they are read in one stretch, which costs less than many.
_COARSE_BORDERS_MAX: Final = 64

Span = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grain:
    """One kind of usage rows with the width of its windows."""

    kind: str
    window_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Kinds with the same columns, coarsest windows first. A new kind of row is one more line in `FAMILIES`.

    Args:
        never_empty: a column that no row of these kinds lacks: calls without it are only among the raw rows (and in families
            that do not know the column).
    """

    columns: frozenset[str]
    grains: tuple[Grain, ...]
    never_empty: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """What to read: whole windows by grain, and raw rows, as half-open spans in epoch ms that do not overlap."""

    windows: tuple[tuple[Grain, tuple[Span, ...]], ...]
    raw: tuple[Span, ...]


_TOOL: Final = frozenset(("project_id", "tool_slug", "toolkit_slug", "status", "failure_class"))
_USER: Final = _TOOL | {"user_id", "connected_account_id"}
_SESSION: Final = _USER | {"session_id"}

# Fewest rows first.
FAMILIES: Final = (
    Family(
        columns=_TOOL,
        grains=(
            Grain(kind=KIND_TOOL_DAY, window_ms=DAY_MS),
            Grain(kind=KIND_TOOL_HOUR, window_ms=HOUR_MS),
            Grain(kind=KIND_TOOL_MINUTE, window_ms=MINUTE_MS),
        ),
    ),
    Family(columns=_USER, grains=(Grain(kind=KIND_USER_HOUR, window_ms=HOUR_MS),)),
    Family(columns=_SESSION, grains=(Grain(kind=KIND_SESSION_HOUR, window_ms=HOUR_MS),), never_empty="session_id"),
)


# Whose presence on a day is kept -> in which kind of row.
PRESENCE: Final = {"user_id": KIND_USER_DAY, "session_id": KIND_SESSION_DAY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """Days that tell who called in a range: on `whole` ones all; on `cut` ones whoever called after `from` and before `to`."""

    whole: tuple[Span, ...]
    cut: tuple[Span, ...]


def presence(from_ms: int, to_ms: int) -> Presence | None:
    """Return the days that tell who called in `[from_ms, to_ms)`; None for a range inside one day, of which they do not.

    Of a day that one end cuts, the last call decides (is it after `from`) or the first (is it before `to`). If both ends cut
    the same day, one may have called before and after, but not between.
    """
    first_ms, end_ms = from_ms // DAY_MS * DAY_MS, -(-to_ms // DAY_MS) * DAY_MS
    if from_ms >= to_ms or (end_ms - first_ms == DAY_MS and from_ms != first_ms and to_ms != end_ms):
        return None
    cut = {day_ms for day_ms, is_cut in ((first_ms, from_ms != first_ms), (end_ms - DAY_MS, to_ms != end_ms)) if is_cut}
    low_ms = first_ms + DAY_MS if first_ms in cut else first_ms
    high_ms = end_ms - DAY_MS if end_ms - DAY_MS in cut else end_ms
    whole = ((low_ms, high_ms),) if low_ms < high_ms else ()
    return Presence(whole=whole, cut=_merged([(day_ms, day_ms + DAY_MS) for day_ms in cut]))


def family_of(columns: frozenset[str]) -> Family:
    """Return the smallest family that has all of these columns."""
    return next(family for family in FAMILIES if columns <= family.columns)


def layers(family: Family, from_ms: int, to_ms: int, runs: Sequence[Run] | None) -> Layers:
    """Cover `[from_ms, to_ms)` so that no window crosses its ends or a border between intervals.

    Args:
        runs: the intervals asked for, None without a series.
    """
    remaining: list[Span] = [(from_ms, to_ms)] if from_ms < to_ms else []
    windows: list[tuple[Grain, tuple[Span, ...]]] = []
    for grain in family.grains:
        borders_max = _CUT_BORDERS_MAX if grain is family.grains[-1] else _COARSE_BORDERS_MAX
        pieces = remaining if runs is None else _cut(remaining, runs, grain.window_ms, borders_max)
        if pieces is None:
            continue
        whole: list[Span] = []
        left: list[Span] = []
        for begin_ms, end_ms in pieces:
            low_ms = -(-begin_ms // grain.window_ms) * grain.window_ms
            high_ms = end_ms // grain.window_ms * grain.window_ms
            if low_ms >= high_ms:
                left.append((begin_ms, end_ms))
                continue
            whole.append((low_ms, high_ms))
            left += [span for span in ((begin_ms, low_ms), (high_ms, end_ms)) if span[0] < span[1]]
        if whole:
            windows.append((grain, _merged(whole)))
            remaining = left
    return Layers(windows=tuple(windows), raw=_merged(remaining))


def _cut(spans: Sequence[Span], runs: Sequence[Run], window_ms: int, borders_max: int) -> list[Span] | None:
    """Cut spans at the borders that lie within windows; None where there are too many of them to pay."""
    cutting = [run for run in runs if run.first_ms % window_ms or (run.count > 1 and run.step_ms % window_ms)]
    if not cutting:
        return list(spans)
    if calendar.count(cutting) > borders_max:
        return None
    borders = list(calendar.starts(cutting))
    pieces: list[Span] = []
    for begin_ms, end_ms in spans:
        edges = [begin_ms, *(border for border in borders if begin_ms < border < end_ms), end_ms]
        pieces += pairwise(edges)
    return pieces


def _merged(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Sort spans and join those that touch."""
    result: list[Span] = []
    for begin_ms, end_ms in sorted(spans):
        if result and result[-1][1] == begin_ms:
            result[-1] = (result[-1][0], end_ms)
        else:
            result.append((begin_ms, end_ms))
    return tuple(result)
