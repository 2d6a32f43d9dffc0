"""Clients that record calls, for tests that look at what becomes of them."""

import contextlib
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from ingest.client import Counts, ToolLedger
from tests.support.answering import Answering
from tests.support.ports import free_port

# Longer than any test is to take: what must not wait for it would be seen to.
LONG_S: Final = 30.0

Make = Callable[..., ToolLedger]


@contextlib.contextmanager
def making(spool: Path) -> Iterator[Make]:
    """Make clients that are closed in the end; without a server's address one that nobody listens at."""
    made: list[ToolLedger] = []

    def client(server: Answering | str | None = None, **options: Any) -> ToolLedger:
        url = server.url if isinstance(server, Answering) else server or f"http://127.0.0.1:{free_port()}"
        options = {"spool": spool, "flush_interval_s": 0.02, "close_timeout_s": 1, **options}
        made.append(ToolLedger(api_key="ak_test", base_url=url, **options))
        return made[-1]

    yield client
    for each in made:
        each.close(0)


def call(ledger: ToolLedger, count: int = 1, **labels: Any) -> list[str]:
    """Record calls, and return their ids."""
    return [ledger.record("A_TOOL", duration_ms=1, arguments={"n": number}, **labels) for number in range(count)]


def adds_up(counts: Counts) -> None:
    """Each call is in one place."""
    own = counts.dropped - counts.dropped_by_reason.get("damaged", 0)
    assert counts.recorded == counts.accepted + counts.rejected + counts.spooled + own + counts.waiting, counts


def spooled(folder: Path) -> list[str]:
    """Return the ids in the files of a folder."""
    lines = [line for path in sorted(folder.glob("*.gz")) for line in gzip.decompress(path.read_bytes()).splitlines()]
    return [json.loads(line)["id"] for line in lines]
