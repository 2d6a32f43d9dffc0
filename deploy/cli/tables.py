"""Tables for people, in colour on a terminal and plain in a pipe."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

# What a pipe gets: wide enough that no column is cut, because no terminal says otherwise.
_PIPE_COLUMNS = 240


def console() -> Console:
    """Return the console of standard output."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=_PIPE_COLUMNS)


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str, right: Sequence[str] = ()) -> None:
    """Print rows under headers.

    Args:
        headers: one a column.
        rows: cells as text, as rich Text, or None for an empty one.
        empty: what to print when there are no rows.
        right: headers of columns that are aligned to the right (numbers).
    """
    if not rows:
        console().print(empty)
        return
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        made.add_column(header, justify="right" if header in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(_cell(cell) for cell in row))
    console().print(made)


def _cell(value: Any) -> Text:
    # Text, not markup: what comes from a log must not turn into styles.
    return value if isinstance(value, Text) else Text("" if value is None else str(value))
