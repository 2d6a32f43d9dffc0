"""Where a tail stands: how far it has shown each Kafka partition. Pure.

Not a time, because events come late and in any order: a position in the log of Kafka. What lies below a proved offset never
changes again (DESIGN 5), so what lies between two positions is a closed set, and each log is shown once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

HOUR_S: Final = 3600


class Mark(NamedTuple):
    """How far one partition was shown: all events before `within` of the record at `offset`.

    Args:
        offset, within: the event that comes next: its record, and its number within that
        hour: of the receipt that proves it, in hours since 1970; where to look for those that follow.
    """

    offset: int
    within: int
    hour: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far each partition of one incarnation of the topic was shown.

    Args:
        incarnation: "" before the first one: nothing was proved yet.
        marks: partition -> mark; a partition that is absent was not begun.
    """

    incarnation: str = ""
    marks: Mapping[int, Mark] = field(default_factory=dict)


def lowest(positions: Sequence[Position]) -> Position:
    """Return the position behind none of some, all of one incarnation."""
    common = set.intersection(*(set(one.marks) for one in positions))
    return Position(
        incarnation=positions[0].incarnation,
        marks={partition: min(one.marks[partition] for one in positions) for partition in common},
    )


class Bookmark:
    """A position that moves with each event, and its bytes: short, and cheap to write anew after each step."""

    def __init__(self, position: Position) -> None:
        self._marks = dict(position.marks)
        self.incarnation = position.incarnation
        self._base_hour = max((mark.hour for mark in self._marks.values()), default=0)
        self._encode()

    def step(self, partition: int, offset: int, index: int, hour: int) -> None:
        """Note that everything up to and with an event was shown."""
        self._marks[partition] = mark = Mark(offset, index + 1, hour)
        if partition not in self._parts or hour > self._base_hour:
            self._base_hour = max(hour, self._base_hour)
            self._encode()
        else:
            self._parts[partition] = self._part(partition, mark)

    def position(self) -> Position:
        """Return the position as it is now."""
        return Position(incarnation=self.incarnation, marks=dict(self._marks))

    def encoded(self) -> bytes:
        """Return the bytes that `decode` reads."""
        return b"".join((self._head, *self._parts.values()))

    def _encode(self) -> None:
        name = self.incarnation.encode()
        self._head = b"".join((_varint(len(name)), name, _varint(self._base_hour), _varint(len(self._marks))))
        self._parts = {partition: self._part(partition, mark) for partition, mark in self._marks.items()}

    def _part(self, partition: int, mark: Mark) -> bytes:
        return b"".join(map(_varint, (partition, mark.offset, mark.within, self._base_hour - mark.hour)))


def decode(raw: bytes) -> Position:
    """Read what `Bookmark.encoded` wrote; only for bytes that carry our signature."""
    length, at = _read(raw, 0)
    incarnation = raw[at : at + length].decode()
    base_hour, at = _read(raw, at + length)
    count, at = _read(raw, at)
    marks = {}
    for _ in range(count):
        partition, at = _read(raw, at)
        offset, at = _read(raw, at)
        index, at = _read(raw, at)
        age, at = _read(raw, at)
        marks[partition] = Mark(offset, index, base_hour - age)
    return Position(incarnation=incarnation, marks=marks)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    if value < 0x80:
        return bytes((value,))
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _read(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
