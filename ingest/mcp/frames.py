"""Frames: what the pump tells the recorder of the traffic, over a pipe, with the time at which it happened. Pure.

A frame belongs to a stream: over stdio there is one, over HTTP each exchange (a request and its answer) is one.
"""

import struct
import time
from collections.abc import Iterator
from enum import IntEnum
from typing import BinaryIO, Final, NamedTuple

# kind, stream, epoch ms, monotonic clock ns, bytes that follow
_HEAD: Final = struct.Struct("<BQQQI")


class Kind(IntEnum):
    """What a frame says."""

    SETUP = 1  # JSON: `setup.Setup`
    CLIENT = 2  # bytes of the client
    SERVER = 3  # bytes of the server
    REQUEST = 4  # JSON: `heads.RequestHead`
    ANSWER = 5  # JSON: `heads.AnswerHead`
    CLIENT_END = 6  # the client has sent all
    SERVER_END = 7  # JSON: `endings.Ending`, or nothing where the answer is whole
    LOST = 8  # before this, bytes of the stream were not copied: the queue was full
    END = 9  # JSON: `endings.Ending`; nothing follows


class Moment(NamedTuple):
    """When something happened: for the log, and for durations."""

    epoch_ms: int
    clock_ns: int

    def ms_since(self, earlier: "Moment") -> float:
        return max(0.0, (self.clock_ns - earlier.clock_ns) / 1e6)


class Frame(NamedTuple):
    kind: Kind
    stream: int
    at: Moment
    payload: bytes


def now() -> Moment:
    """Return the present moment."""
    return Moment(time.time_ns() // 1_000_000, time.monotonic_ns())


def encode(frame: Frame) -> bytes:
    """Return a frame as it goes through the pipe."""
    return _HEAD.pack(frame.kind, frame.stream, *frame.at, len(frame.payload)) + frame.payload


def read(source: BinaryIO) -> Iterator[Frame]:
    """Yield frames until the pipe ends; one that is not whole, because its writer was killed, is left out."""
    while len(head := source.read(_HEAD.size)) == _HEAD.size:
        kind, stream, epoch_ms, clock_ns, size = _HEAD.unpack(head)
        payload = source.read(size)
        if len(payload) < size:
            return
        yield Frame(Kind(kind), stream, Moment(epoch_ms, clock_ns), payload)
