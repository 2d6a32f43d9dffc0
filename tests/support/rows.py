"""Write events straight into ClickHouse as raw rows and rollups, for tests of the query service alone.

The rollups are made here a second time, by plain loops: what reads them must not be tested against what writes them.
"""

import contextlib
import random
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clickhouse_connect.driver.client import Client

from deploy import migrate
from ingest.contract.sketch import bucket
from ingest.contract.store import client as open_client
from ingest.contract.tables import NO_FIRST_CALL, TOOL_EXECUTIONS, USAGE_WINDOWS

MIGRATIONS = Path(__file__).parents[2] / "deploy" / "clickhouse"

_TOOL = ("tool_slug", "toolkit_slug", "status", "failure_class")
_USER = (*_TOOL, "user_id", "connected_account_id")
_SESSION = (*_USER, "session_id")
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
KINDS = {
    "tool_minute": (60_000, _TOOL),
    "tool_hour": (_HOUR_MS, _TOOL),
    "tool_day": (_DAY_MS, _TOOL),
    "user_hour": (_HOUR_MS, _USER),
    "session_hour": (_HOUR_MS, _SESSION),
}
PRESENCE = {"user_day": "user_id", "session_day": "session_id"}

# What an event may leave out.
DEFAULTS: Mapping[str, Any] = {
    "project_id": "proj_a",
    "tool_slug": "GMAIL_SEND_EMAIL",
    "toolkit_slug": "gmail",
    "user_id": "",
    "session_id": "",
    "status": "success",
    "failure_class": "",
    "http_status": 0,
    "duration_ms": 1.0,
    "level": "info",
    "message": "",
    "error_message": "",
    "error_code": "",
    "error_type": "",
    "connected_account_id": "",
    "auth_config_id": "",
    "sandbox_id": "",
    "parent_log_id": "",
    "parent_tool_slug": "",
    "trace_id": "",
    "request_id": "",
    "framework": "",
    "language": "",
    "host": "",
    "metadata": "",
    "data": "",
    "content_hash": 0,
    "kafka_partition": 0,
}


def insert(client: Client, events: Iterable[Mapping[str, Any]], *, batches: int = 3, seed: int = 0) -> None:
    """Insert events (columns of `tool_executions`; `id` and `timestamp` in epoch ms are required) in batches of random size."""
    chance = random.Random(seed)
    parts: list[list[dict[str, Any]]] = [[] for _ in range(batches)]
    for event in events:
        chance.choice(parts).append({**DEFAULTS, **event})
    for number, part in enumerate(parts):
        if part:
            _raw(client, part, number)
            _windows(client, part)


def report_progress(
    client: Client,
    *,
    complete_until_ms: Sequence[int],
    incarnation: str = "one",
    partitions: int | None = None,
    reported_ms: int = 1,
) -> None:
    """Insert one heartbeat a partition."""
    rows = [
        (incarnation, index, partitions or len(complete_until_ms), 5, 7, _moment(until), "worker", _moment(reported_ms))
        for index, until in enumerate(complete_until_ms)
    ]
    names = ["incarnation", "kafka_partition", "partitions", "next_offset", "end_offset", "complete_until", "worker"]
    names.append("reported_at")
    client.insert("progress", rows, column_names=names)


def _raw(client: Client, events: Sequence[Mapping[str, Any]], number: int) -> None:
    names = ["batch_month", "timestamp", "id", *DEFAULTS, "accepted_at", "incarnation", "first_offset", "kafka_offset"]
    rows = []
    for index, event in enumerate(events):
        at = _moment(event["timestamp"])
        rows.append([202601, at, event["id"], *(event[name] for name in DEFAULTS), at, "one", number, index])
    client.insert(TOOL_EXECUTIONS, rows, column_names=names)


def _windows(client: Client, events: Sequence[Mapping[str, Any]]) -> None:
    calls: dict[tuple[Any, ...], int] = defaultdict(int)
    durations: dict[tuple[Any, ...], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    first: dict[tuple[Any, ...], tuple[int, bytes]] = {}
    for event in events:
        for kind, (window_ms, keys) in KINDS.items():
            if kind == "session_hour" and not event["session_id"]:
                continue
            values = [event[name] if name in keys else "" for name in _SESSION]
            start = event["timestamp"] - event["timestamp"] % window_ms
            row = (kind, event["project_id"], event["kafka_partition"], start, *values)
            calls[row] += 1
            durations[row][bucket(event["duration_ms"])] += 1
            if kind == "session_hour":
                # As bytes: ids compare bytewise.
                first[row] = min(first.get(row, (2**63, b"")), (event["timestamp"], event["id"].encode()))
    names = ["kind", "project_id", "kafka_partition", "window_start", *_SESSION, "batch_month", "incarnation"]
    names += ["calls", "durations", "first_call"]
    rows = []
    for row, count in calls.items():
        kind, project, partition, start, *values = row
        at_ms, name = first.get(row, (NO_FIRST_CALL[0], NO_FIRST_CALL[1].encode()))
        fixed = [kind, project, partition, _moment(start), *values, 202601, "one"]
        rows.append([*fixed, count, dict(durations[row]), (at_ms, name.decode())])
    client.insert(USAGE_WINDOWS, rows, column_names=names)
    _presence(client, events)


def _presence(client: Client, events: Sequence[Mapping[str, Any]]) -> None:
    calls: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for event in events:
        for kind, column in PRESENCE.items():
            if event[column]:
                start = event["timestamp"] - event["timestamp"] % _DAY_MS
                values = (event[name] if name == column else "" for name in PRESENCE.values())
                calls[kind, event["project_id"], start, *values].append(event["timestamp"])
    names = ["kind", "project_id", "window_start", *PRESENCE.values(), "batch_month", "first_call", "last_call_ms"]
    rows = [
        [kind, project, _moment(start), *values, 202601, (min(at_ms), ""), max(at_ms)]
        for (kind, project, start, *values), at_ms in calls.items()
    ]
    if rows:
        client.insert(USAGE_WINDOWS, rows, column_names=names)


def _moment(at_ms: int) -> datetime:
    # From whole numbers: a float of seconds loses milliseconds.
    return datetime.fromtimestamp(at_ms // 1000, UTC).replace(microsecond=at_ms % 1000 * 1000)


@contextlib.contextmanager
def fresh_database(url: str) -> Iterator[str]:
    """Yield the address of a database of its own with all tables, and drop it afterwards."""
    name = f"query_{uuid.uuid4().hex[:12]}"
    with contextlib.closing(open_client(url)) as server:
        server.command(f"CREATE DATABASE {name}")
        address = urlsplit(url)._replace(path=f"/{name}").geturl()
        migrate.apply(address)
        yield address
        server.command(f"DROP DATABASE {name}")
