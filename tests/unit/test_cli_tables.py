"""Tables on narrow terminals: numbers are whole or not there, and what is not there is said."""

import io
import os
import re
import shutil

import pytest
from rich.console import Console

from deploy.cli import tables, usage

ROW = {
    "calls": 1_234_567,
    "failed": 98_765,
    "error_rate": 0.08,
    "p50_ms": 1_111.0,
    "p95_ms": 14_034.0,
    "p99_ms": 114_548.0,
    "active_users": 22_222,
    "active_sessions": 333_333,
}
NUMBERS = ["1,234,567", "98,765", "8.0%", "1,111", "14,034", "114,548", "22,222", "333,333"]


def shown(width: int, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str]]:
    """Print a row of usage on a terminal of that width; return what stands there, and what was left out."""
    out = io.StringIO()
    monkeypatch.setattr(tables, "console", lambda: Console(file=out, width=width, force_terminal=True, color_system=None))
    left_out = usage._table("tool", [("GMAIL_SEND_EMAIL_TO_SOMEBODY", ROW), ("2026-11-30 02:00", ROW)])
    return out.getvalue(), left_out


@pytest.mark.parametrize("width", [*range(40, 121, 4), 240])
def test_a_number_is_whole_or_left_out(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However narrow the terminal is; calls and failures are always there, and no line is longer than it is wide."""
    said, left_out = shown(width, monkeypatch)
    assert max(map(len, said.splitlines())) <= width
    below_heads = said[said.index("─") :]
    found = re.findall(r"[\d,.]+%?", below_heads.replace("2026-11-30 02:00", ""))
    kept = [number for number, name in zip(NUMBERS, usage._NUMBERS, strict=True) if name not in left_out]
    assert found == kept * 2
    assert kept[:2] == NUMBERS[:2]


def test_where_not_even_the_least_has_room_a_number_says_that_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a number would be another one."""
    said, _ = shown(16, monkeypatch)
    assert all(len(line) <= 16 for line in said.splitlines())
    assert "…" in said


def test_a_terminal_that_says_it_has_no_columns_is_taken_for_a_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of containers and of editors do: a table of no columns would be no table."""
    monkeypatch.setenv("COLUMNS", "0")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(shutil.os, "get_terminal_size", lambda _: os.terminal_size((0, 0)))
    assert tables.console().width == 80


def test_a_wide_terminal_has_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the heads; sessions are those with a call in the row, other than `sessions` of --json."""
    said, left_out = shown(150, monkeypatch)
    assert left_out == []
    assert said.splitlines()[1].split("  ")[-1].strip() == "active sessions"
