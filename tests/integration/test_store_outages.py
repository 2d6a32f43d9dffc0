"""The worker's store while ClickHouse is away, slow, refusing, or replaced by something else: calls fail in time, none lies."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from deploy import migrate
from ingest.contract.errors import StoreUnavailable
from ingest.contract.store import client
from processors.batch import Batch, Candidates, Prepared, read, settle
from processors.decode import Record
from processors.dedupe import SeenFilter, Suspects
from processors.sink import ClickHouseStore
from tests.support.faulty_clickhouse import CODES, PASS, Fault, FaultyClickHouse

pytestmark = pytest.mark.real

T = TypeVar("T")

TIMEOUT_MS = 700
UNANSWERED = [Fault(how="hang"), Fault(how="trickle"), Fault(how="delay", seconds=2)]
REFUSED = [Fault(how="refuse"), *(Fault(how="error", code=code) for code in CODES)]
CUT = [Fault(how="lose_answer"), Fault(how="cut_request"), Fault(how="cut_answer")]
STRANGE = [Fault(how="garbage"), Fault(how="empty"), Fault(how="noise")]


@pytest.fixture(scope="module")
def proxy(clickhouse_url: str) -> Iterator[FaultyClickHouse]:
    parts = urlsplit(clickhouse_url)
    made = FaultyClickHouse(parts.port or 8123, host=parts.hostname or "127.0.0.1")
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def database(clickhouse_url: str) -> Iterator[str]:
    """A database that holds what the questions ask for, so that none has an empty answer."""
    name = f"outages_{uuid4().hex[:8]}"
    migrate.apply(f"{clickhouse_url}/{name}")
    asyncio.run(_fill(f"{clickhouse_url}/{name}"))
    yield name
    store = client(clickhouse_url)
    store.command(f"DROP DATABASE {name}")
    store.close()


@asynccontextmanager
async def opened(proxy: FaultyClickHouse, database: str) -> AsyncIterator[ClickHouseStore]:
    store = ClickHouseStore(
        f"{proxy.url}/{database}", timeout_ms=TIMEOUT_MS, now_ms=lambda: time.time_ns() // 1_000_000, horizon_ms=86_400_000
    )
    proxy.switch(PASS)
    await answered(store.ping)
    try:
        yield store
    finally:
        proxy.switch(PASS)
        await store.close()


async def answered(call: Callable[[], Awaitable[T]]) -> T:
    """Call until it is answered, where nothing is in the way: on a busy machine it may take longer than calls have here."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await call()
            except StoreUnavailable:
                continue


async def _fill(url: str) -> None:
    store = ClickHouseStore(url, timeout_ms=30_000, now_ms=lambda: 0, horizon_ms=1)
    _, prepared = batch(1000)
    await store.write_executions(prepared)
    await store.write_usage(prepared)
    await store.close()


def batch(offset: int, *, event_id: str = "") -> tuple[Candidates, Prepared]:
    """One event in one batch, and the question whether its id is known."""
    event = {"id": event_id or f"log_{offset}", "tool_slug": "GMAIL_SEND_EMAIL", "status": "success", "duration_ms": 1}
    record = Record(
        offset=offset,
        timestamp_ms=time.time_ns() // 1_000_000,
        key=None,
        value=json.dumps(event).encode(),
        headers=[("project_id", b"demo")],
    )
    one = Batch(incarnation="i", partition=0, partitions=1, first_offset=offset, next_offset=offset + 1, records=[record])
    candidates = read(one, seen=SeenFilter(budget_bytes=1 << 20))
    asked = replace(candidates, suspects=Suspects(by_id=[0], by_time=[]))
    return asked, settle(candidates, known={}, stores_payload=lambda _: True, window_close_ms=300_000)


async def load(store: ClickHouseStore) -> int:
    seen = SeenFilter(budget_bytes=1 << 20)
    await store.load_ids(seen, partition=0, partitions=1)
    return seen.count


def heartbeat() -> tuple[object, ...]:
    now = datetime.now(tz=UTC)
    return ("i", 0, 1, 0, 0, now, 0, now, "worker", now)


