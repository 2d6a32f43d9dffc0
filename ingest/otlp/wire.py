"""The envelope of a protobuf message, read in place: which ranges of its bytes are the messages inside it.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator
from typing import Final

from ingest.otlp.spans import SPANS_MAX, Malformed, TooMuch

_VARINT: Final = 0
_FIXED64: Final = 1
_LENGTH: Final = 2
_START_GROUP: Final = 3
_END_GROUP: Final = 4
_FIXED32: Final = 5

# Ten bytes of seven bits hold 64; more is no number.
_VARINT_SHIFT_MAX: Final = 63


class Wire:
    """One request's bytes, and how many fields may still be read of them."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._left = SPANS_MAX

    def messages(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Give (number, start, end) of each field of the message between two places that may be a message itself.

        Raises:
            Malformed: the bytes are no message.
            TooMuch: the request as a whole has too many fields.
        """
        groups: list[int] = []
        while start < end:
            self._left -= 1
            if self._left < 0:
                raise TooMuch(f"the request holds more than {SPANS_MAX} spans and groups of spans")
            tag, start = self._varint(start, end)
            number, wire = tag >> 3, tag & 7
            if not number:
                raise Malformed("a field has the number 0")
            if wire == _LENGTH:
                size, start = self._varint(start, end)
                if size <= end - start and not groups:
                    yield number, start, start + size
                start += size
            elif wire == _VARINT:
                _, start = self._varint(start, end)
            elif wire in (_FIXED64, _FIXED32):
                start += 8 if wire == _FIXED64 else 4
            elif wire == _START_GROUP:
                # No message of today has groups; what is in one is passed over.
                groups.append(number)
            elif wire != _END_GROUP or not groups or groups.pop() != number:
                raise Malformed(f"a field has the wire type {wire}")
            if start > end:
                raise Malformed("a field is longer than its message")
        if groups:
            raise Malformed("the message ends too early")

    def _varint(self, start: int, end: int) -> tuple[int, int]:
        """Return a number and the place behind it."""
        value = shift = 0
        while start < end:
            byte = self.data[start]
            start += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, start
            shift += 7
            if shift > _VARINT_SHIFT_MAX:
                raise Malformed("a number has more than ten bytes")
        raise Malformed("the message ends too early")
