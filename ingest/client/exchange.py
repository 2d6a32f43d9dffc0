"""One request with a batch, and what its answer means."""

import time
from typing import Final

from ingest.client.batches import compression, worth_compressing
from ingest.client.connection import Connection, ServiceUnavailable
from ingest.client.diagnostics import logger
from ingest.client.judging import Outcome, TryAgain, judge
from ingest.client.options import Options
from ingest.client.version import user_agent

_PATH: Final = "/v1/events"


class Exchange:
    """Requests over one kept connection; for one thread at a time."""

    def __init__(self, options: Options) -> None:
        self._key = options.api_key or ""
        self._connection = Connection(options.base_url, timeout_s=options.timeout_s)
        self._encoding, self._compress = compression()
        # Whether the last request found nobody, or nobody who answered.
        self.unreachable = False

    def send(self, ndjson: bytes, events: int) -> Outcome:
        """Send a batch, compressed where that is worth it."""
        if not worth_compressing(ndjson):
            return self._send(ndjson, "", events)
        return self._send(self._compress(ndjson), self._encoding, events)

    def send_packed(self, gzipped: bytes, events: int) -> Outcome:
        """Send a batch that is gzip already."""
        return self._send(gzipped, "gzip", events)

    def abort(self) -> None:
        """From another thread: break off what is going on."""
        self._connection.abort()

    def forget(self) -> None:
        """In a forked child: let go of the parent's connection."""
        self._connection.forget()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _send(self, body: bytes, encoding: str, events: int) -> Outcome:
        headers = {
            "x-api-key": self._key,
            "content-type": "application/x-ndjson",
            "accept": "application/json",
            "user-agent": user_agent(),
        }
        if encoding:
            headers["content-encoding"] = encoding
        began_s = time.monotonic()
        try:
            answer = self._connection.request("POST", _PATH, headers, body)
        except ServiceUnavailable as error:
            self.unreachable = True
            return TryAgain(why=str(error))
        self.unreachable = False
        if answer.status == 415 and encoding == "zstd":
            # A proxy before the server that knows only what everybody knows.
            self._encoding, self._compress = compression(zstd=False)
            return TryAgain(why="it does not take zstd")
        took_ms = (time.monotonic() - began_s) * 1000
        logger.debug("sent %d calls in %d bytes: %d after %.0f ms", events, len(body), answer.status, took_ms)
        return judge(answer, events=events, now_s=time.time())
