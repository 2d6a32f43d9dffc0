"""The alarm on dead letters: the same records are judged alike however they are cut, and only too much is too much."""

import json
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from processors.alarm import RATIO_EVENTS_MIN, SLOT_MS, WINDOW_MS, AlarmLimits, Watch, judge, recalled
from processors.batch import Batch, Prepared, read, settle
from processors.decode import Record
from processors.dedupe import SeenFilter
from processors.letter_watch import LetterWatch

INCARNATION = "0123456789abcdef" * 2
START_MS = 1_776_421_500_000
GOOD = {"tool_slug": "X", "status": "success", "duration_ms": 1, "timestamp": START_MS}
LIMITS = AlarmLimits(run_max=5, ratio_max=0.5)

# What a record holds: good (True) and bad (False) events, and how long after the one before it came.
packs = st.lists(
    st.tuples(st.lists(st.booleans(), min_size=1, max_size=6), st.integers(0, 40_000) | st.just(0)), min_size=1, max_size=40
)


def records(packs: Sequence[tuple[Sequence[bool], int]], *, start: int = 0, project: str = "p") -> list[Record]:
    made, at_ms = [], START_MS
    for offset, (fates, later_ms) in enumerate(packs, start):
        at_ms += later_ms
        events = [{**GOOD, "id": f"{offset}.{place}"} if good else {"bad": 1} for place, good in enumerate(fates)]
        headers = [("project_id", project.encode())]
        value = json.dumps(events).encode()
        made.append(Record(offset=offset, timestamp_ms=at_ms, key=None, value=value, headers=headers))
    return made


def prepared(some: Sequence[Record]) -> Prepared:
    batch = Batch(
        incarnation=INCARNATION,
        partition=0,
        partitions=1,
        first_offset=some[0].offset,
        next_offset=some[-1].offset + 1,
        records=some,
    )
    return settle(
        read(batch, seen=SeenFilter(budget_bytes=1 << 16)), known={}, stores_payload=lambda _: True, window_close_ms=0
    )


@settings(max_examples=80, deadline=None)
@given(packs=packs, cuts=st.lists(st.integers(1, 40), max_size=6))
def test_cuts_between_batches_change_nothing(packs: list[tuple[list[bool], int]], cuts: list[int]) -> None:
    """Whether a limit was passed, and what is remembered, hang on the records alone."""
    made = records(packs)
    whole = judge(Watch(), prepared(made).stretches, LIMITS)
    watch, crossed = Watch(), False
    for start, end in pairwise(sorted({0, len(made), *(cut for cut in cuts if cut < len(made))})):
        found = judge(watch, prepared(made[start:end]).stretches, LIMITS)
        watch, crossed = found.after, crossed or found.crossed
    assert (watch, crossed) == (whole.after, whole.crossed)


@settings(max_examples=80, deadline=None)
@given(packs=packs)
def test_the_run_is_what_a_plain_count_says(packs: list[tuple[list[bool], int]]) -> None:
    """Counted event by event: the run at the end, and whether any run was as long as the limit."""
    run, longest = 0, 0
    for good in (good for fates, _ in packs for good in fates):
        run = 0 if good else run + 1
        longest = max(longest, run)
    found = judge(Watch(), prepared(records(packs)).stretches, AlarmLimits(run_max=5, ratio_max=1))
    assert found.after.run == run
    assert found.crossed == (longest >= 5)
    assert sum(slot.events for slot in found.after.slots) <= sum(len(fates) for fates, _ in packs)


def test_a_bad_event_of_a_quiet_topic_is_no_alarm() -> None:
    """A share of few events says nothing, however large it is; of enough events it does, as soon as it is too large."""
    few = [([False, True], 0)] * (RATIO_EVENTS_MIN // 2 - 1)
    limits = AlarmLimits(run_max=1_000, ratio_max=0.4)
    assert not judge(Watch(), prepared(records([*few, ([False], 0)])).stretches, limits).crossed
    assert judge(Watch(), prepared(records([*few, ([False] * 2, 0)])).stretches, limits).crossed


def test_an_alarm_ends_when_good_events_have_the_upper_hand_again() -> None:
    """Not with the first good one, and not only when the window has passed."""
    limits = AlarmLimits(run_max=1_000, ratio_max=0.5)
    bad = judge(Watch(), prepared(records([([False] * 200, 0)])).stretches, limits).after
    assert bad.alarmed
    one = judge(bad, prepared(records([([True], 0)])).stretches, limits).after
    assert (one.alarmed, one.run) == (True, 0)
    more = judge(one, prepared(records([([True] * 400, 0)])).stretches, limits).after
    assert not more.alarmed
    late = judge(bad, prepared(records([([True], WINDOW_MS + SLOT_MS)])).stretches, limits).after
    assert not late.alarmed


class Receipts:
    """Receipts as ClickHouse would tell them."""

    def __init__(self, rows: Sequence[tuple[int, int, int]] = ()) -> None:
        self.rows = rows
        self.asked = 0

    async def recent_letters(self, incarnation: str, partition: int) -> Sequence[tuple[int, int, int]]:
        assert (incarnation, partition) == (INCARNATION, 0)
        self.asked += 1
        return self.rows


async def test_a_partition_that_should_stop_lets_no_further_batch_through() -> None:
    """The batch that passes the limit is refused as often as it comes; with a higher limit it goes on."""
    receipts = Receipts()
    made = records([([False] * 3, 0), ([False] * 3, 0)], project="noisy")
    watch = LetterWatch(receipts, limits=LIMITS, stops=True)
    assert await watch.admits(prepared(made[:1]))
    assert not await watch.admits(prepared(made[1:]))
    assert watch.stopped(0)
    (reason,) = watch.reasons()
    assert "partition 0 is stopped" in reason
    assert "'noisy'" in reason
    assert "TOOLLEDGER_DEAD_LETTER_RUN_MAX" in reason
    watch.opened(0)
    assert not watch.stopped(0)
    assert not await watch.admits(prepared(made[1:]))
    assert receipts.asked == 1
    # Another worker, told by the receipts.
    receipts = Receipts([(START_MS, 3, 3)])
    assert not await LetterWatch(receipts, limits=LIMITS, stops=True).admits(prepared(made[1:]))
    assert await LetterWatch(receipts, limits=AlarmLimits(run_max=7, ratio_max=0.5), stops=True).admits(prepared(made[1:]))


async def test_by_default_an_alarm_is_told_and_stops_nothing() -> None:
    """The others' events go on; a warning says whose dead letters they are, and goes away."""
    watch = LetterWatch(Receipts(), limits=LIMITS, stops=False)
    assert await watch.admits(prepared(records([([False] * 9, 0)], project="noisy")))
    (warning,) = watch.warnings([0])
    assert "9 dead letters in a row" in warning
    assert "'noisy'" in warning
    assert watch.warnings([1]) == []
    assert await watch.admits(prepared(records([([True], 0)], start=1)))
    assert watch.warnings([0]) == []
    assert watch.reasons() == []


def test_receipts_recall_a_run_of_whole_batches() -> None:
    """What a new owner knows: dead batches at the end, and the shares of the last minutes."""
    watch = recalled([(START_MS, 10, 10), (START_MS, 10, 4), (START_MS, 7, 7), (START_MS, 0, 0), (START_MS, 2, 2)], LIMITS)
    assert watch.run == 9
    assert watch.alarmed
    assert sum(slot.dead for slot in watch.slots) == 23
    assert not recalled([(START_MS, 10, 10), (START_MS, 1, 0)], LIMITS).alarmed
