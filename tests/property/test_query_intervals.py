"""Intervals of local time, and the windows and raw spans that cover a range."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query_api.usage import calendar
from query_api.usage.grains import FAMILIES, layers

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",
    "America/St_Johns",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Africa/Casablanca",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "America/Sao_Paulo",
]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_MS = 86_400_000
zones = st.sampled_from(ZONES).map(calendar.zone)
units = st.sampled_from(["minute", "hour", "day"])
moments = st.integers(1_420_070_400_000, 1_900_000_000_000)


# The machine may be busy; what must hold is not a time.
untimed = settings(deadline=None)


def near_a_change(zone, at_ms):
    """Move a moment next to a change of the clock of its year, where there is one."""
    changes = calendar._changes(zone, (EPOCH + timedelta(milliseconds=at_ms)).year)
    return changes[at_ms % len(changes)] + at_ms % (2 * DAY_MS) - DAY_MS if changes else at_ms


ranges = st.tuples(zones, moments, st.booleans(), st.integers(1, 3 * DAY_MS)).map(
    lambda drawn: (drawn[0], near_a_change(drawn[0], drawn[1]) if drawn[2] else drawn[1], drawn[3])
)


def local(zone, at_ms):
    return (EPOCH + timedelta(milliseconds=at_ms)).astimezone(zone)


@untimed
@given(unit=units, drawn=ranges)
def test_intervals_cover_the_range_and_begin_on_the_clock(unit, drawn):
    """The first holds `from`, the last begins before `to`, and each begins where its local unit does."""
    zone, from_ms, length_ms = drawn
    runs = calendar.intervals(unit, zone, from_ms, from_ms + length_ms)
    starts = list(calendar.starts(runs))
    assert starts == sorted(set(starts))
    assert len(starts) == calendar.count(runs)
    assert starts[0] <= from_ms < (starts[1:] or [from_ms + 1])[0]
    assert starts[-1] < from_ms + length_ms
    for start in starts[:5000]:
        at, before = local(zone, start), local(zone, start - 1)
        if unit == "day":
            assert at.date() > before.date()
        elif unit == "hour":
            assert at.minute == 0 or (at.hour, at.minute) != (before.hour, before.minute + 1)
        assert at.second == 0
        assert calendar.start_of(runs, max(start, from_ms)) == start


@untimed
@given(drawn=ranges, offset=st.integers(0, 3 * DAY_MS))
def test_a_moment_lies_in_the_day_of_its_date(drawn, offset):
    """Two moments share a day if and only if they share the local date."""
    zone, from_ms, length_ms = drawn
    other_ms = from_ms + offset % length_ms
    runs = calendar.intervals("day", zone, from_ms, from_ms + length_ms)
    same = calendar.start_of(runs, from_ms) == calendar.start_of(runs, other_ms)
    assert same == (local(zone, from_ms).date() == local(zone, other_ms).date())


@pytest.mark.parametrize("name", ZONES)
def test_a_moment_lies_in_an_interval_of_its_hour(name):
    """The clock shows the same hour as at the interval's start, also where it was put back within an hour."""
    zone = calendar.zone(name)
    for change_ms in (change_ms for year in range(2015, 2030) for change_ms in calendar._changes(zone, year)):
        runs = calendar.intervals("hour", zone, change_ms - DAY_MS, change_ms + DAY_MS)
        for moment_ms in range(change_ms - DAY_MS // 4, change_ms + DAY_MS // 4, 5 * 60_000):
            at, start = local(zone, moment_ms), local(zone, calendar.start_of(runs, moment_ms))
            assert (start.date(), start.hour) == (at.date(), at.hour)


def test_changes_of_the_clock():
    """Named cases: a day of 23 and of 25 hours, an hour lived twice or in part, a midnight skipped, a shift of half an hour."""
    berlin = calendar.zone("Europe/Berlin")

    def ms(*parts):
        return int((datetime(*parts, tzinfo=UTC) - EPOCH) / timedelta(milliseconds=1))

    spring = list(calendar.starts(calendar.intervals("day", berlin, ms(2026, 3, 28, 12), ms(2026, 3, 31))))
    assert [b - a for a, b in itertools.pairwise(spring)] == [24 * 3_600_000, 23 * 3_600_000, 24 * 3_600_000]
    autumn = list(calendar.starts(calendar.intervals("day", berlin, ms(2026, 10, 24, 12), ms(2026, 10, 27))))
    assert [b - a for a, b in itertools.pairwise(autumn)] == [24 * 3_600_000, 25 * 3_600_000, 24 * 3_600_000]
    twice = list(calendar.starts(calendar.intervals("hour", berlin, ms(2026, 10, 25, 0), ms(2026, 10, 25, 3))))
    assert [local(berlin, start).hour for start in twice] == [2, 2, 3]
    havana = calendar.zone("America/Havana")  # the clock goes from 0:00 to 1:00
    skipped = list(calendar.starts(calendar.intervals("day", havana, ms(2026, 3, 8, 3), ms(2026, 3, 8, 12))))
    assert [local(havana, start).hour for start in skipped] == [0, 1]
    lord_howe = calendar.zone("Australia/Lord_Howe")  # half an hour back at 2:00 on 5 April 2026
    longer = list(calendar.starts(calendar.intervals("hour", lord_howe, ms(2026, 4, 4, 14), ms(2026, 4, 4, 17))))
    assert [(b - a) // 60_000 for a, b in itertools.pairwise(longer)] == [90, 60]
    chatham = calendar.zone("Pacific/Chatham")  # the clock goes back from 3:45 to 2:45
    parted = list(calendar.starts(calendar.intervals("hour", chatham, ms(2026, 4, 4, 13), ms(2026, 4, 4, 16))))
    shown = [local(chatham, start).strftime("%H:%M") for start in parted]
    assert shown == ["02:00", "03:00", "02:45", "03:00", "04:00"]


def test_zones_are_known_by_their_names():
    """Anything else, paths among them, is no zone."""
    assert calendar.zone("Asia/Kolkata") is not None
    for name in ("", "Mars/Olympus", "../../etc/passwd", "Europe", "europe/berlin", "\0", "x" * 1000):
        assert calendar.zone(name) is None


@untimed
@given(family=st.sampled_from(FAMILIES), unit=st.none() | units, drawn=ranges)
def test_windows_and_raw_spans_cover_a_range_once(family, unit, drawn):
    """Nothing is missing, nothing twice, no window is cut by an end of the range or by a border between intervals."""
    zone, from_ms, length_ms = drawn
    to_ms = from_ms + length_ms
    runs = None if unit is None else calendar.intervals(unit, zone, from_ms, to_ms)
    plan = layers(family, from_ms, to_ms, runs)
    spans = sorted([*plan.raw, *(span for _, inside in plan.windows for span in inside)])
    assert spans[0][0] == from_ms
    assert spans[-1][1] == to_ms
    assert all(before[1] == after[0] for before, after in itertools.pairwise(spans))
    for grain, inside in plan.windows:
        for begin_ms, end_ms in inside:
            assert begin_ms % grain.window_ms == end_ms % grain.window_ms == 0
            if runs is not None:
                for start in calendar.starts(runs):
                    assert not begin_ms < start < end_ms or start % grain.window_ms == 0


@untimed
@given(family=st.sampled_from(FAMILIES), from_ms=moments)
def test_an_empty_range_reads_nothing(family, from_ms):
    """`from` = `to`: neither windows nor rows."""
    plan = layers(family, from_ms, from_ms, None)
    assert (plan.windows, plan.raw) == ((), ())
