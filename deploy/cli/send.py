"""`toolledger send`: publish events from files, over HTTP or straight to Kafka, and say what was not taken, and where."""

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from deploy.api import Answer, Api, fault
from deploy.cli.common import data_option, json_option, kafka_address, quiet_libraries, say_json, service
from deploy.cli.send_input import Batch, Place, Source
from ingest.contract.errors import ConfigurationError

# How long a service that asks to wait is waited for; ids or an Idempotency-Key make what was taken before count once.
_PATIENCE_S: Final = 60.0
_PAUSE_S_MAX: Final = 10.0
_SHOWN_MAX: Final = 20

Publish = Callable[[Batch], list[dict[str, Any]]]


@dataclass(slots=True)
class _Outcome:
    accepted: int = 0
    rejected: list[tuple[Place, str, str]] = field(default_factory=list)


@click.command(epilog="Example: toolledger send calls.ndjson more-calls.json.gz")
@data_option
@click.argument("files", nargs=-1, required=True, metavar="FILE... | -")
@click.option("--kafka", "to_kafka", is_flag=True, help="Write to Kafka itself (TOOLLEDGER_KAFKA), without the ingest service.")
@click.option("--project", metavar="P", help="With --kafka: the project of events; over HTTP the API key decides it.")
@json_option
def send(data: Path, files: tuple[str, ...], to_kafka: bool, project: str | None, as_json: bool) -> int:
    """Publish tool calls from NDJSON or JSON files (plain, gzip or zstd); `-` reads standard input.

    Ends with how many were accepted and rejected, and where those stand. Exit 1 if any was rejected.
    """
    sources = [Source(name) for name in files]
    outcome = _Outcome()
    if to_kafka:
        if not project:
            raise click.UsageError(
                "--kafka needs --project: there is no API key that would name it", click.get_current_context()
            )
        quiet_libraries()
        asyncio.run(_to_kafka(kafka_address(None, data), project, sources, outcome, quiet=as_json))
    else:
        api = Api(*service(data))
        for batch in _with_progress(sources, quiet=as_json):
            _take_in(outcome, batch, _over_http(api, batch))
    _report(outcome, as_json=as_json)
    return 1 if outcome.rejected else 0


def _with_progress(sources: list[Source], *, quiet: bool) -> Iterator[Batch]:
    """Yield the batches of all files; on a terminal with a bar of the bytes read."""
    if quiet or not sys.stderr.isatty():
        for source in sources:
            yield from source.batches()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for source in sources:
            task = progress.add_task(os.path.basename(source.name), total=source.size)
            for batch in source.batches():
                yield batch
                progress.update(task, completed=source.position())


def _over_http(api: Api, batch: Batch) -> list[dict[str, Any]]:
    """Send one batch and return what was rejected; waits where the service asks for it.

    Raises:
        LedgerError: the service refuses the request as a whole.
    """
    body, content_type = batch.body()
    headers = {"content-type": content_type, "idempotency-key": uuid.uuid4().hex}
    deadline = time.monotonic() + _PATIENCE_S
    answered = False
    while True:
        try:
            answer = api.send("POST", "/v1/events", body, headers)
            answered = True
        except ConfigurationError:
            # A service that never answered is not there; one that did is being started again.
            if not answered or time.monotonic() > deadline:
                raise
            time.sleep(1)
            continue
        if answer.status in (202, 400):
            members = answer.json()
            rejected = members.get("rejected") if isinstance(members, dict) else None
            if isinstance(rejected, list) and (answer.status == 202 or rejected):
                return rejected
        if answer.status not in (429, 503) or time.monotonic() > deadline:
            raise fault(answer)
        time.sleep(_pause_s(answer))


def _pause_s(answer: Answer) -> float:
    value = {name.lower(): text for name, text in answer.headers.items()}.get("retry-after", "1")
    return min(float(value), _PAUSE_S_MAX) if value.isdigit() else 1.0


async def _to_kafka(kafka: str, project: str, sources: list[Source], outcome: _Outcome, *, quiet: bool) -> None:
    """Judge, pack and publish as the ingest service does, without it."""
    from ingest.admission import admit
    from ingest.contract.access import is_project
    from ingest.contract.settings import load
    from ingest.contract.topics import HEADER_PROJECT
    from ingest.formats import Items
    from ingest.packing import pack
    from ingest.publisher import Publisher
    from ingest.settings import IngestSettings

    if not is_project(project):
        raise ConfigurationError(f"{project!r} cannot be a project")
    settings = load(IngestSettings, kafka=kafka)
    redactor = settings.redactor()
    publisher = Publisher(settings)
    publisher.start()
    loop = asyncio.get_running_loop()
    try:
        for batch in _with_progress(sources, quiet=quiet):
            largest = max(len(raw) for raw in batch.raws)
            items = Items(raws=batch.raws, utf8=False, bytes_max=largest)
            admission = admit(items, project_id=project, accepted_ms=time.time_ns() // 1_000_000, redactor=redactor)
            deadline = loop.time() + settings.ingest_publish_timeout_s
            if admission.ids:
                records = pack(
                    project,
                    admission.ids,
                    admission.raws,
                    partitions=await publisher.partitions(deadline=deadline),
                    pack_bytes=settings.ingest_pack_bytes,
                )
                await publisher.publish(records, [(HEADER_PROJECT, project.encode())], deadline=deadline)
            refused = [{"index": one.index, "code": one.code, "message": one.message} for one in admission.rejected]
            _take_in(outcome, batch, refused)
    finally:
        await publisher.stop()


def _take_in(outcome: _Outcome, batch: Batch, rejected: list[dict[str, Any]]) -> None:
    outcome.accepted += len(batch.raws) - len(rejected)
    for one in rejected:
        outcome.rejected.append((batch.places[int(one["index"])], str(one["code"]), str(one["message"])))


def _report(outcome: _Outcome, *, as_json: bool) -> None:
    if as_json:
        for place, code, message in outcome.rejected:
            say_json(event="rejected", file=place.file, **{place.kind: place.number}, code=code, message=message)
        say_json(event="sent", accepted=outcome.accepted, rejected=len(outcome.rejected))
        return
    for place, code, message in outcome.rejected[:_SHOWN_MAX]:
        click.echo(f"{place}: {code}: {message}", err=True)
    if len(outcome.rejected) > _SHOWN_MAX:
        click.echo(f"and {len(outcome.rejected) - _SHOWN_MAX} more; --json lists all", err=True)
    click.echo(f"accepted {outcome.accepted}, rejected {len(outcome.rejected)}")
