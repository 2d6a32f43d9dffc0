"""Take a JSON array of any size apart, item by item, in bounded memory.

An item's end is found by the very decoder that judges it later, which reads one value and tells where something else follows.
What it cannot read (no JSON, or too large to be an event) is scanned by brackets and strings, so that its neighbours go on.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from deploy.cli.send_text import Text
from ingest.contract.errors import InvalidEvent
from ingest.contract.event import EVENT_BYTES_MAX, decode_event

_SPACE: Final = b" \t\r\n"
_BEHIND: Final = re.compile(r"trailing characters \(byte (\d+)\)$")
_decode = msgspec.json.Decoder(msgspec.Raw).decode
_IN_STRING: Final = re.compile(rb'["\\]')
_OUT_OF_STRING: Final = re.compile(rb'["\[\]{},]')


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item: its bytes, or why it is no event; `end_offset` is where the text goes on behind it."""

    raw: bytes
    code: str = ""
    message: str = ""
    end_offset: int


class BrokenArray(Exception):
    """The array itself ends too early, or something stands behind it."""


def items(text: Text, *, first: bool) -> Iterator[Item]:
    """Yield the items of an array.

    Args:
        text: at the array's bracket, or behind an item.
        first: whether it is at the bracket.

    Raises:
        BrokenArray: with what is wrong.
        Exception: as `Text.read` raises.
    """
    window = _Window(text)
    # An empty array has no item before its end, and what stands behind an item goes on with a comma.
    separator = window.next()
    assert separator == (b"[" if first else separator)
    while separator != b"]":
        window.at += 1
        if separator == b"[" and window.next() == b"]":
            break
        window.next()
        yield _item(window)
        separator = window.next()
    window.at += 1
    if window.seek():
        raise BrokenArray(f"something stands behind the end of its array, at byte {window.offset}")


class _Window:
    """The part of the text that is looked at."""

    def __init__(self, text: Text) -> None:
        self.data = b""
        self.at = 0
        self._text = text

    @property
    def offset(self) -> int:
        """Where it is in the text."""
        return self._text.offset - len(self.data) + self.at

    @property
    def size(self) -> int:
        """How many bytes are there from here on."""
        return len(self.data) - self.at

    def more(self) -> bool:
        """Read on, keeping what is from here on; False at the end."""
        found = self._text.read()
        self.data, self.at = self.data[self.at :] + found, 0
        return bool(found)

    def seek(self) -> bytes:
        """Go to the next byte that is no space, and return it; nothing at the end."""
        while True:
            while self.data[self.at : self.at + 1] in _SPACES:
                self.at += 1
            if self.at < len(self.data):
                return self.data[self.at : self.at + 1]
            if not self.more():
                return b""

    def next(self) -> bytes:
        """As `seek`, where the text must not end."""
        if not (found := self.seek()):
            raise BrokenArray("its array does not end: get the whole file")
        return found


_SPACES: Final = frozenset((b" ", b"\t", b"\r", b"\n"))


def _item(window: _Window) -> Item:
    """Read one item; behind it comes a comma or the array's end."""
    while True:
        try:
            size = _measure(window)
        except _NoJson:
            return _scanned(window)
        if size is not None:
            raw = window.data[window.at : window.at + size].rstrip(_SPACE)
            follows = window.data[window.at + size : window.at + size + 1]
            if follows not in (b",", b"]") or len(raw) > EVENT_BYTES_MAX:
                return _scanned(window)
            window.at += size
            return Item(raw=raw, end_offset=window.offset)
        if window.size > EVENT_BYTES_MAX:
            return _scanned(window)
        if not window.more():
            raise BrokenArray("its array does not end: get the whole file")


class _NoJson(Exception):
    pass


def _measure(window: _Window) -> int | None:
    """Return how far the first value reaches, with space behind it; None where its end is not there yet."""
    try:
        _decode(memoryview(window.data)[window.at :])
    except msgspec.DecodeError as error:
        if behind := _BEHIND.search(str(error)):
            # The one that is told stands behind it, counted from 1; should that ever change, what follows is no comma, and the
            # item is scanned.
            return int(behind[1]) - 1
        if "truncated" not in str(error):
            raise _NoJson from None
    except (RecursionError, UnicodeDecodeError):
        raise _NoJson from None
    return None


def _scanned(window: _Window) -> Item:
    """Pass over an item that is no event, however large, by its brackets and strings alone."""
    kept = b""
    size = depth = 0
    in_string = False
    while True:
        end, in_string, depth, reached = _scan(window.data, window.at, in_string, depth)
        passed = window.data[window.at : reached]
        size += len(passed)
        if len(kept) <= EVENT_BYTES_MAX:
            kept += passed
        window.at = reached
        if end:
            break
        if not window.more():
            raise BrokenArray("its array does not end: get the whole file")
    raw = kept.strip(_SPACE)
    if size <= EVENT_BYTES_MAX and _is_json(raw):
        # It only looked broken where the window ended, within a number for one.
        return Item(raw=raw, end_offset=window.offset)
    code, message = _judge(raw, size)
    return Item(raw=b"", code=code, message=message, end_offset=window.offset)


def _scan(data: bytes, at: int, in_string: bool, depth: int) -> tuple[bool, bool, int, int]:
    """Return (whether the item's end was found, in a string, depth, where it got to)."""
    while found := (_IN_STRING if in_string else _OUT_OF_STRING).search(data, at):
        at, mark = found.end(), found[0]
        if mark == b'"':
            in_string = not in_string
        elif mark == b"\\":
            if at == len(data):
                return False, in_string, depth, found.start()
            at += 1
        elif mark in (b"[", b"{"):
            depth += 1
        elif not depth and mark in (b",", b"]"):
            return True, in_string, depth, found.start()
        elif mark != b",":
            depth = max(0, depth - 1)
    return False, in_string, depth, len(data)


def _is_json(raw: bytes) -> bool:
    try:
        _decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
    return True


def _judge(raw: bytes, size: int) -> tuple[str, str]:
    """Say why bytes are no event, of which no JSON can be made."""
    if size > EVENT_BYTES_MAX:
        return "event_too_large", f"the event has about {size} bytes; at most {EVENT_BYTES_MAX} are taken"
    try:
        decode_event(raw)
    except InvalidEvent as error:
        # A member may be found wrong before the JSON is.
        if error.reason in ("invalid_json", "invalid_encoding", "nested_too_deep"):
            return error.reason, error.message
    return "invalid_json", "not JSON, or no comma behind it"
