"""Packing loses nothing, keeps order, holds its bounds and sends every event home."""

import msgspec
from aiokafka.partitioner import murmur2 as reference_murmur2
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.partitioning import event_key, home_partition, home_partitions, homes, murmur2
from ingest.packing import pack

projects = st.from_regex(r"\A[A-Za-z0-9_.:-]{1,20}\Z")
event_ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20) | st.from_regex(
    r"\Alog_[A-Za-z0-9_-]{12}\Z"
)


def reference_home(project_id: str, event_id: str, partitions: int) -> int:
    return int((reference_murmur2(event_key(project_id, event_id)) & 0x7FFFFFFF) % partitions)


@given(projects, st.lists(event_ids, min_size=1, max_size=40), st.integers(1, 64))
def test_every_way_to_find_a_home_agrees_with_the_common_partitioner(project_id: str, ids: list[str], partitions: int) -> None:
    expected = [reference_home(project_id, event_id, partitions) for event_id in ids]
    keys = [event_key(project_id, event_id) for event_id in ids]
    assert homes(project_id, ids, partitions) == expected
    assert home_partitions(keys, partitions).tolist() == expected
    assert [home_partition(key, partitions) for key in keys] == expected
    assert murmur2(keys).tolist() == [reference_murmur2(key) & 0x7FFFFFFF for key in keys]


@given(projects, st.lists(st.from_regex(r"\Alog_[A-Za-z0-9_-]{12}\Z"), min_size=12, max_size=60), st.integers(1, 64))
def test_many_ids_of_one_length_find_the_same_homes(project_id: str, ids: list[str], partitions: int) -> None:
    assert homes(project_id, ids, partitions) == [reference_home(project_id, event_id, partitions) for event_id in ids]


@given(
    projects,
    st.lists(st.tuples(st.sampled_from(["a", "b", "c", "log_000000000001", "ü"]) | event_ids, st.integers(0, 300)), min_size=1),
    st.integers(1, 16),
    st.integers(1024, 3000),
)
def test_packing_loses_nothing_keeps_order_within_a_partition_and_holds_its_bound(
    project_id: str, events: list[tuple[str, int]], partitions: int, pack_bytes: int
) -> None:
    ids = [event_id for event_id, _ in events]
    raws = [msgspec.json.encode({"place": place, "pad": "x" * (size * 10)}) for place, (_, size) in enumerate(events)]
    records = pack(project_id, ids, raws, partitions=partitions, pack_bytes=pack_bytes)

    found: dict[int, list[int]] = {}
    for record in records:
        decoded = msgspec.json.decode(record.value)
        if isinstance(decoded, list):
            assert len(decoded) > 1
            assert len(record.value) <= pack_bytes
            assert record.key is None
        else:
            decoded = [decoded]
            assert record.value == raws[decoded[0]["place"]]
            assert record.key == event_key(project_id, ids[decoded[0]["place"]])
        found.setdefault(record.partition, []).extend(event["place"] for event in decoded)

    expected: dict[int, list[int]] = {}
    for place, event_id in enumerate(ids):
        expected.setdefault(reference_home(project_id, event_id, partitions), []).append(place)
    assert found == expected
