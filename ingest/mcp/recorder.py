"""The recorder's process: reads frames, makes calls of them, and sends these to the ledger.

It ends by itself once nothing more can come. Signals that end the pump, and its whole group, do not end it.
"""

import secrets
import signal
import sys
from collections.abc import Iterator
from typing import Final

import msgspec

from ingest.mcp.call import Call
from ingest.mcp.endings import KILLED, Ending
from ingest.mcp.events import event_of
from ingest.mcp.exchanges import Exchanges
from ingest.mcp.frames import Frame, Kind, now, read
from ingest.mcp.setup import Setup
from ingest.mcp.sink import HttpSink, Sink
from ingest.mcp.traffic import Pipes, Traffic

# How long it goes on, once all has been said, for a ledger that does not answer.
_CLOSE_S: Final = 10.0
_ID_BYTES: Final = 9


def main() -> int:
    """Record what comes on standard input; say on standard output, in lines, what the user should know."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    frames = read(sys.stdin.buffer)
    first = next(frames, None)
    if first is None:
        return 0
    setup = msgspec.json.decode(first.payload, type=Setup)
    sink: Sink = HttpSink(setup.url, setup.api_key)
    traffic: Traffic = Exchanges() if setup.transport == "http" else Pipes()
    for call in calls(frames, traffic):
        sink.record(event_of(call, setup, id_=f"log_{secrets.token_urlsafe(_ID_BYTES)}"))
    unsent = sink.close(_CLOSE_S)
    _say(unsent, traffic.missed)
    return 0


def calls(frames: Iterator[Frame], traffic: Traffic) -> Iterator[Call]:
    """Yield every call once it has ended; at the latest when the frames end, with or without a last one that says why."""
    ending, at = KILLED, None
    for frame in frames:
        if frame.kind is Kind.END:
            ending, at = msgspec.json.decode(frame.payload, type=Ending), frame.at
            break
        yield from traffic.take(frame)
    yield from traffic.end(ending, at or now())


def _say(unsent: int, missed: int) -> None:
    try:
        if unsent:
            print(f"{unsent} recorded calls could not be sent to the ledger", flush=True)
        if missed:
            print(f"at least {missed} calls were not recorded: there was more traffic than could be read", flush=True)
    except BrokenPipeError:
        # The pump is gone, and nobody is there to be told.
        sys.stdout = None


if __name__ == "__main__":
    sys.exit(main())
