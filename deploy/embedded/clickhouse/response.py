"""One result on its way to the client: when the head goes out, and how an error is told before and after that."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from typing import Any, Final

from deploy.embedded.clickhouse.body import Spool
from deploy.embedded.clickhouse.channel import Outcome, ResultChannel
from deploy.embedded.clickhouse.errors import ClickHouseError

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# A result smaller than this is held until the statement ended, so that an error still gets its own status and the
# summary its numbers. Source: ClickHouse's http_response_buffer_size of 1 MiB.
HOLD_BYTES: Final = 1 << 20

# A statement that gives rows slowly is not held longer than this: who streams wants to see them.
HOLD_SECONDS: Final = 0.1

# Content types of formats. Source: ClickHouse, IOutputFormat::getContentType of each format.
_CONTENT_TYPES: Final = {
    "json": "application/json; charset=UTF-8",
    "jsoncompact": "application/json; charset=UTF-8",
    "jsonstrings": "application/json; charset=UTF-8",
    "jsoncompactstrings": "application/json; charset=UTF-8",
    "jsoncolumns": "application/json; charset=UTF-8",
    "jsoncompactcolumns": "application/json; charset=UTF-8",
    "jsoncolumnswithmetadata": "application/json; charset=UTF-8",
    "jsonobjecteachrow": "application/json; charset=UTF-8",
    "jsoneachrow": "application/x-ndjson; charset=UTF-8",
    "jsonlines": "application/x-ndjson; charset=UTF-8",
    "ndjson": "application/x-ndjson; charset=UTF-8",
    "jsoncompacteachrow": "application/x-ndjson; charset=UTF-8",
    "jsonstringseachrow": "application/x-ndjson; charset=UTF-8",
    "jsoneachrowwithprogress": "application/x-ndjson; charset=UTF-8",
    "csv": "text/csv; charset=UTF-8; header=absent",
    "csvwithnames": "text/csv; charset=UTF-8; header=present",
    "csvwithnamesandtypes": "text/csv; charset=UTF-8; header=present",
    "xml": "application/xml; charset=UTF-8",
    "markdown": "text/markdown; charset=UTF-8",
    "prometheus": "text/plain; version=0.0.4; charset=UTF-8",
    "tabseparated": "text/tab-separated-values; charset=UTF-8",
    "tsv": "text/tab-separated-values; charset=UTF-8",
    "tabseparatedraw": "text/tab-separated-values; charset=UTF-8",
    "tsvraw": "text/tab-separated-values; charset=UTF-8",
    "tabseparatedwithnames": "text/tab-separated-values; charset=UTF-8",
    "tsvwithnames": "text/tab-separated-values; charset=UTF-8",
    "tabseparatedwithnamesandtypes": "text/tab-separated-values; charset=UTF-8",
    "tsvwithnamesandtypes": "text/tab-separated-values; charset=UTF-8",
    "native": "application/octet-stream",
    "rowbinary": "application/octet-stream",
    "rowbinarywithnames": "application/octet-stream",
    "rowbinarywithnamesandtypes": "application/octet-stream",
    "arrow": "application/octet-stream",
    "arrowstream": "application/octet-stream",
    "parquet": "application/octet-stream",
    "orc": "application/octet-stream",
    "avro": "application/octet-stream",
    "msgpack": "application/octet-stream",
    "protobuf": "application/octet-stream",
    "npy": "application/octet-stream",
    "bsoneachrow": "application/octet-stream",
}
_PLAIN_TEXT: Final = "text/plain; charset=UTF-8"


def summary(outcome: Outcome) -> str:
    """The JSON of the `X-ClickHouse-Summary` header: numbers as strings, as ClickHouse writes them."""
    counted = outcome.statistics
    return json.dumps(
        {
            "read_rows": str(counted.read_rows),
            "read_bytes": str(counted.read_bytes),
            "written_rows": str(counted.written_rows),
            "written_bytes": str(counted.written_bytes),
            "total_rows_to_read": "0",
            "result_rows": str(counted.result_rows or counted.written_rows),
            "result_bytes": str(counted.result_bytes or counted.written_bytes),
            "elapsed_ns": str(outcome.elapsed_ns),
        },
        separators=(",", ":"),
    )


class Response:
    """The answer to one statement.

    Args:
        send: the ASGI send.
        query_id: id of the statement.
        version, timezone, display_name: of the server.
        cors: whether to allow any origin.
        head_only: a HEAD request: everything but the body.
    """

    def __init__(
        self, *, send: Send, query_id: str, version: str, timezone: str, display_name: str, cors: bool, head_only: bool
    ) -> None:
        self._send = send
        self._version = version
        self._head_only = head_only
        self._tag = secrets.token_hex(8)
        self._headers = {
            "Date": formatdate(usegmt=True),
            "X-ClickHouse-Server-Display-Name": display_name,
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Timezone": timezone,
            "X-ClickHouse-Exception-Tag": self._tag,
        }
        if cors:
            self._headers["Access-Control-Allow-Origin"] = "*"
        self.started = False

    async def stream(self, channel: ResultChannel, ended: Callable[[], None]) -> None:
        """Send a result as it comes; the head waits for `HOLD_BYTES`, `HOLD_SECONDS` or the end.

        `ended` is called when the statement has ended and the client does not know it yet.
        """
        loop = asyncio.get_running_loop()
        held: list[bytes] = []
        held_bytes = 0
        deadline: float | None = None
        timer: asyncio.TimerHandle | None = None
        try:
            while True:
                outcome = channel.outcome  # read before the chunks: once it is there, no chunk comes after it
                held += channel.take()
                held_bytes = sum(map(len, held))
                if outcome is not None:
                    ended()
                    await self._finish(channel, outcome, b"".join(held))
                    return
                if held and deadline is None:
                    deadline = loop.time() + HOLD_SECONDS
                    timer = loop.call_later(HOLD_SECONDS, channel.wake)
                if self.started or held_bytes >= HOLD_BYTES or (deadline is not None and loop.time() >= deadline):
                    await self._start(channel, None)
                    await self._body(b"".join(held), more=True)
                    held = []
                await channel.changed()
        finally:
            if timer is not None:
                timer.cancel()

    async def buffered(self, channel: ResultChannel, spool: Spool, ended: Callable[[], None]) -> None:
        """Send a result only when it is whole (`wait_end_of_query=1`): an error then always has its own status."""
        while True:
            outcome = channel.outcome
            for chunk in channel.take():
                spool.write(chunk)
            if outcome is not None:
                break
            await channel.changed()
        ended()
        if outcome.error is not None:
            await self.fail(outcome.error)
            return
        self._headers["Content-Length"] = str(spool.size)
        await self._start(channel, outcome)
        offset = 0
        while offset < spool.size:
            piece = spool.read(HOLD_BYTES, offset)
            offset += len(piece)
            await self._body(piece, more=True)
        await self._body(b"", more=False)

    async def fail(self, error: ClickHouseError) -> None:
        """Answer with an error; nothing has been sent yet."""
        content = error.text(self._version).encode("utf-8", errors="replace")
        self._headers["X-ClickHouse-Exception-Code"] = str(error.code)
        self._headers["Content-Type"] = _PLAIN_TEXT
        self._headers["Content-Length"] = str(len(content))
        if error.http_status == 401:
            self._headers["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
        await self._head(error.http_status)
        await self._body(content, more=False)

    async def _finish(self, channel: ResultChannel, outcome: Outcome, rest: bytes) -> None:
        if outcome.error is None:
            if not self.started:
                self._headers["Content-Length"] = str(len(rest))
            await self._start(channel, outcome)
            await self._body(rest, more=False)
        elif not self.started:
            await self.fail(outcome.error)
        else:
            block = self._exception_block(outcome.error)
            if channel.encoder is not None:
                block = channel.encoder.encode(block) + channel.encoder.flush()
            await self._body(rest + block, more=False)

    def _exception_block(self, error: ClickHouseError) -> bytes:
        """An error behind rows that are on their way, between markers that carry the tag from the head.

        Source: ClickHouse 25.11 and later, WriteBufferFromHTTPServerResponse; what clickhouse-connect looks for.
        """
        message = error.text(self._version).encode("utf-8", errors="replace")
        tag = self._tag.encode()
        return b"\r\n__exception__\r\n%b\r\n%b%d %b\r\n__exception__\r\n" % (tag, message, len(message), tag)

    async def _start(self, channel: ResultChannel, outcome: Outcome | None) -> None:
        if self.started:
            return
        if channel.output_format is not None:
            self._headers["X-ClickHouse-Format"] = channel.output_format
            self._headers["Content-Type"] = _CONTENT_TYPES.get(channel.output_format.lower(), _PLAIN_TEXT)
        else:
            self._headers["Content-Type"] = _PLAIN_TEXT
        if channel.content_encoding:
            self._headers["Content-Encoding"] = channel.content_encoding
        self._headers["X-ClickHouse-Summary"] = summary(outcome or Outcome())
        await self._head(200)

    async def _head(self, status: int) -> None:
        self.started = True
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(name.encode(), value.encode("latin-1", "replace")) for name, value in self._headers.items()],
            }
        )

    async def _body(self, content: bytes, *, more: bool) -> None:
        if content or not more:
            await self._send({"type": "http.response.body", "body": b"" if self._head_only else content, "more_body": more})
