"""Whatever goes over HTTP in whatever pieces: each tool call is recorded once, with what became of it."""

import gzip
import json
import zlib
from typing import Any, Literal

import msgspec
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ingest.mcp.bodies import EventStream
from ingest.mcp.endings import Ending
from ingest.mcp.exchanges import RESUMED_WITHIN_MS, Exchanges
from ingest.mcp.frames import Frame, Kind, Moment
from ingest.mcp.heads import answer_head, request_head
from ingest.mcp.recorder import calls

Fate = Literal["json", "events", "resumed", "refused", "broken", "client gone", "silent"]
FATES: tuple[Fate, ...] = ("json", "events", "resumed", "refused", "broken", "client gone", "silent")
KINDS: dict[Fate, str | None] = {
    **dict.fromkeys(("json", "events", "resumed"), None),
    "refused": "http_error",
    "broken": "connection_closed",
    "client gone": "client_gone",
    "silent": "interrupted",
}
CODERS = {
    "identity": lambda data: data,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}
END = msgspec.json.encode(Ending(why="interrupted", message="stopped"))
LINE_ENDS = ("\n", "\r\n", "\r")


def ended(why: str) -> bytes:
    return msgspec.json.encode({"why": why, "message": why})


def events(messages: list[dict[str, Any]], line_end: str, first_id: int | None) -> bytes:
    """An event stream; with ids where they are given, and a first event that has nothing but one."""
    blocks = [] if first_id is None else [[f"id: {first_id}", "data: "]]
    for number, message in enumerate(messages):
        id_ = [] if first_id is None else [f"id: {first_id + number + 1}"]
        blocks.append([": a comment", "event: message", *id_, f"data: {json.dumps(message)}", "retry: 10"])
    return "".join(line_end.join([*block, "", ""]) for block in blocks).encode()


@st.composite
def exchanges(draw: st.DrawFn, stream: int, fate: Fate) -> tuple[list[Frame], dict[str, Any]]:
    """The frames of one call, of a session or of none, and its request."""
    # Without a session each exchange is for itself, and ids may be the same.
    session = draw(st.sampled_from([None, "s1", "s2"]))
    id_ = stream if session else draw(st.integers(0, 2))
    request = {"jsonrpc": "2.0", "id": id_, "method": "tools/call", "params": {"name": f"tool_{stream}", "arguments": {}}}
    answer = {"jsonrpc": "2.0", "id": id_, "result": {"content": [], "structuredContent": {"of": stream}}}
    told = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "working"}}
    headers = [(b"mcp-protocol-version", b"2025-11-25"), *([(b"mcp-session-id", session.encode())] if session else [])]
    coding = draw(st.sampled_from(sorted(CODERS)))
    line_end = draw(st.sampled_from(LINE_ENDS))
    frames = [
        _frame(Kind.REQUEST, stream, request_head("POST", b"/mcp", headers)),
        *_cut(draw, Kind.CLIENT, stream, json.dumps(request, indent=draw(st.sampled_from([None, 1]))).encode()),
        _frame(Kind.CLIENT_END, stream),
    ]
    if fate == "silent":
        return frames, request
    kind = "application/json" if fate in ("json", "refused") else "text/event-stream; charset=utf-8"
    status = 500 if fate == "refused" else 200
    said = [(b"content-type", kind.encode()), (b"content-encoding", coding.encode())]
    frames.append(_frame(Kind.ANSWER, stream, answer_head(status, said)))
    # Ids are what makes a stream one that may be taken up again.
    first_id = 1_000 * stream if fate == "resumed" else None
    body = {
        "json": lambda: json.dumps(answer).encode(),
        "refused": lambda: b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"no"}}',
        "events": lambda: events([told, answer], line_end, draw(st.sampled_from([None, 1_000 * stream]))),
    }.get(fate, lambda: events([told], line_end, first_id))()
    frames += _cut(draw, Kind.SERVER, stream, CODERS[coding](body))
    ending = {"broken": ended("connection_closed"), "client gone": ended("client_gone")}.get(fate, b"")
    frames.append(_frame(Kind.SERVER_END, stream, ending))
    if fate == "resumed":
        again = 500 + stream
        last = [*headers, (b"last-event-id", str(1_000 * stream + 1).encode())]
        frames += [
            _frame(Kind.REQUEST, again, request_head("GET", b"/mcp", last)),
            _frame(Kind.CLIENT_END, again),
            _frame(Kind.ANSWER, again, answer_head(200, [(b"content-type", b"text/event-stream")])),
            *_cut(draw, Kind.SERVER, again, events([answer], line_end, 1_000 * stream + 10)),
            _frame(Kind.SERVER_END, again),
        ]
    return frames, request


def _frame(kind: Kind, stream: int, payload: bytes = b"") -> Frame:
    return Frame(kind, stream, Moment(0, 0), payload)


def _cut(draw: st.DrawFn, kind: Kind, stream: int, data: bytes) -> list[Frame]:
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    pieces = [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True) if start < end]
    return [_frame(kind, stream, piece) for piece in pieces]


