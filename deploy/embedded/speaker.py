"""Say lines to people without ever waiting for them: a terminal that is held (Ctrl-S), a pager or a pipe nobody reads must not
hold up whoever speaks. What was not taken is left out and counted."""

import contextlib
import queue
import threading
from typing import Final, TextIO

# What waits for a reader that takes nothing; a start says some ten lines.
_LINES_MAX: Final = 500
# At the end, a reader that does read has taken all by then.
_CLOSE_S: Final = 2.0


class Speaker:
    """Writes lines to a stream in a thread of its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(_LINES_MAX)
        self._left_out = 0
        # A daemon: blocked in a write that nobody takes, it must not keep the process alive.
        self._thread = threading.Thread(target=self._write, name="speaker", daemon=True)
        self._thread.start()

    def say(self, line: str) -> None:
        """Say a line, unless as many wait to be read as may; from one thread."""
        if self._left_out:
            line = f"({self._left_out} lines were left out, for nobody read them; the log files have them)\n{line}"
        try:
            self._lines.put_nowait(line)
            self._left_out = 0
        except queue.Full:
            self._left_out += 1

    def close(self) -> None:
        """Wait for a moment until all is said."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=_CLOSE_S)
        self._thread.join(_CLOSE_S)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            # A terminal that was closed must not keep the parts from being stopped.
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(line + "\n")
                self._stream.flush()
