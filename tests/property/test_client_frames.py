"""Spool files: whole batches come back as they were, whatever happened to the file around them."""

import gzip

from hypothesis import given
from hypothesis import strategies as st

from ingest.client.frames import Damaged, Frame, frames, pack, unpack

batches = st.lists(st.tuples(st.binary(max_size=2000), st.integers(0, 1000)), max_size=6)


def whole(data: bytes) -> list[tuple[bytes, int]]:
    return [(unpack(found), found.events) for found in frames(data) if isinstance(found, Frame)]


@given(batches)
def test_a_file_is_its_batches_and_plain_gzip(given_batches: list[tuple[bytes, int]]) -> None:
    """One behind the other; any program that reads gzip reads them all."""
    data = b"".join(pack(*batch).body for batch in given_batches)
    assert whole(data) == given_batches
    assert gzip.decompress(data) == b"".join(raw for raw, _ in given_batches)


@given(batches, st.data())
def test_a_torn_file_gives_every_whole_batch_before_the_tear(
    given_batches: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    """And tells of the rest."""
    packed = [pack(*batch).body for batch in given_batches]
    joined = b"".join(packed)
    cut = data.draw(st.integers(0, len(joined)))
    fits, size = 0, 0
    while fits < len(packed) and size + len(packed[fits]) <= cut:
        size += len(packed[fits])
        fits += 1
    assert whole(joined[:cut]) == given_batches[:fits]
    assert sum(found.size for found in frames(joined[:cut]) if isinstance(found, Damaged)) == cut - size


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.integers(1, 9)), min_size=3, max_size=5), st.data())
def test_damage_costs_the_batch_it_is_in(given_batches: list[tuple[bytes, int]], data: st.DataObject) -> None:
    """A byte that changed, a block of zeros or garbage between batches: the others are found."""
    packed = [pack(*batch).body for batch in given_batches]
    hit = data.draw(st.integers(0, len(packed) - 1))
    garbage = data.draw(st.binary(max_size=100) | st.just(bytes(4096)))
    damaged = bytearray(packed[hit])
    # Behind the header: a length that changed may swallow what follows.
    damaged[data.draw(st.integers(28, len(damaged) - 1))] ^= 0xFF
    parts = [*packed[:hit], garbage, bytes(damaged), *packed[hit + 1 :]]
    assert whole(b"".join(parts)) == [*given_batches[:hit], *given_batches[hit + 1 :]]


@given(st.binary(max_size=500))
def test_garbage_is_told_of_and_nothing_else(data: bytes) -> None:
    """Never an exception, and every byte is accounted for."""
    assert sum(found.size if isinstance(found, Damaged) else len(found.body) for found in frames(data)) == len(data)
