"""The tap: copies of the traffic on their way to the recorder, without ever holding up the traffic."""

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from ingest.mcp.endings import Ending
from ingest.mcp.frames import Frame, Kind, encode, now
from ingest.mcp.setup import Setup

# Copies that wait for the recorder; beyond it the traffic goes on uncopied, and the recorder is told.
QUEUE_BYTES_MAX: Final = 128 * 1024 * 1024
# Above a frame's own bytes: what it costs in the queue.
_FRAME_BYTES: Final = 200


class Tap:
    """Gives frames to a recorder process from a thread of its own."""

    def __init__(self, setup: Setup, *, warn: Callable[[str], None], bytes_max: int = QUEUE_BYTES_MAX) -> None:
        """Start the recorder.

        Args:
            warn: is given lines for the user, from another thread.
        """
        self._warn = warn
        self._bytes_max = bytes_max
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._lost: set[int] = set()
        self._changed = threading.Condition()
        self._broken = False
        self._ended = False
        # -P: the folder we were started in is the user's, and may hold modules of any name.
        # In a session of its own: what ends the pump and its group must leave it the time to say so to the ledger.
        self._recorder = subprocess.Popen(
            [sys.executable, "-P", "-m", "ingest.mcp.recorder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # It must not hold the client's end of our standard error open.
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self.put(Kind.SETUP, msgspec.json.encode(setup))

    def start(self) -> None:
        """Begin to hand frames on; before this, processes may be started without a thread being in the way."""
        self._writer.start()
        self._reader.start()

    def put(self, kind: Kind, payload: bytes = b"", stream: int = 0) -> None:
        """Take a frame, now; never waits. Where there is no room, the stream's loss is told later."""
        frame = Frame(kind, stream, now(), payload)
        with self._changed:
            if self._broken:
                return
            data = kind in (Kind.CLIENT, Kind.SERVER)
            # Once a piece is lost the stream begins again only when there is room for some time.
            if data and self._bytes + len(payload) > self._bytes_max // (2 if stream in self._lost else 1):
                self._lost.add(stream)
                return
            for each in list(self._lost) if kind is Kind.END else [stream] if stream in self._lost else []:
                self._lost.discard(each)
                self._append(Frame(Kind.LOST, each, frame.at, b""))
            self._append(frame)

    def close(self, ending: Ending, timeout_s: float) -> None:
        """Tell the end, and wait a little for the recorder; what it has not sent by then it sends without us."""
        self.put(Kind.END, msgspec.json.encode(ending))
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._reader.ident is None:
            self.start()
        self._reader.join(timeout_s)

    def _append(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._bytes += len(frame.payload) + _FRAME_BYTES
        self._changed.notify()

    def _write(self) -> None:
        assert self._recorder.stdin is not None, "it was asked for"
        target = self._recorder.stdin.fileno()
        while True:
            with self._changed:
                while not self._frames and not self._ended:
                    self._changed.wait()
                if not self._frames:
                    break
                frame = self._frames.popleft()
                self._bytes -= len(frame.payload) + _FRAME_BYTES
            try:
                rest = memoryview(encode(frame))
                while rest:
                    rest = rest[os.write(target, rest) :]
            except OSError:
                self._give_up()
                break
        self._recorder.stdin.close()

    def _give_up(self) -> None:
        with self._changed:
            self._broken = True
            self._frames.clear()
            self._bytes = 0
        self._warn("recording has stopped; the traffic goes on without it")

    def _read(self) -> None:
        assert self._recorder.stdout is not None, "it was asked for"
        for line in self._recorder.stdout:
            self._warn(line.decode(errors="replace").rstrip())
