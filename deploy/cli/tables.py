"""Tables for people, in colour on a terminal and plain in a pipe."""

import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

# What a pipe gets: wide enough that no column is cut, because no terminal says otherwise.
_PIPE_COLUMNS: Final = 240
# What a text is given at least, if it needs that much: a moment to the minute fits.
_TEXT_COLUMNS_MIN: Final = 16
# Between two columns; at both edges together there is one less.
_BETWEEN: Final = 3


def console() -> Console:
    """Return the console of standard output."""
    found = Console(highlight=False)
    # Asked here: of COLUMNS=0, which some containers and editors set, rich makes a table of no columns.
    return Console(highlight=False, width=shutil.get_terminal_size().columns if found.is_terminal else _PIPE_COLUMNS)


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    empty: str,
    right: Sequence[str] = (),
    spare: Sequence[str] = (),
) -> list[str]:
    """Print rows under headers.

    Args:
        headers: one a column.
        rows: cells as text, as rich Text, or None for an empty one.
        empty: what to print when there are no rows.
        right: headers of columns that are aligned to the right (numbers); these are never split over lines.
        spare: headers of columns that a narrow terminal is shown without, those needed least first.

    Returns:
        The headers of columns that were left out, in the order of the columns.
    """
    screen = console()
    if not rows:
        screen.print(empty)
        return []
    cells = [[_cell(cell) for cell in row] for row in rows]
    widths = {header: max(row[number].cell_len for row in cells) for number, header in enumerate(headers)}
    kept = _fitting(headers, widths, right, spare, columns=screen.width)
    whole = _columns([(max(widths[each], cell_len(each)), each in right) for each in kept]) <= screen.width
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in kept:
        if header in right:
            # Cut to be told, where even that has no room: half a number would be another one.
            head = header if whole else header.replace(" ", "\n")
            made.add_column(head, justify="right", no_wrap=True, overflow="ellipsis")
        else:
            made.add_column(header, overflow="fold")
    for row in cells:
        made.add_row(*(cell for cell, header in zip(row, headers, strict=True) if header in kept))
    screen.print(made)
    return [header for header in headers if header not in kept]


def _fitting(
    headers: Sequence[str], widths: Mapping[str, int], right: Sequence[str], spare: Sequence[str], *, columns: int
) -> list[str]:
    """Leave out spare columns until the others fit, with the words of each head below one another."""
    kept = list(headers)
    for header in spare:
        if _columns([(max(widths[each], *map(cell_len, each.split())), each in right) for each in kept]) <= columns:
            break
        kept.remove(header)
    return kept


def _columns(widths: Sequence[tuple[int, bool]]) -> int:
    """Return how wide a table is at least, of the widths of its columns and whether they are numbers."""
    return _BETWEEN * len(widths) + sum(width if number else min(width, _TEXT_COLUMNS_MIN) for width, number in widths)


def _cell(value: Any) -> Text:
    # Text, not markup: what comes from a log must not turn into styles.
    return value if isinstance(value, Text) else Text("" if value is None else str(value))
