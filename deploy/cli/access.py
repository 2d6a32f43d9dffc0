"""Commands that write keys and project rules to the control topic."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

import click

from deploy.cli.common import data_option, json_option, kafka_address, kafka_option, quiet_libraries, say, say_json


@click.group(epilog="Example: toolledger keys create --project demo --name 'my laptop'")
def keys() -> None:
    """Create, list and revoke API keys. Only a key's hash is stored."""


@keys.command("create", epilog="Example: toolledger keys create --project demo --name 'my laptop'")
@data_option
@kafka_option
@click.option("--project", default="", metavar="P", help="The project the key belongs to.")
@click.option("--org", default="", metavar="O", help="The organisation; without --project the key is for all of its projects.")
@click.option("--name", default="", metavar="N", help="For people.")
@click.option(
    "--scope", type=click.Choice(["full", "read", "ingest"]), default="full", show_default=True, help="What it may do."
)
@json_option
def create(data: Path, kafka: str | None, project: str, org: str, name: str, scope: str, as_json: bool) -> None:
    """Create a key and print it: once, because nobody can read it again."""
    from ingest.keys import create_key

    quiet_libraries()
    may = cast(Literal["full", "read", "ingest"], scope)
    made, plain = asyncio.run(create_key(kafka_address(kafka, data), project_id=project, org_id=org, name=name, scope=may))
    if as_json:
        say_json(id=made.id, project=made.project_id, key=plain)
    else:
        say(f"{plain}\nkept only as a hash: note it now. Its id is {made.id}, for `toolledger keys revoke {made.id}`.")


@keys.command("list", epilog="Example: toolledger keys list")
@data_option
@kafka_option
@json_option
def list_(data: Path, kafka: str | None, as_json: bool) -> None:
    """List all keys, revoked ones too, oldest first."""
    from ingest.keys import list_keys

    quiet_libraries()
    found = asyncio.run(list_keys(kafka_address(kafka, data)))
    if as_json:
        for key in found:
            say_json(
                id=key.id,
                project=key.project_id,
                org=key.org_id,
                name=key.name,
                scope=key.scope,
                created_at=_iso(key.created_at_ms),
                revoked_at=_iso(key.revoked_at_ms),
            )
        return
    from deploy.cli.tables import table

    rows = [
        (
            key.id,
            key.project_id,
            key.org_id,
            key.name,
            key.scope,
            _iso(key.created_at_ms),
            _iso(key.revoked_at_ms) or "in force",
        )
        for key in found
    ]
    table(["id", "project", "organisation", "name", "scope", "created", "revoked"], rows, empty="there are no keys yet")


@keys.command("revoke", epilog="Example: toolledger keys revoke key_0123456789ab")
@data_option
@kafka_option
@click.argument("key_id")
@json_option
def revoke(data: Path, kafka: str | None, key_id: str, as_json: bool) -> int:
    """Revoke a key by its id; every service refuses it within a second. Exit 1 if there is no such key."""
    from ingest.keys import revoke_key

    quiet_libraries()
    found = asyncio.run(revoke_key(kafka_address(kafka, data), key_id))
    if as_json:
        say_json(id=key_id, found=found is not None, revoked_at=_iso(found.revoked_at_ms) if found else None)
    else:
        say(f"{key_id} is revoked" if found else f"there is no key {key_id}: see `toolledger keys list`")
    return 0 if found else 1


@click.group(epilog="Example: toolledger projects set demo --store-payloads no --retention-days 90")
def projects() -> None:
    """Set what is stored of a project, and for how long."""


@projects.command("set", epilog="Example: toolledger projects set demo --store-payloads no --retention-days 90")
@data_option
@kafka_option
@click.argument("project")
@click.option("--store-payloads", type=click.Choice(["yes", "no"]), help="Whether requests and responses are stored.")
@click.option(
    "--retention-days",
    type=click.IntRange(0),
    help="How many whole days of logs and usage are kept; 0: all. `toolledger retention` carries it out.",
)
@click.option(
    "--payload-retention-days",
    type=click.IntRange(0),
    help="The same of requests, responses and dead letters alone; 0: as long as their logs.",
)
@click.option("--org", metavar="O", help="The organisation the project belongs to, whatever its keys say.")
@json_option
def set_(
    data: Path,
    kafka: str | None,
    project: str,
    store_payloads: str | None,
    retention_days: int | None,
    payload_retention_days: int | None,
    org: str | None,
    as_json: bool,
) -> None:
    """Change a project's rules; what is not named stays as it was."""
    from ingest.keys import set_rules

    changes: dict[str, Any] = {}
    if store_payloads is not None:
        changes["store_payloads"] = store_payloads == "yes"
    if retention_days is not None:
        changes["retention_days"] = retention_days or None
    if payload_retention_days is not None:
        changes["payload_retention_days"] = payload_retention_days or None
    if org is not None:
        changes["org_id"] = org
    if not changes:
        raise click.UsageError("nothing to set: name at least one rule.", click.get_current_context())
    quiet_libraries()
    rules = asyncio.run(set_rules(kafka_address(kafka, data), project, **changes))
    members = {
        "project": rules.project_id,
        "org": rules.org_id,
        "store_payloads": rules.store_payloads,
        "retention_days": rules.retention_days,
        "payload_retention_days": rules.payload_retention_days,
    }
    if as_json:
        say_json(**members)
    else:
        say(", ".join(f"{name} {'default' if value is None else value}" for name, value in members.items() if value != ""))


def _iso(moment_ms: int | None) -> str | None:
    if moment_ms is None:
        return None
    return datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
