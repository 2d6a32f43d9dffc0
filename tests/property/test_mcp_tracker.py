"""Whatever goes over the pipes in whatever pieces: each tool call is recorded once, with what became of it."""

import io
import json

from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.event import decode_event
from ingest.mcp.endings import server_exited
from ingest.mcp.events import event_of
from ingest.mcp.frames import Frame, Kind, Moment, encode, read
from ingest.mcp.lines import Lines, TooLong
from ingest.mcp.recorder import calls
from ingest.mcp.setup import Setup
from ingest.mcp.traffic import Pipes
from tests.support.mcp_history import RUBBISH, History, Planned, histories

SETUP = Setup(url="", api_key="", transport="stdio", fallback="some-server", run_id="run")
EXPECTED_KIND = {
    "result": None,
    "tool_error": "tool_error",
    "error": None,
    "cancelled": "cancelled",
    "cancelled_then_answered": "cancelled",
    "nothing": "server_exited",
}


def expected(call: Planned) -> tuple[str, str | None, object, object]:
    """Status, error type, request and response of a planned call."""
    response: object = call.answer
    if call.fate == "error":
        response = {"error": {"code": -32602, "message": "no such"}}
    elif call.fate not in ("result", "tool_error"):
        response = None
    return "success" if call.fate == "result" else "failed", EXPECTED_KIND[call.fate], call.arguments, response


@given(histories())
def test_each_call_is_recorded_once_with_its_fate(history: History) -> None:
    """Interleaved, batched, cut anywhere, with rubbish between: one event a call, and every event is one that ingest takes."""
    end = Frame(Kind.END, 0, Moment(9_999, 10**9), b'{"why":"server_exited","message":"gone"}')
    found = {}
    ended = list(calls(iter([*history.frames(), end]), Pipes()))
    for call in ended:
        event = event_of(call, SETUP, id_="log_1")
        decode_event(event)
        read_back = json.loads(event)
        assert read_back["tool_slug"] == "SOME_SERVER_SOME_TOOL"
        found[call.request_id] = (
            read_back["status"],
            read_back.get("error", {}).get("type"),
            read_back["data"].get("request"),
            read_back["data"].get("response"),
        )
    assert len(ended) == len(found)
    # The server's answer to a call that is not yet asked cannot be: an order within each call is kept by the history.
    assert found == {call.id_: expected(call) for call in history.calls}


@given(histories())
def test_a_pump_that_was_killed_leaves_no_call_out(history: History) -> None:
    """The pipe to the recorder ends anywhere: every call whose request came through is recorded, once."""
    stream = b"".join(encode(frame) for frame in history.frames())
    for cut in {len(stream), len(stream) // 2, max(0, len(stream) - 1)}:
        frames = list(read(io.BytesIO(stream[:cut])))
        asked = [call for call in history.calls if _asked(call, frames)]
        ended = list(calls(iter(frames), Pipes()))
        assert sorted(repr(call.request_id) for call in ended) == sorted(repr(call.id_) for call in asked)


def test_a_last_request_without_its_line_end_is_a_request() -> None:
    """The client closes its side behind it, and then the answer comes."""
    asked = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}'
    answered = b'{"jsonrpc":"2.0","id":1,"result":{"content":[]}}\n'
    said = ((Kind.CLIENT, asked), (Kind.CLIENT_END, b""), (Kind.SERVER, answered))
    (call,) = calls((Frame(kind, 0, Moment(0, 0), payload) for kind, payload in said), Pipes())
    assert (call.fault, call.response) == (None, b'{"content":[]}')


def _asked(call: Planned, frames: list[Frame]) -> bool:
    said = b"".join(frame.payload for frame in frames if frame.kind is Kind.CLIENT)
    for line in said.split(b"\n"):
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            continue
        batch = message if isinstance(message, list) else [message]
        asked = [one for one in batch if isinstance(one, dict) and one.get("method") == "tools/call"]
        if any(type(one.get("id")) is type(call.id_) and one["id"] == call.id_ for one in asked):
            return True
    return False


@given(st.lists(st.binary(max_size=40) | st.sampled_from(RUBBISH), max_size=30), st.integers(1, 64))
def test_rubbish_is_read_as_nothing(pieces: list[bytes], bytes_max: int) -> None:
    """No bytes make the reader fail."""
    pipes = Pipes()
    lines = Lines(bytes_max=bytes_max)
    for at, piece in enumerate(pieces):
        for kind in (Kind.CLIENT, Kind.SERVER):
            assert pipes.take(Frame(kind, 0, Moment(at, at), piece)) == []
        lines.feed(piece)
    assert [call for call in pipes.end(server_exited(1), Moment(99, 99)) if call.tool == "some_tool"] == []


@given(st.lists(st.binary(max_size=20) | st.just(b"\n"), max_size=30), st.integers(1, 30))
def test_lines_are_those_of_the_whole(pieces: list[bytes], bytes_max: int) -> None:
    """Pieces or the whole, it is the same lines; of those that are too long the ends and the size."""
    lines = Lines(bytes_max=bytes_max)
    found = [line for piece in pieces for line in lines.feed(piece)]
    rest = lines.rest()
    wanted = [line for line in b"".join(pieces).split(b"\n") if line]
    got = [*found, *([] if rest is None else [rest])]
    assert [line.size if isinstance(line, TooLong) else len(line) for line in got] == [len(line) for line in wanted]
    for line, want in zip(got, wanted, strict=True):
        if isinstance(line, TooLong):
            assert len(want) > bytes_max
            assert want.startswith(line.head)
            assert want.endswith(line.tail)
        else:
            assert line == want
