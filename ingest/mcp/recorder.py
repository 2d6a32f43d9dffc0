"""The recorder's process: reads frames, makes calls of them, and sends these to the ledger.

It ends by itself once nothing more can come. Signals that end the pump, and its whole group, do not end it.
"""

import os
import secrets
import signal
import sys
from collections.abc import Iterator
from typing import Final

import msgspec

from ingest.client.counting import Counts
from ingest.client.delivery import Delivery
from ingest.client.options import Options, resolve
from ingest.client.redaction import redaction
from ingest.mcp.call import Call
from ingest.mcp.endings import KILLED, Ending
from ingest.mcp.events import event_of
from ingest.mcp.exchanges import Exchanges
from ingest.mcp.frames import Frame, Kind, now, read
from ingest.mcp.setup import Setup
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
    options = options_of(setup)
    delivery = Delivery(options, redaction(options))
    traffic: Traffic = Exchanges() if setup.transport == "http" else Pipes()
    for call in calls(frames, traffic):
        delivery.put(event_of(call, setup, id_=f"log_{secrets.token_urlsafe(_ID_BYTES)}", payloads=options.payloads))
    delivery.close(_CLOSE_S)
    _say(delivery.counts(), traffic.missed)
    return 0


def options_of(setup: Setup) -> Options:
    """Return the client's options: those of the run, else of the environment.

    Raises:
        ConfigurationError: one that cannot be used; says which.
    """
    return resolve(
        api_key=setup.api_key,
        base_url=setup.url,
        payloads=None,
        spool=None,
        spool_bytes_max=None,
        redact_patterns=None,
        redact_names=None,
        environment=os.environ,
    )


def calls(frames: Iterator[Frame], traffic: Traffic) -> Iterator[Call]:
    """Yield every call once it has ended; at the latest when the frames end, with or without a last one that says why."""
    ending, at = KILLED, None
    for frame in frames:
        if frame.kind is Kind.END:
            ending, at = msgspec.json.decode(frame.payload, type=Ending), frame.at
            break
        yield from traffic.take(frame)
    yield from traffic.end(ending, at or now())


def _say(counts: Counts, missed: int) -> None:
    try:
        if counts.spooled:
            print(f"{counts.spooled} calls wait on disk for the ledger; the next run sends them", flush=True)
        if counts.rejected or counts.dropped:
            print(f"{counts.rejected + counts.dropped} recorded calls were refused by the ledger, or lost", flush=True)
        if missed:
            print(f"at least {missed} calls were not recorded: there was more traffic than could be read", flush=True)
    except BrokenPipeError:
        # The pump is gone, and nobody is there to be told.
        sys.stdout = None


if __name__ == "__main__":
    sys.exit(main())
