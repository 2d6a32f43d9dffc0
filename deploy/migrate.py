"""Apply the numbered SQL files of `deploy/clickhouse` in order, each once, and record it in `schema_migrations`.

Safe to repeat, and to run from several processes at once: every statement says IF NOT EXISTS, and a version that is recorded
twice is one version. A crash in the middle of a file leaves it unrecorded; the next run goes over it again.
"""

import contextlib
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlunsplit

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from deploy.cluster_sql import render
from deploy.mutations import await_mutations
from deploy.sql_text import statements
from ingest.contract import store
from ingest.contract.errors import ConfigurationError
from ingest.contract.tables import SCHEMA_MIGRATIONS

FOLDER: Final = Path(__file__).parent / "clickhouse"
_FILE: Final = re.compile(r"(\d{4})_(\w+)\.sql")
# What a file was before a change that only tables made from then on need to have.
_FORMER: Final = re.compile(r"^-- former checksum: ([0-9a-f]{64})$", re.MULTILINE)
_DATABASE: Final = re.compile(r"\w{1,128}")
_COLUMNS: Final = "(version UInt32, name String, checksum String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One numbered file.

    Args:
        former: checksums it had before, of which nothing has to be done where it was applied.
    """

    version: int
    name: str
    statements: tuple[str, ...]
    former: frozenset[str] = frozenset()

    @property
    def checksum(self) -> str:
        """SHA-256 over the statements: comments and layout may change, what is done may not."""
        return hashlib.sha256(";\n".join(self.statements).encode()).hexdigest()

    @property
    def label(self) -> str:
        """The file's name without its ending."""
        return f"{self.version:04d}_{self.name}"


def read(folder: Path = FOLDER) -> list[Migration]:
    """Read the numbered files, in order.

    Raises:
        ConfigurationError: a name that is not NNNN_name.sql, or a number that stands twice.
    """
    found: dict[int, Migration] = {}
    for path in sorted(folder.glob("*.sql")):
        match = _FILE.fullmatch(path.name)
        if match is None:
            raise ConfigurationError(f"{path.name} is no migration: name it NNNN_name.sql")
        version = int(match.group(1))
        if version in found:
            raise ConfigurationError(f"{path.name} has the number of {found[version].label}: give it the next free one")
        text = path.read_text(encoding="utf-8")
        former = frozenset(_FORMER.findall(text))
        found[version] = Migration(version=version, name=match.group(2), statements=tuple(statements(text)), former=former)
    return list(found.values())


def pending(migrations: Sequence[Migration], recorded: Sequence[tuple[int, str]]) -> list[Migration]:
    """List what is not applied yet. Versions that only the database knows are left alone: a newer program put them there.

    Args:
        migrations: the files.
        recorded: version and checksum of what was applied; a version may stand more than once.

    Raises:
        ConfigurationError: a file was changed after it was applied.
    """
    for migration in migrations:
        known = {migration.checksum, *migration.former}
        if any(version == migration.version and checksum not in known for version, checksum in recorded):
            raise ConfigurationError(
                f"{migration.label}.sql was changed after it was applied: restore it, and put the change into a new file"
            )
    applied = {version for version, _ in recorded}
    return [migration for migration in migrations if migration.version not in applied]


def apply(
    url: str,
    *,
    dry_run: bool = False,
    cluster: str | None = None,
    folder: Path = FOLDER,
    waits: Callable[[str], None] = lambda _: None,
) -> list[Migration]:
    """Apply what is missing, in order.

    Args:
        url: ClickHouse address; its database is created if missing.
        dry_run: only tell what is missing.
        cluster: name of the cluster to render for; None for a single server.
        folder: where the numbered files lie.
        waits: told, every now and then, what is waited for while rows that are there already are rewritten.

    Returns:
        What was applied, or what would be.

    Raises:
        ConfigurationError: a file or the database's name cannot be used.
        StoreUnavailable: ClickHouse did not answer or refused a statement.
    """
    migrations = read(folder)
    with store.told(url):
        database = _ensure_database(url, dry_run=dry_run, cluster=cluster)
        if database is None:
            return migrations
        with contextlib.closing(store.client(url)) as client:
            missing = pending(migrations, _recorded(client, database))
            if not dry_run:
                _ensure_table(client, cluster)
                for migration in missing:
                    _apply_one(client, migration, cluster, waits)
            return missing


def _ensure_database(url: str, *, dry_run: bool, cluster: str | None) -> str | None:
    """Return the database's name; None where a dry run found it missing."""
    parts = store.address(url)
    name = parts.path.strip("/") or "default"
    if not _DATABASE.fullmatch(name):
        raise ConfigurationError(f"{name!r} cannot be a database: use letters, digits and underscores")
    # A client cannot connect to a database that is not there yet.
    client = store.client(urlunsplit(parts._replace(path="")))
    try:
        if _exists(client, "SELECT 1 FROM system.databases WHERE name = {name:String}", {"name": name}):
            return name
        if dry_run:
            return None
        client.command(f"CREATE DATABASE IF NOT EXISTS `{name}`{_on(cluster)}")
        return name
    finally:
        client.close()


def _recorded(client: Client, database: str) -> list[tuple[int, str]]:
    names = {"database": database, "table": SCHEMA_MIGRATIONS}
    if not _exists(client, "SELECT 1 FROM system.tables WHERE database = {database:String} AND name = {table:String}", names):
        return []
    rows = client.query(f"SELECT version, checksum FROM {SCHEMA_MIGRATIONS}").result_rows
    return [(int(version), str(checksum)) for version, checksum in rows]


def _exists(client: Client, query: str, parameters: dict[str, str]) -> bool:
    return bool(client.query(query, parameters).result_rows)


def _ensure_table(client: Client, cluster: str | None) -> None:
    # One record for the whole cluster: its place in Keeper names no shard.
    place = "'/clickhouse/tables/all/{database}/{table}', '{replica}_{shard}', "
    engine = f"ReplicatedReplacingMergeTree({place}applied_at)" if cluster else "ReplacingMergeTree(applied_at)"
    # Ordered by both, so that two files under one number never hide one another.
    client.command(
        f"CREATE TABLE IF NOT EXISTS {SCHEMA_MIGRATIONS}{_on(cluster)} {_COLUMNS} ENGINE = {engine}"
        " ORDER BY (version, checksum)"
    )


def _apply_one(client: Client, migration: Migration, cluster: str | None, waits: Callable[[str], None]) -> None:
    for statement in migration.statements:
        for text in render(statement, cluster) if cluster else [statement]:
            # What is rewritten is waited for below, for as long as it takes, and not within one answer.
            try:
                client.command(text, settings={"mutations_sync": 0})
            except ClickHouseError as error:
                # A setting that this version of the engine does not know is one that it does without.
                if " MODIFY SETTING " not in text or "UNKNOWN_SETTING" not in str(error):
                    raise
            if text.startswith("ALTER "):
                await_mutations(client, migration.label, waits)
    # Recorded only when all of it is there; what survives a crash before this line is run again.
    client.insert(
        SCHEMA_MIGRATIONS,
        [[migration.version, migration.name, migration.checksum]],
        column_names=["version", "name", "checksum"],
        column_type_names=["UInt32", "String", "String"],
    )


def _on(cluster: str | None) -> str:
    if cluster is None:
        return ""
    if not re.fullmatch(r"[\w.-]{1,128}", cluster):
        raise ConfigurationError(f"{cluster!r} cannot be a cluster: use letters, digits, dots, dashes and underscores")
    return f" ON CLUSTER '{cluster}'"
