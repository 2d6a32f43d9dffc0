"""Lines out of pieces: what is split anywhere comes out whole, and a line that is too long costs no memory. Pure."""

from typing import Final, NamedTuple

# Images and files come as one line of base64; decoding one of this size takes some 100 ms and twice its memory.
LINE_BYTES_MAX: Final = 32 * 1024 * 1024
# Of a longer line: its beginning and its end, where ids stand.
HEAD_BYTES: Final = 64 * 1024
TAIL_BYTES: Final = 4 * 1024


class TooLong(NamedTuple):
    """A line of which only the ends were kept."""

    head: bytes
    tail: bytes
    size: int


Line = bytes | TooLong


class Gathering:
    """Puts the pieces of one line, or of one body, together."""

    def __init__(self, *, bytes_max: int = LINE_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._begin()

    def _begin(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._head = b""
        self._tail = b""

    def add(self, part: bytes) -> None:
        """Take the next piece."""
        if not part:
            return
        self._size += len(part)
        if self._size <= self._bytes_max:
            self._parts.append(part)
            return
        if self._parts:
            whole = b"".join(self._parts)
            self._head, self._tail = whole[:HEAD_BYTES], whole[-TAIL_BYTES:]
            self._parts = []
        if len(self._head) < HEAD_BYTES:
            self._head += part[: HEAD_BYTES - len(self._head)]
        self._tail = (self._tail + part[-TAIL_BYTES:])[-TAIL_BYTES:]

    def take(self) -> Line | None:
        """Return the whole, none where there is nothing, and begin anew."""
        line: Line | None = None
        if self._size > self._bytes_max:
            line = TooLong(self._head, self._tail, self._size)
        elif self._size:
            line = b"".join(self._parts)
        self._begin()
        return line


class Lines:
    """Puts the lines of one direction together."""

    def __init__(self, *, bytes_max: int = LINE_BYTES_MAX) -> None:
        self._line = Gathering(bytes_max=bytes_max)
        # After a loss the rest of the line says nothing.
        self._skipping = False

    def feed(self, data: bytes) -> list[Line]:
        """Take the next piece; return the lines that end in it, without their ends and without empty ones."""
        return [line for line in self.feed_all(data) if line is not None]

    def feed_all(self, data: bytes) -> list[Line | None]:
        """Take the next piece; return the lines that end in it, None for each empty one."""
        first, *rest = data.split(b"\n")
        self._add(first)
        found: list[Line | None] = []
        for part in rest:
            found.append(self.rest())
            self._add(part)
        return found

    def lost(self) -> None:
        """Forget the line that is being read: bytes of it are missing."""
        self._line.take()
        self._skipping = True

    def rest(self) -> Line | None:
        """Return what stands behind the last line end, once nothing more will come."""
        self._skipping = False
        return self._line.take()

    def _add(self, part: bytes) -> None:
        if not self._skipping:
            self._line.add(part)
