"""A log as one line: whole in a pipe, cut to fit on a terminal. Pure but for what a terminal says of itself."""

import shutil
import sys
import unicodedata
from collections.abc import Callable
from typing import Any, Final

import click

from deploy.cli.colours import no_colours
from deploy.cli.common import printable

_USER_CHARS: Final = 16
# Where a terminal leaves less to the message, other things are left out.
_MESSAGE_CHARS_MIN: Final = 16

# A text and how it is painted.
_Cell = tuple[str, dict[str, Any]]


def colours() -> bool:
    """Tell whether standard output is to be in colour."""
    return sys.stdout.isatty() and not no_colours()


def columns() -> int | None:
    """Return how wide the terminal is, None for a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def line(item: dict[str, Any], *, width: int | None, coloured: bool) -> str:
    """Return one log as one line: time, status, duration, user, message, id.

    Args:
        width: what it must not be longer than, unless the id is; None: as long as it is.
    """
    paint: Callable[..., str] = click.style if coloured else _plain
    metadata, metrics = item.get("metadata") or {}, item.get("metrics") or {}
    failed = item["status"] == "failed"
    duration = f"{ms(metrics.get('duration_ms'))} ms" if metrics.get("duration_ms") is not None else ""
    message = printable(str(item.get("message") or metadata.get("tool_slug") or ""))
    user = printable(str(metadata.get("user_id") or "-"))
    log_id = printable(item["id"])
    cells: list[_Cell] = [
        (item["timestamp"].replace("T", " "), {"dim": True}),
        ("failed " if failed else "success", {"fg": "red", "bold": True} if failed else {"fg": "green"}),
        (f"{duration:>10}", {}),
        (_padded(user if width is None else _cut(user, _USER_CHARS), _USER_CHARS), {"fg": "cyan"}),
    ]
    if width is not None:
        cells, left = _fitting(cells, width - room(log_id) - 2)
        # So that ids stand in one column.
        message = _padded(_cut(message, left), left) if left > 0 else ""
    if message or width is None:
        cells.append((message, {"fg": "red"} if failed else {}))
    cells.append((log_id, {"dim": True}))
    return "  ".join(paint(text, **style) for text, style in cells)


def _fitting(cells: list[_Cell], width: int) -> tuple[list[_Cell], int]:
    """Return as many of time, status, duration and user as leave room for a message, and how much they leave."""
    (at, dim), *rest = cells
    seconds, clock = (at[:19], dim), (at[11:19], dim)
    forms = (cells, cells[:3], [seconds, *rest[:2]], [clock, *rest[:2]], [clock, rest[0]])
    for form in forms:
        left = width - sum(room(text) + 2 for text, _ in form)
        if left >= _MESSAGE_CHARS_MIN:
            break
    return form, left


def ms(value: float | None) -> str:
    """Return a duration for people."""
    return "" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _plain(text: str, **_: Any) -> str:
    return text


def room(text: str) -> int:
    """Return how many columns a text takes: none for what joins the character before it, two for those of East Asia."""
    return sum(0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


def _cut(text: str, most: int) -> str:
    if room(text) <= most:
        return text
    text = text[:most]
    while room(text) >= most:
        text = text[:-1]
    return f"{text}…"


def _padded(text: str, columns: int) -> str:
    return text + " " * max(0, columns - room(text))
