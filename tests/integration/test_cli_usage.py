"""`toolledger usage` against a running query service: what is left out where there is more than it shows."""

import contextlib
import json
import time

import pytest
import pytest_asyncio

from ingest.contract.store import client as open_client
from tests.integration.test_cli_logs import run
from tests.support import rows
from tests.support.query_service import query_service

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

HOUR_MS = 3_600_000
AGO = (0, 1, 2, 60, 100)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(clickhouse_url):
    now = time.time_ns() // 1_000_000
    with rows.fresh_database(clickhouse_url) as address:
        with contextlib.closing(open_client(address)) as client:
            rows.insert(client, [{"id": f"log_{hours}", "timestamp": now - hours * HOUR_MS} for hours in AGO])
        async with query_service(address) as service:
            yield service.url


async def test_of_a_long_series_the_newest_are_shown(url):
    """The present hour is the last row, in the table and as JSON, and it is said that older ones were left out."""
    status, out, err = await run(url, "usage", "--by", "hour", "--json")
    assert status == 0
    shown = [json.loads(line) for line in out.splitlines()]
    starts = [row["start"] for row in shown]
    assert starts == list(range(starts[0], starts[0] + 50 * HOUR_MS, HOUR_MS))
    assert starts[-1] > time.time() * 1000 - 2 * HOUR_MS
    assert sum(row["calls"] for row in shown) == 3
    status, out, err = await run(url, "usage", "--by", "hour", "--limit", "2")
    assert status == 0
    hours = [line.split()[:3] for line in out.splitlines() if line.strip()[:4].isdigit()]
    assert len(hours) == 2
    assert hours == sorted(hours)
    assert "the newest 2 hours; --limit shows older ones" in err


async def test_a_series_that_is_whole_says_nothing_of_more(url):
    """As many days as there are: nothing is left out, and nothing is said of it."""
    status, out, err = await run(url, "usage", "--by", "day", "--since", "6d", "--limit", "7")
    assert status == 0
    assert "newest" not in err
    days = [line.split()[0] for line in out.splitlines() if line.strip()[:4].isdigit()]
    assert len(days) == 7
    assert days == sorted(days)
