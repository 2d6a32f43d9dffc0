"""When fetched records become a run."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.gathering import Gathering, wanted_of

INTERVAL_S = 0.25
FILL_S = 2.0
BYTES_MAX = 1000


@dataclass(frozen=True)
class Fetched:
    offset: int
    value: bytes | None


@given(
    st.lists(
        st.tuples(
            st.floats(0, 0.2),
            st.lists(st.one_of(st.none(), st.integers(0, 600)), max_size=4),
            st.booleans(),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_every_record_is_in_one_run_in_order_and_runs_at_the_logs_end_are_an_interval_apart(arrivals) -> None:
    """Whatever comes when: nothing is lost or doubled, and only what is full, late enough, or behind and idle begins a run."""
    gathering = Gathering(interval_s=INTERVAL_S, bytes_max=BYTES_MAX)
    now_s, offset, sent, taken = 100.0, 0, [], []
    # When the last run began and whether there was more then; when the first record of the next came.
    last, begun_s, more_is_there = None, now_s, False
    for pause_s, sizes, behind, idle in arrivals:
        now_s += pause_s
        records = [Fetched(offset + index, None if size is None else b"x" * size) for index, size in enumerate(sizes)]
        begun_s = begun_s if len(gathering) else now_s
        offset += len(records)
        sent += records
        assert gathering.add(records, now_s, behind=behind) == sum(size or 0 for size in sizes)
        more_is_there = behind
        assert gathering.fills == (more_is_there and len(gathering) > 0)
        if not gathering.ready(now_s, idle=idle):
            assert not len(gathering) or now_s < gathering.due_s
            assert not (idle and more_is_there and len(gathering) and last and last[1]), "idle, with a backlog"
            continue
        full = gathering.full
        found, nbytes = gathering.take(now_s, sharers=1)
        assert found
        assert nbytes == sum(len(record.value or b"") for record in found)
        assert full == (nbytes >= BYTES_MAX)
        if last is not None:
            began_s, more = last
            assert full or more or now_s >= began_s + INTERVAL_S
        assert full or idle or not more_is_there or now_s >= begun_s + FILL_S
        last = (now_s, more_is_there)
        assert (gathering.due_s == now_s) == more_is_there
        taken += found
    if len(gathering):
        taken += gathering.take(now_s, sharers=1)[0]
    assert taken == sent


def test_a_record_after_a_pause_begins_a_run_at_once() -> None:
    """Waiting is for what comes in drops, not for what comes alone."""
    gathering = Gathering(interval_s=INTERVAL_S, bytes_max=BYTES_MAX)
    gathering.add([Fetched(0, b"x")], 0.0, behind=False)
    assert gathering.ready(1.0, idle=True)
    gathering.take(1.0, sharers=1)
    gathering.add([Fetched(1, b"x")], 0.0, behind=False)
    assert not gathering.ready(1.2, idle=True)
    assert gathering.ready(1.26, idle=True)
    gathering.take(1.26, sharers=1)
    gathering.add([Fetched(2, b"x")], 0.0, behind=False)
    assert gathering.ready(2.0, idle=True)


@pytest.mark.parametrize(
    ("sharers", "took_s", "apart_s"),
    [(8, 0.01, INTERVAL_S), (8, 0.05, 0.8), (2, 0.1, 0.4), (8, 0.4, 2.0), (100, 60.0, 2.0)],
)
def test_runs_are_the_further_apart_the_longer_writing_takes(sharers: int, took_s: float, apart_s: float) -> None:
    """All partitions of a worker together write for half of the time at most, and nothing waits for more than two seconds."""
    gathering = Gathering(interval_s=INTERVAL_S, bytes_max=BYTES_MAX)
    gathering.add([Fetched(0, b"x")], 0.0, behind=False)
    gathering.take(10.0, sharers=sharers)
    # One that waited for the run before it took no longer for that.
    gathering.add([Fetched(1, b"x")], 0.0, behind=True)
    gathering.take(10.0, sharers=sharers)
    gathering.written(100.0)
    gathering.written(100.0 + took_s)
    gathering.add([Fetched(2, b"x")], 0.0, behind=False)
    gathering.take(200.0, sharers=sharers)
    assert gathering.due_s == pytest.approx(200.0 + apart_s)


def test_with_no_interval_nothing_waits() -> None:
    """Who asked for that has it, whatever writing takes."""
    gathering = Gathering(interval_s=0, bytes_max=BYTES_MAX)
    for number in range(3):
        gathering.add([Fetched(number, b"x")], 0.0, behind=False)
        assert gathering.ready(float(number), idle=False)
        gathering.take(float(number), sharers=8)
        gathering.written(number + 0.5)


def test_a_run_of_a_backlog_is_filled_while_others_are_in_work() -> None:
    """For two seconds at most, and only until it is full, the log's end is reached, or nothing else is in work."""
    gathering = Gathering(interval_s=INTERVAL_S, bytes_max=BYTES_MAX)
    gathering.add([Fetched(0, b"x")], 10.0, behind=True)
    assert not gathering.ready(10.0, idle=False)
    assert gathering.ready(10.0, idle=True)
    gathering.add([Fetched(1, b"x")], 11.9, behind=True)
    assert not gathering.ready(11.9, idle=False)
    assert gathering.ready(12.0, idle=False)
    gathering.take(12.0, sharers=1)
    gathering.add([Fetched(2, b"x")], 12.6, behind=True)
    assert not gathering.ready(12.6, idle=False)
    gathering.add([Fetched(3, b"x" * BYTES_MAX)], 12.6, behind=True)
    assert gathering.ready(12.6, idle=False)
    gathering.take(12.6, sharers=1)
    gathering.add([Fetched(4, b"x")], 12.7, behind=True)
    gathering.add([Fetched(5, b"x")], 12.8, behind=False)
    assert gathering.ready(12.8, idle=False)


