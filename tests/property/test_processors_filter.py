"""The filter of known ids errs to one side only."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.batch import Batch, read
from processors.decode import Record
from processors.dedupe import AHEAD_MS, SeenFilter, id_hashes, suspects


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 40_000), min_size=1, max_size=6), seed=st.integers(0, 2**32))
def test_what_was_accepted_within_reach_is_never_called_new(sizes: list[int], seed: int) -> None:
    """Through growth and dropped slices: an id accepted at or after `reach_ms` may be known, always."""
    chance = np.random.default_rng(seed)
    seen = SeenFilter(budget_bytes=128 * 1024)
    added = []
    for moment, size in enumerate(sizes):
        hashes = chance.integers(0, 2**64, size, dtype=np.uint64)
        seen.add(hashes, accepted_ms=moment)
        added.append((moment, hashes))
        assert seen.nbytes <= 128 * 1024
    for moment, hashes in added:
        if moment >= seen.reach_ms:
            assert seen.maybe(hashes).all()


def test_few_unknown_ids_are_taken_for_known_ones() -> None:
    """A full filter takes less than one unknown id in a hundred for a known one."""
    chance = np.random.default_rng(1)
    seen = SeenFilter(budget_bytes=1 << 20)
    seen.add(chance.integers(0, 2**64, 400_000, dtype=np.uint64), accepted_ms=1)
    unknown = chance.integers(0, 2**64, 100_000, dtype=np.uint64)
    assert seen.maybe(unknown).mean() < 0.01


def test_an_event_older_than_the_reach_is_asked_by_its_time() -> None:
    """What the filter cannot know because it is too old is asked of ClickHouse; what it knows to be new is not."""
    seen = SeenFilter(budget_bytes=1 << 20, reach_ms=10**12)
    hashes = id_hashes([b"p/a", b"p/b"])
    stamps = np.array([10**12, 10**12 + AHEAD_MS], dtype=np.int64)
    asked = suspects(seen=seen, hashes=hashes, timestamps_ms=stamps, places=np.array([0, 1]))
    assert asked.by_id == []
    assert asked.by_time == [0]


def test_an_event_that_comes_with_an_id_a_worker_made_is_asked_about() -> None:
    """Its id counted where it was found, which no filter of its home knows: it is asked by id, its neighbours are not."""
    made = f"{'0a' * 16}-3-17-0"
    values = [{"id": event_id, "tool_slug": "X", "status": "success", "duration_ms": 1} for event_id in (made, "other")]
    values.append({"tool_slug": "X", "status": "success", "duration_ms": 1})
    record = Record(offset=5, timestamp_ms=10**12, key=None, value=json.dumps(values).encode(), headers=[("project_id", b"p")])
    batch = Batch(incarnation="0a" * 16, partition=0, partitions=1, first_offset=5, next_offset=6, records=[record])
    asked = read(batch, seen=SeenFilter(budget_bytes=1 << 20)).suspects
    assert (asked.by_id, asked.by_time) == ([0], [])
