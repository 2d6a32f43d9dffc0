"""How far ClickHouse's clock is from this machine's."""

import time
from typing import NamedTuple

from clickhouse_connect.driver.client import Client


class Ahead(NamedTuple):
    """How far another clock is ahead of ours, negative where it is behind, and how far off that may be, in ms."""

    ms: float
    doubt_ms: float


def clickhouse_ahead(client: Client) -> Ahead:
    """Ask ClickHouse for its time, which is as good as the way there and back is short."""
    asked_ns = time.time_ns()
    answered_ms = int(client.query("SELECT toUnixTimestamp64Milli(now64(3))").result_rows[0][0])
    took_ms = (time.time_ns() - asked_ns) / 1e6
    return Ahead(answered_ms - (asked_ns / 1e6 + took_ms / 2), took_ms / 2)