@given(st.data())
def test_each_call_is_recorded_once_with_its_fate(data: st.DataObject) -> None:
    """JSON or event streams, coded and cut anywhere, taken up again, refused, broken off, all at once: one record a call."""
    fates = data.draw(st.lists(st.sampled_from(FATES), min_size=1, max_size=5))
    made = [data.draw(exchanges(stream, fate)) for stream, fate in enumerate(fates, 1)]
    left = [list(frames) for frames, _ in made]
    order = data.draw(st.permutations([number for number, frames in enumerate(left) for _ in frames]))
    mixed = [left[number].pop(0) for number in order]
    frames = [Frame(frame.kind, frame.stream, Moment(at, at * 10**6), frame.payload) for at, frame in enumerate(mixed)]
    frames.append(Frame(Kind.END, 0, Moment(10**6, 10**12), END))
    found = list(calls(iter(frames), Exchanges()))
    assert sorted(call.tool for call in found) == sorted(f"tool_{stream}" for stream in range(1, len(fates) + 1))
    for call in found:
        stream = int(call.tool.removeprefix("tool_"))
        fate = fates[stream - 1]
        assert (call.fault.kind if call.fault else None) == KINDS[fate], fate
        if call.fault is None:
            assert call.response is not None
            assert json.loads(call.response)["structuredContent"] == {"of": stream}


@given(
    st.lists(st.text("ab \n\r:", max_size=5), max_size=6), st.sampled_from(LINE_ENDS), st.lists(st.integers(0, 80), max_size=6)
)
def test_an_event_stream_is_read_the_same_in_any_pieces(texts: list[str], line_end: str, places: list[int]) -> None:
    stream = "".join(f"data: {json.dumps(text)}{line_end}{line_end}" for text in texts).encode()
    cuts = sorted(min(place, len(stream)) for place in places)
    reader = EventStream()
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    found = [event for piece in pieces for event in reader.feed(piece)] + reader.end()
    assert [json.loads(event.data) for event in found if isinstance(event.data, bytes)] == texts


@given(st.lists(st.tuples(st.sampled_from(sorted(CODERS)), st.binary(max_size=60)), max_size=6), st.booleans())
def test_rubbish_is_read_as_nothing(bodies: list[tuple[str, bytes]], as_events: bool) -> None:
    """Bodies that are not what their head says make no reader fail."""
    exchanges_ = Exchanges()
    kind = b"text/event-stream" if as_events else b"application/json"
    for stream, (coding, body) in enumerate(bodies):
        head = [(b"content-type", kind), (b"content-encoding", coding.encode())]
        for frame in (
            _frame(Kind.REQUEST, stream, request_head("POST", b"/", [(b"content-encoding", coding.encode())])),
            _frame(Kind.CLIENT, stream, body),
            _frame(Kind.CLIENT_END, stream),
            _frame(Kind.ANSWER, stream, answer_head(200, head)),
            _frame(Kind.SERVER, stream, body),
            _frame(Kind.SERVER_END, stream),
        ):
            assert exchanges_.take(frame) == []


def one(*frames: tuple[Kind, int, bytes], then_ms: int = 0) -> list[tuple[str, str | None]]:
    """Tools and error types of some frames; at the end one more request comes, so much later."""
    traffic = Exchanges()
    found = [call for kind, stream, payload in frames for call in traffic.take(Frame(kind, stream, Moment(0, 0), payload))]
    late = Moment(then_ms, then_ms * 10**6)
    found += traffic.take(Frame(Kind.REQUEST, 999, late, request_head("GET", b"/", [])))
    return [(call.tool, call.fault.kind if call.fault else None) for call in found]


CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}'
RESULT = b'{"jsonrpc":"2.0","id":1,"result":{"content":[]}}'
STREAM = answer_head(200, [(b"content-type", b"text/event-stream")])


def post(stream: int, target: bytes = b"/mcp", *headers: tuple[bytes, bytes]) -> list[tuple[Kind, int, bytes]]:
    head = request_head("POST", target, headers)
    return [(Kind.REQUEST, stream, head), (Kind.CLIENT, stream, CALL), (Kind.CLIENT_END, stream, b"")]


def test_a_stream_that_is_not_taken_up_again_is_given_up_in_the_end() -> None:
    broken = [*post(1), (Kind.ANSWER, 1, STREAM), (Kind.SERVER, 1, b"id: 7\ndata: \n\n"), (Kind.SERVER_END, 1, b"")]
    assert one(*broken, then_ms=RESUMED_WITHIN_MS - 1) == []
    assert one(*broken, then_ms=RESUMED_WITHIN_MS) == [("t", "unanswered")]


def test_a_session_that_the_client_ends_ends_its_calls() -> None:
    session = (b"mcp-session-id", b"s")
    ended_by = [(Kind.REQUEST, 2, request_head("DELETE", b"/mcp", [session])), (Kind.CLIENT_END, 2, b"")]
    ended_by += [(Kind.ANSWER, 2, answer_head(200, [])), (Kind.SERVER_END, 2, b"")]
    assert one(*post(1, b"/mcp", session), *ended_by) == [("t", "client_gone")]


