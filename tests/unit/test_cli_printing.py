"""What commands print of foreign text: it never steers the terminal, and JSON stays JSON."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.cli import one_log
from deploy.cli.common import counted, json_text

# A control sequence of one character, one that turns the direction of text, and one that ends a line.
STEERING = "a\u009b31mb\u202ec\u2028d\x7f"
ORDINARY = "é 日本\u3000語 😀 👩\u200d🚀\u00a0"

LOG: dict[str, Any] = {
    "id": "log_1",
    "timestamp": "2026-04-17T10:25:00.000Z",
    "status": "success",
    "message": "",
    "source": {},
    "context": {},
    "metrics": {"duration_ms": 1.0},
    "metadata": {"tool_slug": "T", STEERING: STEERING},
    "data": {"request": {"a": STEERING}, "response": ORDINARY},
}


def test_a_log_in_full_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Of payload and metadata, names too, such characters are shown as JSON writes them; ordinary text as it is."""
    one_log._show(LOG)
    said = capsys.readouterr().out
    assert said.replace("\n", "").replace("\u200d", "").replace("\u3000", "").replace("\u00a0", "").isprintable()
    assert r'"a": "a\u009b31mb\u202ec\u2028d\u007f"' in said
    assert r'"a\u009b31mb\u202ec\u2028d\u007f": "a\u009b31mb\u202ec\u2028d\u007f"' in said
    assert ORDINARY in said


@given(st.recursive(st.text() | st.integers() | st.none(), lambda each: st.lists(each) | st.dictionaries(st.text(), each)))
def test_json_says_what_it_was_given(value: Any) -> None:
    """However much of it is escaped, a program reads the same."""
    for indent in (None, 2):
        assert json.loads(json_text(value, indent=indent)) == value


@given(st.text())
def test_json_on_one_line_never_steers(text: str) -> None:
    """Half characters, which no terminal can show, are escaped too."""
    written = json_text([text, "\ud800"])
    assert all(each.isprintable() or each in "\u200c\u200d" or each.isspace() for each in written)
    assert not {"\u009b", "\u202e", "\u2028", "\u0085", "\ud800"} & set(written)


def test_one_of_a_thing_is_not_several():
    assert [counted(number, "call") for number in (0, 1, 2_000)] == ["0 calls", "1 call", "2,000 calls"]
