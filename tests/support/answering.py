"""An HTTP server that takes events as `POST /v1/events` does and answers as a test tells it to."""

import gzip
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import zstandard

from tests.support.process import eventually


@dataclass(frozen=True, slots=True, kw_only=True)
class Says:
    """One answer; by default all events are accepted."""

    status: int = 202
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0


Script = Callable[[list[dict[str, Any]]], Says]


def accepts(_: list[dict[str, Any]]) -> Says:
    """Take everything."""
    return Says()


class Answering:
    """A context manager; `script` decides each answer from the events of a request."""

    def __init__(self, script: Script = accepts, *, port: int = 0) -> None:
        self.script = script
        # (time, events) of each request, and of those accepted the events.
        self.requests: list[tuple[float, list[dict[str, Any]]]] = []
        self.accepted: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                """Clients of tests break off."""

        self._server = Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def ids(self) -> list[str]:
        """Ids of accepted events, as often as they came."""
        return [event["id"] for event in self.accepted]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers["content-length"]))
        self.bodies.append(raw)
        encoding = handler.headers.get("content-encoding")
        if encoding == "gzip":
            raw = gzip.decompress(raw)
        elif encoding == "zstd":
            raw = zstandard.ZstdDecompressor().decompress(raw, max_output_size=1 << 28)
        events = [json.loads(line) for line in raw.splitlines()]
        self.headers.append(dict(handler.headers))
        self.requests.append((time.monotonic(), events))
        says = self.script(events)
        if says.delay_s:
            time.sleep(says.delay_s)
        rejected = len((says.body or {}).get("rejected", [])) if isinstance(says.body, dict) else 0
        if says.status == 202:
            self.accepted.extend(events)
        body = {"accepted": len(events) - rejected, "ids": [], "rejected": []} if says.body is None else says.body
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(says.status)
        for name, value in {"content-length": str(len(sent)), **says.headers}.items():
            handler.send_header(name, value)
        # In one piece: in two, each answer would wait 40 ms for the client's acknowledgement of the first.
        headers: Any = handler
        headers._headers_buffer.append(b"\r\n" + sent)
        handler.flush_headers()

    def has(self, count: int, *, timeout_s: float = 20) -> None:
        """Wait until so many different events were accepted."""
        eventually(f"{count} events came", lambda: len(set(self.ids)) >= count, timeout_s=timeout_s)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
