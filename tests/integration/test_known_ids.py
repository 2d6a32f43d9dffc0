"""What ClickHouse is asked about ids, over parts large enough for its indexes and projections to matter."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from uuid import uuid4

import numpy as np
import pytest

from deploy import migrate
from ingest.contract.partitioning import event_key, home_partitions
from ingest.contract.store import client
from processors.batch import Batch, Candidates, read
from processors.decode import Record
from processors.dedupe import SeenFilter, Suspects, id_hashes
from processors.sink import ClickHouseStore

pytestmark = pytest.mark.real

ROWS = 300_000
START_MS = 1_776_421_500_000
STEP_MS = 100
PARTITIONS = 4


@pytest.fixture(scope="module")
def url(clickhouse_url: str) -> Iterator[str]:
    """A database with one merged part, as an old one is: 300,000 ids, accepted one after another."""
    name = f"known_{uuid4().hex[:8]}"
    migrate.apply(f"{clickhouse_url}/{name}")
    store = client(f"{clickhouse_url}/{name}")
    for third in range(3):
        store.command(
            "INSERT INTO tool_executions (batch_month, project_id, timestamp, id, content_hash, accepted_at, incarnation,"
            f" kafka_partition, kafka_offset) SELECT 202604, 'p', fromUnixTimestamp64Milli({START_MS} + {STEP_MS} * n, 'UTC'),"
            f" concat('log_', toString(n)), n, fromUnixTimestamp64Milli({START_MS} + {STEP_MS} * n, 'UTC'), 'i', 0, n"
            f" FROM (SELECT toInt64(number * 3 + {third}) AS n FROM numbers({ROWS // 3}))"
        )
    store.command("OPTIMIZE TABLE tool_executions FINAL")
    yield f"{clickhouse_url}/{name}"
    store.command(f"DROP DATABASE {name}")
    store.close()


@pytest.fixture
async def store(url: str) -> AsyncIterator[ClickHouseStore]:
    made = opened(url, horizon_ms=10 * ROWS * STEP_MS)
    yield made
    await made.close()


def opened(url: str, *, horizon_ms: int) -> ClickHouseStore:
    return ClickHouseStore(url, timeout_ms=30_000, now_ms=lambda: START_MS + ROWS * STEP_MS, horizon_ms=horizon_ms)


def asked(numbers: list[int], *, delay_ms: int = 0, by_time: bool = False, first_offset: int = ROWS) -> Candidates:
    """Ask about the events of some numbers, stamped as they were or later, in a batch at an offset."""
    events = [
        {
            "id": f"log_{n}",
            "tool_slug": "T",
            "status": "success",
            "duration_ms": 1,
            "timestamp": START_MS + STEP_MS * n + delay_ms,
        }
        for n in numbers
    ]
    record = Record(
        offset=first_offset,
        timestamp_ms=START_MS + ROWS * STEP_MS,
        key=None,
        value=json.dumps(events).encode(),
        headers=[("project_id", b"p")],
    )
    batch = Batch(
        incarnation="i", partition=0, partitions=1, first_offset=first_offset, next_offset=first_offset + 1, records=[record]
    )
    places = list(range(len(numbers)))
    suspects = Suspects(by_id=[], by_time=places) if by_time else Suspects(by_id=places, by_time=[])
    return replace(read(batch, seen=SeenFilter(budget_bytes=1 << 20)), suspects=suspects)


@pytest.mark.parametrize("count", [1, 13, 700, 9_000])
@pytest.mark.parametrize("delay_ms", [0, 1])
async def test_every_known_id_is_found_in_a_merged_part(store: ClickHouseStore, count: int, delay_ms: int) -> None:
    """Known ids are found whether they come with their timestamp or another; unknown ones among them are not."""
    numbers = [*range(0, ROWS, ROWS // count)][:count]
    unknown = [ROWS + n for n in range(10)]
    found = await store.known(asked([*numbers, *unknown], delay_ms=delay_ms))
    assert found == dict(enumerate(numbers))


async def test_a_backfill_is_found_by_its_time_only(store: ClickHouseStore) -> None:
    """An event older than the filter reaches is known if all of its key is: then, and only then, it was sent before."""
    numbers = list(range(0, ROWS, 300))
    assert await store.known(asked(numbers, by_time=True)) == dict(enumerate(numbers))
    assert await store.known(asked(numbers, by_time=True, delay_ms=1)) == {}


@pytest.mark.parametrize("by_time", [False, True])
async def test_what_the_batch_itself_wrote_does_not_make_it_known(store: ClickHouseStore, by_time: bool) -> None:
    """Row n came from offset n: in a batch that covers offset 7 alone, seven is new and its neighbours are known."""
    numbers = [6, 7, 8]
    found = await store.known(asked(numbers, by_time=by_time, first_offset=7))
    assert found == {0: 6, 2: 8}


async def test_a_filter_is_loaded_with_every_id_at_home(store: ClickHouseStore) -> None:
    """Partitions that open together or alone get all of their ids; the filters of all hold each id once."""
    keys = [event_key("p", f"log_{n}") for n in range(ROWS)]
    hashes, homes = id_hashes(keys), home_partitions(keys, PARTITIONS)
    together = [SeenFilter(budget_bytes=1 << 20) for _ in range(PARTITIONS)]
    alone = SeenFilter(budget_bytes=1 << 20)
    await asyncio.gather(*(store.load_ids(seen, partition=home, partitions=PARTITIONS) for home, seen in enumerate(together)))
    await store.load_ids(alone, partition=2, partitions=PARTITIONS)
    for home, seen in [*enumerate(together), (2, alone)]:
        mine = hashes[homes == home]
        assert seen.maybe(mine).all()
        assert seen.count == len(mine)
        assert seen.reach_ms == 0
        assert seen.maybe(hashes[homes != home]).mean() < 0.02


async def test_a_filter_tells_how_far_back_it_reaches(url: str) -> None:
    """What is older than the horizon, or more than fits, is left out, and everything accepted from `reach_ms` on is in."""
    hashes = id_hashes([event_key("p", f"log_{n}") for n in range(ROWS)])
    accepted = np.arange(ROWS) * STEP_MS + START_MS
    for horizon_ms, budget_bytes in ((ROWS * STEP_MS // 4, 1 << 20), (10 * ROWS * STEP_MS, 1 << 18)):
        store = opened(url, horizon_ms=horizon_ms)
        seen = SeenFilter(budget_bytes=budget_bytes)
        await store.load_ids(seen, partition=0, partitions=1)
        await store.close()
        assert START_MS < seen.reach_ms <= START_MS + ROWS * STEP_MS
        assert seen.maybe(hashes[accepted >= seen.reach_ms]).all()
        assert seen.nbytes <= budget_bytes
        # It holds what it can: the horizon's quarter, or at least three quarters of the room there is.
        assert seen.count >= min(ROWS // 4, seen.capacity * 3 // 4)
