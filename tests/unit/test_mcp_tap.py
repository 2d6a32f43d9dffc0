"""The tap never waits: what has no room is left out, and the recorder is told where something is missing."""

from collections import deque
from typing import Any

import pytest

from ingest.mcp import tap as tap_module
from ingest.mcp.endings import server_exited
from ingest.mcp.frames import Frame, Kind, Moment
from ingest.mcp.setup import Setup
from ingest.mcp.tap import Tap
from ingest.mcp.traffic import Pipes

SETUP = Setup(url="", api_key="", transport="stdio", fallback="x", run_id="run")
ASK = b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"t"}}\n'
SAY = b'{"jsonrpc":"2.0","id":%d,"result":{}}\n'


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch) -> Tap:
    """One whose recorder takes nothing, with room for some hundred bytes."""
    monkeypatch.setattr(tap_module.subprocess, "Popen", lambda *_, **__: None)
    made = Tap(SETUP, warn=print, bytes_max=4_000)
    made._frames.clear()
    made._bytes = 0
    return made


def taken(tap: Tap, count: int | None = None) -> list[Frame]:
    """Take frames out, as the writing thread does."""
    frames: deque[Any] = tap._frames
    found = [frames.popleft() for _ in range(len(frames) if count is None else count)]
    tap._bytes -= sum(len(frame.payload) + tap_module._FRAME_BYTES for frame in found)
    return found


def test_a_gap_is_told_where_it_ends(tap: Tap) -> None:
    """Both directions of a stream stop together, and begin again behind the word of it."""
    tap.put(Kind.CLIENT, ASK % 1)
    tap.put(Kind.SERVER, b"x" * 3_500)
    tap.put(Kind.SERVER, b"x" * 3_500)
    tap.put(Kind.CLIENT, ASK % 2)
    assert [frame.kind for frame in taken(tap)] == [Kind.CLIENT, Kind.SERVER]
    tap.put(Kind.CLIENT, ASK % 3)
    assert [frame.kind for frame in taken(tap)] == [Kind.LOST, Kind.CLIENT]


def test_an_open_gap_is_told_at_the_end(tap: Tap) -> None:
    tap.put(Kind.SERVER, b"x" * 9_000, stream=4)
    tap.put(Kind.END)
    assert [(frame.kind, frame.stream) for frame in taken(tap)] == [(Kind.LOST, 4), (Kind.END, 0)]


def test_no_call_is_called_a_failure_because_its_answer_was_not_copied(tap: Tap) -> None:
    pipes = Pipes()
    frames: list[Frame] = []
    for id_ in range(40):
        tap.put(Kind.CLIENT, ASK % id_)
        tap.put(Kind.SERVER, SAY % id_)
        if id_ % 7 == 6:
            frames += taken(tap, count=len(tap._frames) // 2)
    frames += taken(tap)
    tap.put(Kind.CLIENT, ASK % 100)
    tap.put(Kind.SERVER, SAY % 100)
    frames += taken(tap)
    assert Kind.LOST in {frame.kind for frame in frames}
    ended = [call for frame in frames for call in pipes.take(frame)]
    ended += pipes.end(server_exited(0), Moment(0, 0))
    assert ended
    assert [call.fault for call in ended if call.fault] == []
    assert pipes.missed > 0
