"""A log as one line: as wide as the terminal, whole in a pipe, and never able to steer the terminal."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.cli import log_lines
from deploy.cli.export import format_of

LOG = {
    "id": "log_-jRTWClpBoVo",
    "timestamp": "2026-04-17T10:25:00.000Z",
    "status": "failed",
    "message": "GMAIL_SEND_EMAIL failed: invalid recipient",
    "metadata": {"user_id": "user_123"},
    "metrics": {"duration_ms": 202.0},
}
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def test_a_pipe_gets_the_whole_line() -> None:
    """Nothing is cut where nobody looks: time, status, duration, user, message, id."""
    assert log_lines.line(LOG, width=None, coloured=False) == (
        "2026-04-17 10:25:00.000Z  failed       202 ms  user_123          "
        "GMAIL_SEND_EMAIL failed: invalid recipient  log_-jRTWClpBoVo"
    )


@given(width=st.integers(40, 250), coloured=st.booleans(), text=st.text(max_size=300), user=st.text(max_size=40))
def test_a_terminal_gets_one_line_that_fits(width: int, coloured: bool, text: str, user: str) -> None:
    """Whatever a log says, it is one line without control characters, no longer than the terminal."""
    log = {**LOG, "message": text, "metadata": {"user_id": user, "tool_slug": "T"}}
    plain = COLOUR.sub("", log_lines.line(log, width=width, coloured=coloured))
    assert plain.isprintable()
    assert "log_-jRTWClpBoVo" in plain
    assert log_lines.room(plain) <= width


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (99, "2026-04-17 10:25:00.000Z  failed       202 ms  user_123          GMAIL_SEND_EMAI…  log_-jRTWClpBoVo"),
        (98, "2026-04-17 10:25:00.000Z  failed       202 ms  GMAIL_SEND_EMAIL failed: invalid…  log_-jRTWClpBoVo"),
        (80, "2026-04-17 10:25:00  failed       202 ms  GMAIL_SEND_EMAIL fa…  log_-jRTWClpBoVo"),
        (72, "10:25:00  failed       202 ms  GMAIL_SEND_EMAIL faile…  log_-jRTWClpBoVo"),
        (60, "10:25:00  failed   GMAIL_SEND_EMAIL faile…  log_-jRTWClpBoVo"),
        (40, "10:25:00  failed   GM…  log_-jRTWClpBoVo"),
        # An id is whole, because it is what to ask with.
        (20, "10:25:00  failed   log_-jRTWClpBoVo"),
    ],
)
def test_the_message_has_room_before_the_rest_has(width: int, shown: str) -> None:
    """The narrower the terminal, the less stands before it: no user, then no part of a second, no day, no duration."""
    assert log_lines.line(LOG, width=width, coloured=False) == shown


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_refused(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """NO_COLOR and dumb terminals are heard."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert log_lines.colours()
    monkeypatch.setenv(variable, value)
    assert not log_lines.colours()


@pytest.mark.parametrize(
    ("file", "kind"), [("a.csv", "csv"), ("a.PARQUET", "parquet"), ("a.ndjson", "ndjson"), ("a", "ndjson"), ("-", "ndjson")]
)
def test_a_file_is_what_its_name_says(file: str, kind: str) -> None:
    """By its ending, NDJSON where that says nothing."""
    assert format_of(file) == kind
