"""The bar of `toolledger send` on a terminal: how far, how fast, how long yet."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from deploy.cli.send_input import Source
from deploy.cli.send_run import Counts


@contextmanager
def bar(sources: Sequence[Source]) -> Iterator[Callable[[Source, Counts], None]]:
    """Draw one bar over all files, by bytes read of them; without a size it only counts."""
    sizes = {source: source.size for source in sources}
    known = [size for size in sizes.values() if size is not None]
    total = sum(known) if len(known) == len(sources) else None
    columns = (
        (BarColumn(), TaskProgressColumn(), DownloadColumn(), TimeRemainingColumn())
        if total is not None
        else (SpinnerColumn(), TimeElapsedColumn())
    )
    shown = TextColumn("{task.fields[accepted]:,} accepted, {task.fields[rate]:,.0f}/s")
    with Progress(TextColumn("{task.description}"), *columns, shown, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=total, accepted=0, rate=0.0)
        passed: dict[Source, int] = {}

        def moved(source: Source, counts: Counts) -> None:
            passed[source] = max(passed.get(source, 0), source.position())
            progress.update(
                task,
                completed=sum(passed.values()),
                description=os.path.basename(source.name),
                accepted=counts.accepted,
                rate=counts.rate(),
            )

        yield moved