@pytest.mark.parametrize("fault", [*UNANSWERED, *REFUSED, *CUT, *STRANGE], ids=lambda fault: f"{fault.how}{fault.code or ''}")
async def test_every_call_fails_in_time_and_none_is_believed(proxy: FaultyClickHouse, database: str, fault: Fault) -> None:
    """Whatever goes wrong, every call raises StoreUnavailable within its time limit, and works again right after."""
    async with opened(proxy, database) as store:
        _, prepared = batch(1000)
        asked, _ = batch(1001, event_id="log_1000")
        calls = {
            "proof": lambda: store.proof("i", 0, began=None),
            "known": lambda: store.known(asked),
            "landed": lambda: store.landed(prepared.batch),
            "landed_dead_letters": lambda: store.landed_dead_letters(prepared.batch),
            "load_ids": lambda: load(store),
            "ping": store.ping,
            "write_executions": lambda: store.write_executions(prepared),
            "write_usage": lambda: store.write_usage(prepared),
            "report": lambda: store.report([heartbeat()]),
            "remove": lambda: store.remove("nobody", 0, 0, None, before_rewind=1),
        }
        if fault.how == "cut_answer":
            # What ClickHouse said in the head of its answer stands: the insert is done.
            calls = {name: call for name, call in calls.items() if not name.startswith(("write", "report"))}
        if fault.how in ("trickle", "cut_answer"):
            # There are none, and an answer without a body is whole at once.
            del calls["landed_dead_letters"]
        proxy.switch(fault)
        started = time.monotonic()
        answers = await asyncio.gather(*(call() for call in calls.values()), return_exceptions=True)
        assert time.monotonic() - started < 10 * TIMEOUT_MS / 1000
        assert [name for name, answer in zip(calls, answers, strict=True) if not isinstance(answer, StoreUnavailable)] == []
        proxy.switch(PASS)
        for call in calls.values():
            await answered(call)


@pytest.mark.parametrize("how", ["refuse", "hang", "trickle", "garbage", "empty"])
async def test_a_store_that_was_never_there_is_found_when_it_comes(proxy: FaultyClickHouse, database: str, how: str) -> None:
    """The first call of all may meet an outage too: it fails in time, and the next one opens the connection."""
    store = ClickHouseStore(f"{proxy.url}/{database}", timeout_ms=TIMEOUT_MS, now_ms=lambda: 0, horizon_ms=1)
    try:
        with proxy.broken(Fault(how=how)), pytest.raises(StoreUnavailable):  # type: ignore[arg-type]
            await store.proof("nobody", 0, began=None)
        assert await answered(lambda: store.proof("nobody", 0, began=None)) is None
    finally:
        await store.close()


async def test_an_insert_is_never_sent_twice_in_one_call(proxy: FaultyClickHouse, database: str) -> None:
    """A second try may be refused as a duplicate of what never landed, so whoever asked must know that it was one."""
    async with opened(proxy, database) as store:
        _, prepared = batch(2000)
        for how in ("lose_answer", "cut_request", "apply_late"):
            proxy.switch(Fault(how=how))  # type: ignore[arg-type]
            with pytest.raises(StoreUnavailable):
                await store.write_executions(prepared)
            assert proxy.met == 1, how


async def test_an_insert_whose_answer_was_lost_or_that_comes_late_counts_once(
    proxy: FaultyClickHouse, database: str, clickhouse_url: str
) -> None:
    """Applied and unanswered, cut in its middle, applied seconds after it was tried again: the token lets it in once."""
    faults = [Fault(how="lose_answer"), Fault(how="cut_request"), Fault(how="apply_late", seconds=0.5), Fault(how="trickle")]
    async with opened(proxy, database) as store:
        for offset, fault in enumerate(faults):
            _, prepared = batch(offset)
            proxy.switch(fault)
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await store.write_executions(prepared)
            proxy.switch(PASS)
            await answered(partial(store.write_executions, prepared))
        proxy.settle()
    found = client(f"{clickhouse_url}/{database}")
    rows = found.query("SELECT first_offset, count() FROM tool_executions WHERE first_offset < 10 GROUP BY 1 ORDER BY 1")
    found.close()
    assert rows.result_rows == [(offset, 1) for offset in range(len(faults))]
