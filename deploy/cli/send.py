"""`toolledger send`: publish events from files, over HTTP or straight to Kafka, and say what was not taken, and where."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

import click

from deploy.api import Api
from deploy.cli.common import data_option, json_option, kafka_address, quiet_libraries, say_json, service
from deploy.cli.send_input import Refusal, Source
from deploy.cli.send_run import Counts, Run
from deploy.cli.send_to import HttpSender, KafkaSender, Sender

_PATIENCE_S: Final = 60.0
_SHOWN_MAX: Final = 20


@click.command(epilog="Example: toolledger send calls.ndjson more-calls.json.gz")
@data_option
@click.argument("files", nargs=-1, required=True, metavar="FILE... | -")
@click.option("--kafka", "to_kafka", is_flag=True, help="Write to Kafka itself (TOOLLEDGER_KAFKA), without the ingest service.")
@click.option("--project", metavar="P", help="With --kafka: the project of events; over HTTP the API key decides it.")
@click.option("--anew", is_flag=True, help="From the start, and events without an id are new calls.")
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=_PATIENCE_S,
    show_default=True,
    metavar="SECONDS",
    help="How long a server that is away is waited for.",
)
@json_option
def send(
    data: Path, files: tuple[str, ...], to_kafka: bool, project: str | None, anew: bool, patience: float, as_json: bool
) -> int:
    """Publish tool calls from NDJSON or JSON files of any size (plain, gzip or zstd); `-` reads standard input.

    Ends with how many were accepted and rejected, and where those stand. Exit 1 if any was rejected. When it was
    interrupted, the same command goes on where it stopped; whatever is sent again counts once, with ids or without.
    """
    if to_kafka and not project:
        raise click.UsageError("--kafka needs --project: there is no API key that would name it", click.get_current_context())
    if files.count("-") > 1:
        raise click.UsageError("standard input can be read once: name - once", click.get_current_context())
    sources = [Source(name) for name in files]
    make, target = _sender(data, to_kafka, project, patience)
    telling = _Telling(as_json=as_json)
    sender = make()
    run = Run(sender, target=target, anew=anew, refused=telling.refused, remark=telling.remark)
    try:
        with _progress(sources, quiet=as_json) as moved:
            for source in sources:
                run.send(source, moved)
    except BaseException:
        telling.end(run.counts, resumes=all(source.stored for source in sources))
        raise
    finally:
        sender.close()
    telling.end(run.counts)
    return 1 if run.counts.rejected else 0


def _sender(data: Path, to_kafka: bool, project: str | None, patience_s: float) -> tuple[Callable[[], Sender], str]:
    """Return what makes the sender, and the name of the place it sends to, by which progress is kept."""
    if to_kafka:
        assert project is not None
        quiet_libraries()
        kafka = kafka_address(None, data)
        return lambda: KafkaSender(kafka, project, patience_s=patience_s), f"kafka {kafka} {project}"
    url, key = service(data)
    # Refused before anything is read, if it cannot be used.
    Api(url, key)
    return lambda: HttpSender(lambda: Api(url, key), patience_s=patience_s), f"{url} {key}"


class _Telling:
    """Says what happened: on a terminal to people, with `--json` one line each to programs."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._shown = 0

    def refused(self, source: Source, kind: str, refusal: Refusal) -> None:
        """Say it at once: of a large file with many there is no keeping them."""
        if self._as_json:
            place = {"file": source.name, kind: refusal.number}
            say_json(event="rejected", **place, code=refusal.code, message=refusal.message)
            return
        self._shown += 1
        if self._shown <= _SHOWN_MAX:
            click.echo(f"{source.name} {kind} {refusal.number}: {refusal.code}: {refusal.message}", err=True)
        elif self._shown == _SHOWN_MAX + 1:
            click.echo("and more; --json lists all", err=True)

    def remark(self, source: Source, text: str) -> None:
        if self._as_json:
            say_json(event="remark", file=source.name, message=text)
        else:
            click.echo(f"{source.name}: {text}", err=True)

    def end(self, counts: Counts, *, resumes: bool | None = None) -> None:
        """Say the totals.

        Args:
            resumes: of a send that ends in the midst of it: whether the same command goes on from there.
        """
        whole = resumes is None
        if self._as_json:
            say_json(event="sent" if whole else "interrupted", accepted=counts.accepted, rejected=counts.rejected)
            return
        so_far = "" if whole else " so far" + "; the same command goes on from there" * bool(resumes)
        click.echo(f"accepted {counts.accepted}, rejected {counts.rejected}{so_far}", err=not whole)


Moved = Callable[[Source, Counts], None]


def _progress(sources: list[Source], *, quiet: bool) -> AbstractContextManager[Moved]:
    """Give what is called as things move; on a terminal it draws a bar."""
    import sys

    if quiet or not sys.stderr.isatty():
        return nullcontext(lambda _source, _counts: None)
    from deploy.cli.send_bar import bar

    return bar(sources)
