"""Render the statements of the numbered SQL files for a cluster. Pure; the same files serve one server and many.

Each table becomes two: `NAME_local`, replicated within its shard, and `NAME`, distributed over all shards. Rows go to the
shard of their Kafka partition, because a batch's token must meet itself and its block must stay whole.
"""

import re
from typing import Final

from ingest.contract.errors import ConfigurationError

# A week: longer than any outage after which a worker would repeat a batch without asking the receipts first.
_DEDUPLICATION_WINDOW_S: Final = 7 * 24 * 3600
_NAME: Final = r"(?:`[^`]+`|\w+)"
_CREATE_TABLE: Final = re.compile(
    rf"CREATE TABLE IF NOT EXISTS ({_NAME}) (\(.*\)) ENGINE = (\w*MergeTree)(\(.*?\))? (.*)", re.DOTALL
)
_CREATE_OTHER: Final = re.compile(
    rf"(CREATE (?:OR REPLACE )?(?:MATERIALIZED )?(?:VIEW|FUNCTION|DICTIONARY)(?: IF NOT EXISTS)? {_NAME})(.*)", re.DOTALL
)
_ALTER_TABLE: Final = re.compile(rf"ALTER TABLE ({_NAME}) (.*)", re.DOTALL)
# A distributed table has columns, and nothing of how they are stored.
_FILL: Final = re.compile(r"INSERT INTO .* SELECT .*", re.DOTALL)
_COLUMN_CHANGE: Final = re.compile(r"(ADD|DROP|RENAME|MODIFY|COMMENT) COLUMN ")
_PLAIN_WINDOW: Final = re.compile(r"\bnon_replicated_deduplication_window = (\d+)")


def render(statement: str, cluster: str) -> list[str]:
    """Turn one statement (as `sql_text.statements` gives it) into what a cluster needs, in the order to run it.

    Raises:
        ConfigurationError: the statement is of a kind that has no known form on a cluster.
    """
    on_cluster = f"ON CLUSTER '{cluster}'"
    if match := _CREATE_TABLE.fullmatch(statement):
        name, columns, engine, arguments, rest = match.groups()
        return [
            f"CREATE TABLE IF NOT EXISTS {_local(name)} {on_cluster} {columns} "
            f"ENGINE = {_replicated(engine, arguments)} {_replicated_settings(rest)}",
            f"CREATE TABLE IF NOT EXISTS {name} {on_cluster} AS {_local(name)} "
            f"ENGINE = Distributed('{cluster}', currentDatabase(), {_local(name)}, kafka_partition)",
        ]
    if match := _ALTER_TABLE.fullmatch(statement):
        name, change = match.groups()
        local = f"ALTER TABLE {_local(name)} {on_cluster} {change}"
        return [local, f"ALTER TABLE {name} {on_cluster} {change}"] if _COLUMN_CHANGE.match(change) else [local]
    if match := _CREATE_OTHER.fullmatch(statement):
        return [f"{match.group(1)} {on_cluster}{match.group(2)}"]
    if _FILL.fullmatch(statement):
        # Distributed tables take it as it is; asked of one server, it reads and writes all shards once.
        return [statement]
    raise ConfigurationError(f"no form for a cluster is known for the statement: {statement[:80]}")


def _local(name: str) -> str:
    return f"`{name.strip('`')}_local`" if name.startswith("`") else f"{name}_local"


def _replicated(engine: str, arguments: str | None) -> str:
    inner = (arguments or "()")[1:-1].strip()
    place = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"
    return f"Replicated{engine}({place}{', ' + inner if inner else ''})"


def _replicated_settings(rest: str) -> str:
    return _PLAIN_WINDOW.sub(
        rf"replicated_deduplication_window = \1, replicated_deduplication_window_seconds = {_DEDUPLICATION_WINDOW_S}", rest
    )