def test_whose_turn_it_is_to_be_fetched_from() -> None:
    """What was begun is filled first, the oldest before the others; then what was not asked for the longest time."""
    names = {}
    for name, added_s in (("b", 3.0), ("a", 1.0), ("d", 4.0), ("c", 2.0)):
        names[name] = Gathering(interval_s=INTERVAL_S, bytes_max=BYTES_MAX)
        names[name].add([Fetched(0, b"x")], added_s, behind=True)
    names["c"].take(5.0, sharers=1)
    names["d"].take(5.0, sharers=1)
    names["a"].add([Fetched(1, b"x")], 6.0, behind=True)
    assert sorted(names, key=lambda name: names[name].turn) == ["a", "b", "c", "d"]
    names["c"].add([], 7.0, behind=True)
    assert sorted(names, key=lambda name: names[name].turn) == ["a", "b", "d", "c"], "asked in vain, its turn is over"


@given(st.lists(st.tuples(st.integers(1, 1500), st.floats(0, 100), st.booleans(), st.booleans())), st.integers(-100, 5000))
def test_no_more_is_fetched_of_a_backlog_than_there_is_room_for(partitions, room_bytes) -> None:
    """All at the log's end, and of those behind the first by their turn, until what they brought last fills the room."""
    gathered = {}
    for number, (nbytes, added_s, behind, taken) in enumerate(partitions):
        gathered[number] = Gathering(interval_s=INTERVAL_S, bytes_max=BYTES_MAX)
        gathered[number].add([Fetched(0, b"x" * nbytes)], added_s, behind=behind)
        if taken:
            gathered[number].take(added_s, sharers=1)
    wanted = wanted_of(gathered, room_bytes=room_bytes)
    open_to_more = {key for key, each in gathered.items() if not each.full} if room_bytes > 0 else set()
    at_the_end = {key for key in open_to_more if not gathered[key].behind}
    behind = sorted((key for key in gathered if key in open_to_more - at_the_end), key=lambda key: gathered[key].turn)
    chosen = wanted - at_the_end
    assert at_the_end <= wanted <= open_to_more
    assert chosen == set(behind[: len(chosen)])
    brought = [partitions[key][0] for key in behind]
    assert sum(brought[: len(chosen)][:-1]) < max(room_bytes, 1)
    if len(chosen) < len(behind):
        assert sum(brought[: len(chosen)]) >= room_bytes
