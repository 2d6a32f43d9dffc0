"""Pack the events of a request into Kafka records, by home partition. Pure.

        events of one request, in order        records
        a(2) b(0) c(2) d(1) e(2) f(0)    ->    0: [b,f]   1: d   2: [a,c,e]

Equal ids share a home, so that they stay in the order they were sent. A pack is closed before it grows beyond a bound, and a
large request then gives several for one partition.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ingest.contract.partitioning import event_key, homes
from ingest.formats import Item


class Record(NamedTuple):
    """One Kafka record: a single event as it is, with its key, or a pack `[event,event,...]` without one."""

    partition: int
    key: bytes | None
    value: bytes


def pack(project_id: str, ids: Sequence[str], raws: Sequence[Item], *, partitions: int, pack_bytes: int) -> list[Record]:
    """Pack events.

    Args:
        project_id: of all of them.
        ids: one for each event.
        raws: their JSON objects, in the same order.
        partitions: how many the topic has.
        pack_bytes: a pack of two or more events is no larger than that; a larger single event travels alone.

    Returns:
        Records in the order of their partitions' first events; within a partition, events stand in the order given.
    """
    if len(ids) == 1:
        return [_single(project_id, ids[0], raws[0], homes(project_id, ids, partitions)[0])]
    places: dict[int, list[int]] = {}
    for place, home in enumerate(homes(project_id, ids, partitions)):
        if home in places:
            places[home].append(place)
        else:
            places[home] = [place]
    records: list[Record] = []
    for home, members in places.items():
        if len(members) > 1:
            value = b"[" + b",".join([raws[place] for place in members]) + b"]"
            if len(value) <= pack_bytes:
                records.append(Record(home, None, value))
                continue
            del value
        records.extend(_divide(project_id, ids, raws, members, home, pack_bytes))
    return records


def _divide(
    project_id: str, ids: Sequence[str], raws: Sequence[Item], members: Sequence[int], home: int, pack_bytes: int
) -> list[Record]:
    records: list[Record] = []
    group: list[int] = []
    group_bytes = 1  # the opening bracket; each event then brings a comma or the closing one
    for place in [*members, None]:
        size = 0 if place is None else memoryview(raws[place]).nbytes + 1
        if group and (place is None or group_bytes + size > pack_bytes):
            if len(group) == 1:
                records.append(_single(project_id, ids[group[0]], raws[group[0]], home))
            else:
                records.append(Record(home, None, b"[" + b",".join([raws[each] for each in group]) + b"]"))
            group, group_bytes = [], 1
        if place is not None:
            group.append(place)
            group_bytes += size
    return records


def _single(project_id: str, event_id: str, raw: Item, home: int) -> Record:
    return Record(home, event_key(project_id, event_id), bytes(raw))
