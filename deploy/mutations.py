"""Wait until ClickHouse has rewritten what it was asked to, which it does by itself, after it has answered."""

import time
from collections.abc import Callable
from typing import Final

from clickhouse_connect.driver.client import Client

from ingest.contract.errors import StoreUnavailable

_MUTATIONS: Final = (
    "SELECT parts_to_do, latest_fail_reason FROM system.mutations"
    " WHERE database = currentDatabase() AND NOT is_done AND NOT is_killed ORDER BY create_time"
)
_ASK_S: Final = 0.1
_TELL_S: Final = 5.0


def await_mutations(client: Client, what: str, waits: Callable[[str], None]) -> None:
    """Wait for all that are open.

    Args:
        what: whose they are, for people.
        waits: told, every now and then, what is waited for.

    Raises:
        StoreUnavailable: the engine cannot; it goes on trying, and whoever waits next waits for it again.
    """
    told = time.monotonic()
    while open_ones := client.query(_MUTATIONS).result_rows:
        parts, failed = open_ones[0]
        if failed:
            reason = " ".join(failed.split())[:300]
            raise StoreUnavailable(f"{what}: ClickHouse goes on trying to rewrite rows, so far in vain: {reason}")
        if time.monotonic() - told > _TELL_S:
            told = time.monotonic()
            waits(f"waiting for {what}: ClickHouse rewrites rows, {parts} parts to go")
        time.sleep(_ASK_S)  # the engine tells nobody when it is done
