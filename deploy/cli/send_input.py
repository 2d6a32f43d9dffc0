"""Read events from files of any size, batch by batch: NDJSON, a JSON array or one JSON object; plain, gzip or zstd.

Where a batch ends depends on the text before it alone, never on how it was read or where reading began: events without an id
get one from the place of their batch and their place in it, and must get the same one when they are sent again.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from deploy.cli.send_items import BrokenArray, items
from deploy.cli.send_text import Text, broken, is_plain, is_stored, open_raw, text_of
from ingest.contract.errors import ConfigurationError
from ingest.contract.event import EVENT_BYTES_MAX

# Another number here would give events without an id another one, so that files sent before would count once more.
BATCH_EVENTS: Final = 500
# Well below what ingest takes in one body, so that one batch is a fraction of a second of work. As above.
BATCH_BYTES: Final = 4 * 1024 * 1024
# A line or a document is never read further than that into memory; space around an event is none of its bytes.
_TEXT_BYTES_MAX: Final = 2 * EVENT_BYTES_MAX
_BOM: Final = b"\xef\xbb\xbf"
_SPACE: Final = b" \t\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A place between two batches: bytes of plain text, and lines or items, that lie before it."""

    offset: int = 0
    number: int = 0


START: Final = Mark()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An event that was not taken: its line or item from 1, why for programs, why for people."""

    number: int
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Events that are sent together.

    `kind` says what `numbers` count; `lines` tells whether the body is NDJSON, because an event may be broken; `refused` are
    those of which is known already that they cannot be taken.
    """

    kind: str
    numbers: tuple[int, ...]
    raws: tuple[bytes, ...]
    lines: bool
    refused: tuple[Refusal, ...] = ()
    start: Mark
    end: Mark

    def body(self) -> tuple[bytes, str]:
        """Return the request's body and its content type."""
        if self.lines:
            return b"\n".join(self.raws), "application/x-ndjson"
        return b"[" + b",".join(self.raws) + b"]", "application/json"


class Source:
    """One file, or standard input as `-`.

    Args:
        name: as people give it.

    Raises:
        ConfigurationError: it cannot be read; says what to do.
    """

    def __init__(self, name: str) -> None:
        self.path = name
        self.name = "stdin" if name == "-" else name
        self._raw = open_raw(name)
        # A pipe that was closed would not open a second time.
        self.stored = name != "-" and is_stored(self._raw)
        self.size = os.fstat(self._raw.fileno()).st_size if self.stored else None
        # Whether places in its text are places in the file.
        self.plain = self.stored and is_plain(self._raw)
        if self.stored:
            self._raw.close()

    def position(self) -> int:
        """Return how many bytes of the file were read so far; 0 where that cannot be told."""
        return self._raw.tell() if self.stored and not self._raw.closed else 0

    def batches(self, mark: Mark = START) -> Iterator[Batch]:
        """Yield all events from a mark on, in their order.

        Raises:
            ConfigurationError: it cannot be read to its end; says what to do.
        """
        try:
            form = self._form() if mark.offset else None
            self._open()
            with self._raw:
                text = text_of(self._raw, self.name, mark.offset)
                form = form or _form_of(text, self.name)
                if form == "array":
                    yield from _item_batches(text, mark)
                elif form == "object":
                    yield _object(text, self.name)
                elif form == "lines":
                    yield from _line_batches(text, mark)
        except BrokenArray as error:
            raise ConfigurationError(f"{self.name}: {error}") from None
        except broken() as error:
            raise ConfigurationError(f"{self.name} cannot be read to its end: {error}") from None

    def _form(self) -> str:
        self._open()
        with self._raw:
            return _form_of(text_of(self._raw, self.name), self.name)

    def _open(self) -> None:
        if self._raw.closed:
            self._raw = open_raw(self.path)


def _form_of(text: Text, name: str) -> str:
    """Tell `lines`, an `array` or an `object`, and leave the text where it was.

    An object is one that goes on after its first line. An NDJSON file may have a broken first line too; then its second line is
    an object of its own.
    """
    head = b""
    lines: list[bytes] = []
    while len(head) < 2 * _TEXT_BYTES_MAX and (found := text.read()):
        head += found
        looked_at = head[: 2 * _TEXT_BYTES_MAX].removeprefix(_BOM)
        if b"\0" in looked_at:
            raise ConfigurationError(f"{name} is binary: send NDJSON, a JSON array or one JSON object, plain, gzip or zstd")
        lines = _first_lines(looked_at)
        # The last line may not have come whole yet; two that have are enough.
        if lines and (lines[0][:1] != b"{" or len(lines) > 2 or _is_object(lines[0])):
            break
    text.unread(head)
    if not lines:
        return "lines"
    if lines[0][:1] == b"[":
        return "array"
    if lines[0][:1] != b"{" or len(lines) == 1 or _is_object(lines[0]) or (lines[1][:1] == b"{" and _is_object(lines[1])):
        return "lines"
    return "object"


