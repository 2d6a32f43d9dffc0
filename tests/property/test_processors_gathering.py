"""When fetched records become a run."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.gathering import Gathering

INTERVAL_S = 0.25
BYTES_MAX = 1000


@dataclass(frozen=True)
class Fetched:
    offset: int
    value: bytes | None


@given(
    st.lists(
        st.tuples(st.floats(0, 0.2), st.lists(st.one_of(st.none(), st.integers(0, 600)), max_size=4), st.booleans()),
        max_size=60,
    )
)
def test_every_record_is_in_one_run_in_order_and_runs_at_the_logs_end_are_an_interval_apart(arrivals) -> None:
    """Whatever comes when: nothing is lost or doubled, and only what is behind, full or late enough begins a run."""
    gathering = Gathering(interval_s=INTERVAL_S, bytes_max=BYTES_MAX)
    now_s, offset, sent, taken = 100.0, 0, [], []
    last = None
    for pause_s, sizes, behind in arrivals:
        now_s += pause_s
        records = [Fetched(offset + index, None if size is None else b"x" * size) for index, size in enumerate(sizes)]
        if records:
            offset += len(records)
            sent += records
            assert gathering.add(records, behind=behind) == sum(size or 0 for size in sizes)
        if not gathering.ready(now_s):
            assert not len(gathering) or now_s < gathering.due_s
            continue
        full, was_behind = gathering.full, behind if records else None
        found, nbytes = gathering.take(now_s, sharers=1)
        assert found
        assert nbytes == sum(len(record.value or b"") for record in found)
        assert full == (nbytes >= BYTES_MAX)
        if last is not None:
            began_s, more = last
            assert full or more or now_s >= began_s + INTERVAL_S
        last = (now_s, gathering.due_s == now_s)
        if was_behind is not None:
            assert last[1] == was_behind
        taken += found
    if len(gathering):
        taken += gathering.take(now_s, sharers=1)[0]
    assert taken == sent


def test_a_record_after_a_pause_begins_a_run_at_once() -> None:
    """Waiting is for what comes in drops, not for what comes alone."""
    gathering = Gathering(interval_s=INTERVAL_S, bytes_max=BYTES_MAX)
    gathering.add([Fetched(0, b"x")], behind=False)
    assert gathering.ready(1.0)
    gathering.take(1.0, sharers=1)
    gathering.add([Fetched(1, b"x")], behind=False)
    assert not gathering.ready(1.2)
    assert gathering.ready(1.26)
    gathering.take(1.26, sharers=1)
    gathering.add([Fetched(2, b"x")], behind=False)
    assert gathering.ready(2.0)


@pytest.mark.parametrize(
    ("sharers", "took_s", "apart_s"),
    [(8, 0.01, INTERVAL_S), (8, 0.05, 0.8), (2, 0.1, 0.4), (8, 0.4, 2.0), (100, 60.0, 2.0)],
)
def test_runs_are_the_further_apart_the_longer_writing_takes(sharers: int, took_s: float, apart_s: float) -> None:
    """All partitions of a worker together write for half of the time at most, and nothing waits for more than two seconds."""
    gathering = Gathering(interval_s=INTERVAL_S, bytes_max=BYTES_MAX)
    gathering.add([Fetched(0, b"x")], behind=False)
    gathering.take(10.0, sharers=sharers)
    # One that waited for the run before it took no longer for that.
    gathering.add([Fetched(1, b"x")], behind=True)
    gathering.take(10.0, sharers=sharers)
    gathering.written(100.0)
    gathering.written(100.0 + took_s)
    gathering.add([Fetched(2, b"x")], behind=False)
    gathering.take(200.0, sharers=sharers)
    assert gathering.due_s == pytest.approx(200.0 + apart_s)


def test_with_no_interval_nothing_waits() -> None:
    """Who asked for that has it, whatever writing takes."""
    gathering = Gathering(interval_s=0, bytes_max=BYTES_MAX)
    for number in range(3):
        gathering.add([Fetched(number, b"x")], behind=False)
        assert gathering.ready(float(number))
        gathering.take(float(number), sharers=8)
        gathering.written(number + 0.5)