def test_closing_the_stream_is_a_cancellation_since_sessions_are_gone() -> None:
    modern = (b"mcp-protocol-version", b"2026-07-28")
    assert one(*post(1, b"/mcp", modern), (Kind.ANSWER, 1, STREAM), (Kind.SERVER_END, 1, ended("client_gone"))) == [
        ("t", "cancelled")
    ]


def test_the_transport_of_2024_answers_over_the_stream_that_told_the_address() -> None:
    opened = [(Kind.REQUEST, 1, request_head("GET", b"/sse", [])), (Kind.CLIENT_END, 1, b""), (Kind.ANSWER, 1, STREAM)]
    opened.append((Kind.SERVER, 1, b"event: endpoint\ndata: /messages?session_id=5\n\n"))
    asked = [*post(2, b"/messages?session_id=5"), (Kind.ANSWER, 2, answer_head(202, [])), (Kind.SERVER_END, 2, b"")]
    answered = (Kind.SERVER, 1, b"event: message\ndata: " + RESULT + b"\n\n")
    assert one(*opened, *asked, answered) == [("t", None)]
    assert one(*opened, *asked, (Kind.SERVER_END, 1, b"")) == [("t", "connection_closed")]


def test_calls_whose_bytes_were_not_copied_are_counted_and_not_called_failures() -> None:
    traffic = Exchanges()
    frames = [*post(1), (Kind.LOST, 1, b""), (Kind.SERVER_END, 1, b"")]
    assert [call for kind, stream, data in frames for call in traffic.take(Frame(kind, stream, Moment(0, 0), data))] == []
    assert traffic.missed == 1


def test_an_answer_in_a_coding_that_nobody_here_knows_is_an_answer() -> None:
    """Whether the tool failed is not known then; that the server did not answer would be wrong."""
    for coding, body in (
        (b"br", b"\x0b\x02\x80"),
        (b"gzip", b"\x1f\x8bno"),
        (b"gzip, gzip", gzip.compress(gzip.compress(RESULT))),
    ):
        head = answer_head(200, [(b"content-type", b"application/json"), (b"content-encoding", coding)])
        asked = [*post(1), (Kind.ANSWER, 1, head), (Kind.SERVER, 1, body)]
        assert one(*asked, (Kind.SERVER_END, 1, b"")) == [("t", None)]
        assert one(*asked, (Kind.SERVER_END, 1, ended("connection_closed"))) == [("t", "connection_closed")]


def test_a_redirect_that_is_followed_here_is_no_call_of_its_own() -> None:
    again = [*post(1), (Kind.ANSWER, 1, answer_head(307, [], asks_again=True)), (Kind.SERVER_END, 1, b"")]
    followed = [*post(2), (Kind.ANSWER, 2, STREAM), (Kind.SERVER, 2, b"data: " + RESULT + b"\n\n"), (Kind.SERVER_END, 2, b"")]
    assert one(*again, *followed) == [("t", None)]
    for status in (302, 307):
        assert one(*post(1), (Kind.ANSWER, 1, answer_head(status, [])), (Kind.SERVER_END, 1, b"")) == [("t", "http_error")]


def test_a_stream_may_be_taken_up_at_the_second_attempt() -> None:
    """Also where no session tells whose it is."""
    last = request_head("GET", b"/mcp", [(b"last-event-id", b"7")])
    frames = [*post(1), (Kind.ANSWER, 1, STREAM), (Kind.SERVER, 1, b"id: 7\ndata: \n\n"), (Kind.SERVER_END, 1, b"")]
    frames += [(Kind.REQUEST, 2, last), (Kind.ANSWER, 2, answer_head(503, [])), (Kind.SERVER_END, 2, b"")]
    frames += [(Kind.REQUEST, 3, last), (Kind.ANSWER, 3, STREAM), (Kind.SERVER, 3, b"id: 8\ndata: " + RESULT + b"\n\n")]
    assert one(*frames) == [("t", None)]


def test_an_answer_may_come_before_the_request_is_whole() -> None:
    """As refusals of what is too large do."""
    asked = [(Kind.REQUEST, 1, request_head("POST", b"/mcp", [])), (Kind.CLIENT, 1, CALL[:20])]
    rest = [(Kind.CLIENT, 1, CALL[20:]), (Kind.CLIENT_END, 1, b"")]
    refused = [(Kind.ANSWER, 1, answer_head(413, [])), (Kind.SERVER, 1, b"too large")]
    assert one(*asked, *refused, *rest, (Kind.SERVER_END, 1, b"")) == [("t", "http_error")]
    answered = [(Kind.ANSWER, 1, answer_head(200, [])), (Kind.SERVER, 1, RESULT)]
    assert one(*asked, *answered, *rest, (Kind.SERVER_END, 1, b"")) == [("t", None)]


def test_a_stream_may_begin_with_a_byte_order_mark() -> None:
    frames = [*post(1), (Kind.ANSWER, 1, STREAM), (Kind.SERVER, 1, b"\xef\xbb\xbfdata: " + RESULT + b"\n\n")]
    assert one(*frames) == [("t", None)]
