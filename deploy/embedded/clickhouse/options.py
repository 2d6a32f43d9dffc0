"""What one embedded server is started with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MEBIBYTE = 1024 * 1024

# A query holds a thread while it runs. Sixty-four readers and writers are far more than two cores can serve at once; a
# request beyond that waits for a thread, as it would wait for a core.
DEFAULT_QUERY_THREADS = 64

# A quarter of the machine leaves room for Kafka, the workers and the page cache that ClickHouse relies on.
DEFAULT_MEMORY_SHARE = 4


def _machine_memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickHouseOptions:
    """Settings of one embedded server; every limit has its reason beside it.

    Args:
        data: folder that holds the tables; made if it is missing, owned by one process at a time.
        host: address to listen on.
        port: TCP port; 0 takes a free one.
        users: name to password. ClickHouse's own users do not exist in chDB, so access is decided here.
        memory_bytes: what all queries together may hold (`max_server_memory_usage`); 0 takes a quarter of the machine.
        threads: threads one query may use (`max_threads`); 0 takes the number of cores.
        query_threads: how many requests run at once; further ones wait their turn.
        body_memory_bytes: a request body or a buffered result beyond this goes to an unlinked file in the data folder.
        stop_grace_seconds: how long running queries may go on after SIGTERM before they are cancelled.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 8123
    users: Mapping[str, str] = field(default_factory=lambda: {"default": ""})
    memory_bytes: int = 0
    threads: int = 0
    query_threads: int = DEFAULT_QUERY_THREADS
    body_memory_bytes: int = 64 * MEBIBYTE
    stop_grace_seconds: float = 10.0

    @property
    def effective_memory_bytes(self) -> int:
        """The memory cap in force, in bytes; at least 512 MiB, below which the engine refuses ordinary merges."""
        return self.memory_bytes or max(512 * MEBIBYTE, _machine_memory_bytes() // DEFAULT_MEMORY_SHARE)

    @property
    def effective_threads(self) -> int:
        """Threads one query may use."""
        return self.threads or os.cpu_count() or 1
