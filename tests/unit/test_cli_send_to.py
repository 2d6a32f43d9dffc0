"""How `toolledger send` keeps at a server that does not take all at once, on a real HTTP server with scripted answers."""

import email.utils
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from deploy.api import Api
from deploy.cli.send_input import START, Batch, Refusal
from deploy.cli.send_to import HttpSender
from ingest.contract.errors import ConfigurationError, LedgerError

Scripted = tuple[int, dict[str, str], object]
TAKEN: Scripted = (202, {}, {"accepted": 2, "ids": ["a", "b"], "rejected": []})
ERROR = {"error": {"message": "no", "slug": "X", "suggested_fix": "Wait"}}


class Server:
    """Answers one script after the other, the last for ever; keeps what it was asked and when."""

    def __init__(self) -> None:
        self.script: list[Scripted | Callable[[bytes], Scripted]] = []
        self.asked: list[tuple[float, str, bytes]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                server.asked.append((time.monotonic(), self.headers["idempotency-key"], body))
                step = server.script.pop(0) if len(server.script) > 1 else server.script[0]
                status, headers, said = step(body) if callable(step) else step
                content = json.dumps(said).encode()
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def batch(*raws: bytes) -> Batch:
    return Batch(kind="line", numbers=tuple(range(11, 11 + len(raws))), raws=raws, lines=True, start=START, end=START)


def send(server: Server, *raws: bytes, patience_s: float = 30) -> list[Refusal]:
    sender = HttpSender(lambda: Api(server.url, "ak_x"), patience_s=patience_s)
    try:
        return sender.submit(batch(*raws), "key").result()
    finally:
        sender.close()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_it_waits_for_what_passes_and_asks_the_same_again(server: Server, status: int) -> None:
    """The same body under the same key, so that ids of events without one are the same."""
    server.script = [(status, {"retry-after": "0"}, ERROR), (status, {}, ERROR), TAKEN]
    assert send(server, b"{}", b"{}") == []
    assert len({(key, body) for _, key, body in server.asked}) == 1
    assert len(server.asked) == 3


@pytest.mark.parametrize("how", ["seconds", "date"])
def test_it_comes_back_when_it_is_asked_to(server: Server, how: str) -> None:
    """Not sooner, in either spelling of `Retry-After`."""
    asked = "2" if how == "seconds" else email.utils.formatdate(time.time() + 3, usegmt=True)
    server.script = [(503, {"retry-after": asked}, ERROR), TAKEN]
    send(server, b"{}")
    first, second = (at for at, _, _ in server.asked)
    assert second - first > 1


def test_patience_ends_with_the_servers_own_words(server: Server) -> None:
    server.script = [(503, {"retry-after": "3600"}, ERROR)]
    with pytest.raises(LedgerError, match="no: Wait"):
        send(server, b"{}")
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 415])
def test_what_will_not_pass_is_not_tried_again(server: Server, status: int) -> None:
    server.script = [(status, {}, ERROR)]
    with pytest.raises(LedgerError, match="no: Wait"):
        send(server, b"{}")
    assert len(server.asked) == 1


def test_a_server_that_never_answered_is_not_waited_for(server: Server) -> None:
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(ConfigurationError, match="start it with `toolledger up`"):
        send(server, b"{}")


@pytest.mark.parametrize("status", [202, 400])
def test_what_was_refused_has_its_place_in_the_file(server: Server, status: int) -> None:
    rejected = [{"index": 1, "code": "missing_member", "message": "no status"}]
    server.script = [(status, {}, {**ERROR, "rejected": rejected})]
    assert send(server, b"{}", b"{}") == [Refusal(number=12, code="missing_member", message="no status")]


def test_a_batch_that_is_too_large_for_that_server_goes_in_parts(server: Server) -> None:
    """Down to single events; one that is too large alone is refused."""

    def limited(body: bytes) -> Scripted:
        lines = body.split(b"\n")
        if len(lines) > 2 or b"large" in body:
            return 413, {}, ERROR
        return 202, {}, {"accepted": len(lines), "ids": [], "rejected": []}

    server.script = [limited]
    assert send(server, b"1", b"2", b"3", b"large", b"5") == [Refusal(number=14, code="event_too_large", message="no: Wait")]
    taken = [body for _, _, body in server.asked if b"large" not in body and body.count(b"\n") < 2]
    assert b"\n".join(taken).split(b"\n") == [b"1", b"2", b"3", b"5"]
    assert len({key for _, key, _ in server.asked}) == len(server.asked)


def test_once_it_is_given_up_nothing_is_tried_again(server: Server) -> None:
    """Also what waits at that moment."""
    server.script = [(503, {"retry-after": "20"}, ERROR)]
    sender = HttpSender(lambda: Api(server.url, "ak_x"), patience_s=60)
    answer = sender.submit(batch(b"{}"), "key")
    while not server.asked:
        time.sleep(0.01)  # another thread's socket sets no event here
    sender.hurry()
    with pytest.raises((LedgerError, CancelledError)):
        answer.result(10)
    sender.close()
    assert len(server.asked) == 1
