"""Rows of hours and days, as a migration makes them for what was there before workers wrote them."""

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from deploy.sql_text import statements
from ingest.contract.store import client as open_client
from tests.support.rows import MIGRATIONS, fresh_database, insert

KINDS = "('tool_hour', 'tool_day', 'user_day', 'session_day')"
SUMS = (
    "SELECT batch_month, kind, project_id, window_start, tool_slug, toolkit_slug, status, failure_class, user_id, session_id,"
    " sum(calls), sumMap(durations), min(first_call), max(last_call_ms), any(subject)"
    f" FROM usage_windows WHERE kind IN {KINDS} GROUP BY ALL ORDER BY ALL"
)


@pytest.fixture
def store(clickhouse_url: str) -> Iterator[Client]:
    with fresh_database(clickhouse_url) as address, closing(open_client(address)) as client:
        yield client


def events(count: int) -> list[dict[str, Any]]:
    """Make events around two borders of days, some without user or session, one at each end of its day."""
    chance = random.Random(9)
    day_ms = 86_400_000
    at = [chance.randrange(3 * day_ms) for _ in range(count)] + [day_ms, 2 * day_ms - 1]
    return [
        {
            "id": f"log_{number}",
            "timestamp": 1_744_243_200_000 + at_ms,
            "project_id": chance.choice(("proj_a", "proj_b")),
            "tool_slug": chance.choice(("GMAIL_SEND_EMAIL", "SLACK_SEND_MESSAGE")),
            "status": chance.choice(("success", "failed")),
            "user_id": chance.choice(("", "u1", "u2", "ü3")),
            "session_id": chance.choice(("", "s1", "s2")),
            "duration_ms": chance.choice((0.0, 1.5, 700.0)),
        }
        for number, at_ms in enumerate(at)
    ]


def test_a_migration_makes_of_old_rows_what_workers_write_of_new_ones(store: Client) -> None:
    """Sums of hours and days, and who called when, are the same; a migration that runs twice adds nothing twice."""
    insert(store, events(300), batches=4)
    written = store.query(SUMS).result_rows
    store.command(f"ALTER TABLE usage_windows DELETE WHERE kind IN {KINDS} SETTINGS mutations_sync = 2")
    assert store.query(SUMS).result_rows == []
    for _ in range(2):
        for statement in statements((Path(MIGRATIONS) / "0010_usage_days.sql").read_text()):
            store.command(statement)
    assert store.query(SUMS).result_rows == written
    assert {row[1] for row in written} == {"tool_hour", "tool_day", "user_day", "session_day"}
