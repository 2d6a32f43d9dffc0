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


class Lines:
    """Puts the lines of one direction together."""

    def __init__(self, *, bytes_max: int = LINE_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._begin()
        # After a loss the rest of the line says nothing.
        self._skipping = False

    def _begin(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._head = b""
        self._tail = b""

    def feed(self, data: bytes) -> list[Line]:
        """Take the next piece; return the lines that end in it, without their ends."""
        first, *rest = data.split(b"\n")
        self._add(first)
        if not rest:
            return []
        found = [self._end()]
        for part in rest[:-1]:
            self._add(part)
            found.append(self._end())
        self._add(rest[-1])
        return [line for line in found if line is not None]

    def lost(self) -> None:
        """Forget the line that is being read: bytes of it are missing."""
        self._begin()
        self._skipping = True

    def rest(self) -> Line | None:
        """Return what stands behind the last line end, once nothing more will come."""
        return self._end()

    def _add(self, part: bytes) -> None:
        if self._skipping or not part:
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

    def _end(self) -> Line | None:
        line: Line | None = b"".join(self._parts)
        if self._size > self._bytes_max:
            line = TooLong(self._head, self._tail, self._size)
        if self._skipping or not self._size:
            line = None
        self._skipping = False
        self._begin()
        return line
