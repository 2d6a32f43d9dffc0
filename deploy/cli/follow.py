"""Follow the live tail over HTTP: each log once, through dropped connections and restarts."""

import io
import json
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import click

from deploy.api import ANOTHER, Api, BrokenOffError
from ingest.contract.errors import ConfigurationError, LedgerError, QueryError

T = TypeVar("T")

STREAM: Final = "/v1/logs/stream"
_PAUSE_S: Final = 1.0
_PAUSE_S_MAX: Final = 10.0
_PATIENCE_S: Final = 60.0
_LINE_BYTES_MAX: Final = 8 * 1024 * 1024
# The service is being started again, or has too much to do.
_PASSING: Final = (429, 502, 503, 504)


def follow(api: Api, asked: Mapping[str, object]) -> Iterator[dict[str, Any] | None]:
    """Yield logs as they come; None once, as soon as nothing that comes will be missed.

    A connection that breaks is made again, from the last log on; standard error says so.

    Raises:
        LedgerError: the service is not there at the beginning, or refuses.
        BrokenPipeError: whoever reads standard output has gone.
    """
    place, failures, began = "", 0, False
    unread = _watched(api)
    while True:
        try:
            for found, log in _events(api, asked, place):
                if failures:
                    click.echo("following again, nothing was missed", err=True)
                place, failures = found or place, 0
                if not began:
                    began = True
                    yield None
                if log is not None:
                    yield log
            reason = "the service ended it"
        except BrokenOffError as error:
            if not began and not unread.is_set():
                raise LedgerError(f"no answer from {api.url} ({error}): start it with `toolledger up`") from None
            reason = str(error)
        except QueryError as error:
            if not began or error.status not in _PASSING:
                raise
            reason = error.message
        if unread.is_set():
            raise BrokenPipeError
        if not failures:
            click.echo(f"connection lost ({reason}); trying again", err=True)
        unread.wait(min(_PAUSE_S_MAX, _PAUSE_S * 2**failures))
        failures += 1


def _watched(api: Api) -> threading.Event:
    """Return what is set once nobody reads standard output any more; what is waited for at the service then ends too.

    It would be noticed at the next log otherwise, which may not come for hours.
    """
    unread = threading.Event()
    try:
        output = sys.stdout.fileno()
    except (OSError, io.UnsupportedOperation):
        return unread
    poll = select.poll()
    # Of a pipe's writing end it tells by itself that the other one is closed.
    poll.register(output, 0)

    def watch() -> None:
        poll.poll()
        unread.set()
        api.abort()

    threading.Thread(target=watch, daemon=True).start()
    return unread


def patiently(ask: Callable[[], T]) -> T:
    """Ask a question of a service that was there a moment ago, until it is there again.

    Raises:
        LedgerError: it stays away, or refuses.
    """
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return ask()
        except (QueryError, ConfigurationError) as error:
            passing = isinstance(error, ConfigurationError) or error.status in _PASSING
            if not passing or time.monotonic() > deadline_s:
                raise
        time.sleep(_PAUSE_S)


def _events(api: Api, asked: Mapping[str, object], place: str) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Yield the place and the log of each event of one connection; events without a log have a place alone."""
    with api.open(STREAM, asked, {"last-event-id": place} if place else {}) as answer:
        if answer.headers.get_content_type() != "text/event-stream":
            raise LedgerError(f"the answer of {api.url} is no event stream: {ANOTHER}")
        found, data = "", b""
        while raw := answer.line(_LINE_BYTES_MAX):
            text = raw.rstrip(b"\r\n")
            if text.startswith(b"id:"):
                found = text[3:].strip().decode()
            elif text.startswith(b"data:"):
                data = text[5:]
            elif not text and (found or data):
                yield found, json.loads(data) if data else None
                found, data = "", b""
