"""Take logs along as a file, with a progress bar; the file has its name only once it is whole."""

import contextlib
import fcntl
import os
import signal
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

import click

from deploy.api import ANOTHER, Api, BrokenOffError
from ingest.contract.errors import LedgerError

EXPORT: Final = "/v1/logs/export"
FORMATS: Final = ("ndjson", "csv", "parquet")
_ENDINGS: Final = {".csv": "csv", ".parquet": "parquet"}
_PART_BYTES: Final = 256 * 1024


def format_of(file: str) -> str:
    """Return the format that a file's name asks for."""
    return _ENDINGS.get(Path(file).suffix.lower(), FORMATS[0])


def export(api: Api, asked: Mapping[str, object], file: str) -> None:
    """Write all that is asked for to a file; `-` is standard output.

    A device or pipe is written to as it comes. Else the file is changed only once all is there: it keeps its permissions, and
    a link goes on pointing to it.

    Raises:
        LedgerError: the service refuses, or broke off; no file of that name was made or changed.
    """
    # Opened anew by its name, standard output that is a file would lose what was written to it before.
    if file in ("-", "/dev/stdout"):
        _take(api, asked, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    path = Path(file)
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as target:
                _take(api, asked, target)
            return
        # What a link points to, so that the link stays.
        path = path.resolve()
        count = _replace(api, asked, path)
    except OSError as error:
        raise LedgerError(f"{file} cannot be written: {error.strerror or error}") from None
    logs = "" if count is None else f"{count:,} logs, "
    click.echo(f"{logs}{_size(path.stat().st_size)} in {file}", err=True)


def _replace(api: Api, asked: Mapping[str, object], path: Path) -> int | None:
    """Write beside a file, and give that its name once it is whole."""
    with _ended_by_sigterm(), _part_of(path) as (part, target):
        if path.exists():
            # Before anything is in it: what only its owner may read is never readable for others.
            os.fchmod(target.fileno(), stat.S_IMODE(path.stat().st_mode))
        count = _take(api, asked, target)
        target.flush()
        part.replace(path)
    return count


@contextlib.contextmanager
def _part_of(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Open the file beside a file that it is written to first, empty; unless it got its name meanwhile, it goes in the end.

    Raises:
        LedgerError: somebody is writing to it: of two at once each would spoil what the other one wrote.
    """
    part = path.with_name(f"{path.name}.part")
    while True:
        # What a killed one left is no obstacle; what another one writes must stay until it is known that nobody does.
        with part.open("ab") as target:
            try:
                fcntl.flock(target, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = f"{path} is being written by another command: wait for its end, or name another file"
                raise LedgerError(message) from None
            if not _has_name(target, part):
                continue  # it got its own name, or went, just before
            target.truncate()
            try:
                yield part, target
            finally:
                if _has_name(target, part):
                    part.unlink()
            return


def _has_name(target: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(target.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end what is under way as Ctrl-C does, so that nothing half done is left behind."""

    def end(number: int, _: object) -> NoReturn:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _take(api: Api, asked: Mapping[str, object], target: BinaryIO) -> int | None:
    """Write the answer's body; return how many logs it holds, None where the service does not tell: to count takes too long."""
    try:
        with api.open(EXPORT, asked) as answer:
            told = answer.headers.get("x-total-count", "")
            total = int(told) if told.isdigit() else None
            if total is None and answer.headers.get_content_disposition() != "attachment":
                raise LedgerError(f"the answer of {api.url} is no export: {ANOTHER}")
            lines = asked["format"] != "parquet"
            with _progress(total if lines else None) as advance:
                while data := answer.part(_PART_BYTES):
                    target.write(data)
                    advance(data.count(b"\n") if lines else len(data))
            return total
    except BrokenOffError as error:
        raise LedgerError(f"the export broke off ({error}); nothing was kept of it: try again") from None


class _Advance:
    """Moves the bar on."""

    def __call__(self, by: int) -> None:
        """Do nothing: nobody looks."""


@contextlib.contextmanager
def _progress(total: int | None) -> Iterator[_Advance]:
    """Show how far it is, on a terminal."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield _Advance()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    known = (MofNCompleteColumn(), TimeRemainingColumn()) if total is not None else (TimeElapsedColumn(),)
    with Progress(TextColumn("exporting"), BarColumn(), *known, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)

        class Advance(_Advance):
            def __call__(self, by: int) -> None:
                bar.advance(task, by)

        yield Advance()


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
