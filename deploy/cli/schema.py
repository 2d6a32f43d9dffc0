"""Commands that prepare Kafka and ClickHouse, and the one that proves what is in them."""

import sys
from pathlib import Path

import click

from deploy.cli.common import (
    clickhouse_option,
    clickhouse_url,
    counted,
    data_option,
    json_option,
    kafka_address,
    kafka_option,
    quiet_libraries,
    say,
    say_json,
)


@click.command(epilog="Example: toolledger migrate --dry-run")
@data_option
@clickhouse_option
@click.option("--dry-run", is_flag=True, help="Only show what is missing; exit 1 if anything is.")
@click.option("--cluster", metavar="NAME", help="Make replicated and distributed tables on this ClickHouse cluster.")
@json_option
def migrate(data: Path, clickhouse: str | None, dry_run: bool, cluster: str | None, as_json: bool) -> int:
    """Apply the missing SQL migrations, in order, each once. Never drops data; safe to repeat."""
    from deploy.migrate import apply

    quiet_libraries()
    waits = (lambda _: None) if as_json else say
    found = apply(clickhouse_url(clickhouse, data), dry_run=dry_run, cluster=cluster, waits=waits)
    for migration in found:
        if as_json:
            say_json(migration=migration.label, applied=not dry_run)
        else:
            say(f"{'missing' if dry_run else 'applied'} {migration.label}")
    if not found and not as_json:
        say("nothing to do: every migration is applied")
    return 1 if dry_run and found else 0


@click.command(epilog="Example: toolledger topics --dry-run")
@data_option
@kafka_option
@click.option("--dry-run", is_flag=True, help="Only show what is missing; exit 1 if anything is.")
@click.option("--partitions", type=click.IntRange(1, 10_000), help="Partitions of a new event topic.")
@json_option
def topics(data: Path, kafka: str | None, dry_run: bool, partitions: int | None, as_json: bool) -> int:
    """Create the missing Kafka topics and mend the settings that correctness hangs on. Never deletes, never shrinks."""
    from deploy.topics import apply
    from ingest.contract.topics import DEFAULT_PARTITIONS
    from ingest.contract.topics import topics as wanted

    quiet_libraries()
    changes = apply(kafka_address(kafka, data), wanted(partitions=partitions or DEFAULT_PARTITIONS), dry_run=dry_run)
    open_changes = [change for change in changes if change.kind != "differs"]
    for change in changes:
        done = not dry_run and change.kind != "differs"
        if as_json:
            say_json(topic=change.topic.name, kind=change.kind, done=done, text=change.text)
        else:
            say(f"{'done: ' if done else ''}{change.text}")
    if not changes and not as_json:
        say("nothing to do: every topic is there")
    return 1 if dry_run and open_changes else 0


@click.command(epilog="Example: toolledger verify --json")
@data_option
@kafka_option
@clickhouse_option
@json_option
def verify(data: Path, kafka: str | None, clickhouse: str | None, as_json: bool) -> int:
    """Prove that nothing is missing and nothing counted twice: receipts without gap or overlap, logs = usage = receipts."""
    from deploy.verify import main

    quiet_libraries()
    code = main(kafka_address(kafka, data), clickhouse_url(clickhouse, data), as_json=as_json)
    sys.stdout.flush()
    return code


@click.command(epilog="Example: toolledger retention --dry-run")
@data_option
@kafka_option
@clickhouse_option
@click.option("--dry-run", is_flag=True, help="Only show what is past its retention.")
@json_option
def retention(data: Path, kafka: str | None, clickhouse: str | None, dry_run: bool, as_json: bool) -> None:
    """Take away what is past the retention of its project: logs with their usage, or payloads alone. Workers must run.

    Run it once a day; `up` does so by itself. `verify` accounts for what was taken. Safe to end and to repeat at any moment.
    """
    from deploy.retention import carry_out, day

    quiet_libraries()
    waits = (lambda _: None) if as_json else say
    nothing = True
    for one in carry_out(kafka_address(kafka, data), clickhouse_url(clickhouse, data), dry_run=dry_run, waits=waits):
        nothing = False
        if as_json:
            members = {"project": one.project_id, "what": one.kind, "before": day(one.until_ms), "logs": one.calls}
            say_json(**members, dead_letters=one.letters, done=not dry_run)
            continue
        each = [counted(count, thing) for count, thing in ((one.calls, "log"), (one.letters, "dead letter")) if count]
        what = f"{'the payloads of ' if one.kind == 'payloads' else ''}{' and '.join(each) or 'nothing'}"
        say(f"{one.project_id}: {what} before {day(one.until_ms)}{' would be' if dry_run else ''} taken away")
    if nothing and not as_json:
        say("nothing is past its retention")