def _first_lines(text: bytes) -> list[bytes]:
    """Return the first three lines that are not blank, as far as they are there."""
    lines: list[bytes] = []
    start = 0
    while start < len(text) and len(lines) < 3:
        end = text.find(b"\n", start)
        end = len(text) if end < 0 else end
        if line := text[start:end].strip():
            lines.append(line)
        start = end + 1
    return lines


def _is_object(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


class _Gathering:
    """The batch that is being made."""

    def __init__(self, kind: str, *, lines: bool, start: Mark) -> None:
        self._kind, self._lines = kind, lines
        self._begin(start)

    def _begin(self, start: Mark) -> None:
        self.numbers: list[int] = []
        self.raws: list[bytes] = []
        self._refused: list[Refusal] = []
        self._bytes = 0
        self._start = start

    def is_full_for(self, size: int) -> bool:
        count = len(self.raws) + len(self._refused)
        return count >= BATCH_EVENTS or bool(count and self._bytes + size > BATCH_BYTES)

    def add(self, number: int, raw: bytes) -> None:
        self.numbers.append(number)
        self.raws.append(raw)
        self._bytes += len(raw)

    def refuse(self, number: int, code: str, message: str) -> None:
        self._refused.append(Refusal(number=number, code=code, message=message))

    def close(self, end: Mark) -> Batch:
        """Return the batch, and begin the next one behind it."""
        batch = Batch(
            kind=self._kind,
            numbers=tuple(self.numbers),
            raws=tuple(self.raws),
            lines=self._lines,
            refused=tuple(self._refused),
            start=self._start,
            end=end,
        )
        self._begin(end)
        return batch

    def __bool__(self) -> bool:
        return bool(self.raws or self._refused)


def _line_batches(text: Text, mark: Mark) -> Iterator[Batch]:
    gathering = _Gathering("line", lines=True, start=mark)
    number, offset = mark.number, mark.offset
    for line, size in _lines(text):
        if not size:
            if gathering:
                yield gathering.close(Mark(offset=offset, number=number))
            continue
        number += 1
        event = line.removeprefix(_BOM).strip() if not offset else line.strip()
        if event:
            if gathering.is_full_for(len(event)):
                yield gathering.close(Mark(offset=offset, number=number - 1))
            if size > _TEXT_BYTES_MAX or len(event) > EVENT_BYTES_MAX:
                gathering.refuse(number, *_too_large(size))
            else:
                gathering.add(number, event)
        offset += size
    if gathering:
        yield gathering.close(Mark(offset=offset, number=number))


def _lines(text: Text) -> Iterator[tuple[bytes, int]]:
    """Yield lines and how long they are with their ends; of one that is too long only its beginning.

    One of no length says that the next one is still to come: what is there should not wait for it.
    """
    rest, passed = b"", 0
    while True:
        if text.waits():
            yield b"", 0
        if not (found := text.read()):
            break
        first, *others = found.split(b"\n")
        if len(rest) <= _TEXT_BYTES_MAX:
            rest += first
        passed += len(first)
        if not others:
            continue
        yield rest, passed + 1
        *whole, rest = others
        for line in whole:
            yield line, len(line) + 1
        passed = len(rest)
    if passed:
        yield rest, passed


def _item_batches(text: Text, mark: Mark) -> Iterator[Batch]:
    gathering = _Gathering("item", lines=False, start=mark)
    number = mark.number
    if not number:
        _pass_over_mark(text)
    end = mark
    for item in items(text, first=not number):
        number += 1
        if gathering.is_full_for(len(item.raw)):
            yield gathering.close(end)
        if item.code:
            gathering.refuse(number, item.code, item.message)
        else:
            gathering.add(number, item.raw)
        end = Mark(offset=item.end_offset, number=number)
    if gathering:
        yield gathering.close(end)


def _object(text: Text, name: str) -> Batch:
    """Read the one event of a document over several lines."""
    _pass_over_mark(text)
    whole = b""
    while len(whole) <= _TEXT_BYTES_MAX and (found := text.read()):
        whole += found
    gathering = _Gathering("item", lines=False, start=START)
    raw = whole.strip(_SPACE)
    if len(raw) > EVENT_BYTES_MAX:
        gathering.refuse(1, *_too_large(len(raw)))
    else:
        try:
            msgspec.json.decode(raw, type=msgspec.Raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigurationError(
                f"{name} is neither NDJSON nor one JSON document ({error}); of several objects jq makes lines: jq -c . {name}"
                " | toolledger send -"
            ) from None
        gathering.add(1, raw)
    return gathering.close(Mark(offset=text.offset, number=1))


def _pass_over_mark(text: Text) -> None:
    head = text.read()
    while len(head) < len(_BOM) and (found := text.read()):
        head += found
    text.unread(head.removeprefix(_BOM))


def _too_large(size: int) -> tuple[str, str]:
    return "event_too_large", f"the event has about {size} bytes; at most {EVENT_BYTES_MAX} are taken"
