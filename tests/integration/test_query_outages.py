"""Questions while ClickHouse is away, slow, or something else answers: refused in time, and nothing is read as "no rows"."""

import asyncio
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from ingest.contract.errors import QueryError, StoreUnavailable
from query_api import store as under_test
from query_api.settings import QuerySettings
from query_api.store import Reader
from tests.support.faulty_clickhouse import CODES, PASS, Fault, FaultyClickHouse

pytestmark = pytest.mark.real

# Refusals that have nothing to do with what was asked: too busy, no memory left for anybody, read-only, Keeper away.
TRY_AGAIN = (202, 241, 242, 999)
FAULTS = [
    *(Fault(how=how) for how in ("refuse", "hang", "trickle", "lose_answer", "cut_request", "cut_answer")),
    *(Fault(how=how) for how in ("garbage", "empty", "noise")),
    Fault(how="delay", seconds=30),
    *(Fault(how="error", code=code) for code in CODES),
]


@pytest.fixture(scope="module")
def proxy(clickhouse_url: str) -> Iterator[FaultyClickHouse]:
    parts = urlsplit(clickhouse_url)
    made = FaultyClickHouse(parts.port or 8123, host=parts.hostname or "127.0.0.1")
    made.start()
    yield made
    made.stop()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.how}{fault.code or ''}")
async def test_a_question_is_refused_in_time(proxy: FaultyClickHouse, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many at once: each is refused within the limit, none is answered with nothing, and the next one is answered."""
    monkeypatch.setattr(under_test, "_READ_SLACK_S", 0.2)
    reader = Reader(QuerySettings(clickhouse=proxy.url, query_time_s_max=1, query_in_flight_max=4))
    try:
        assert await reader.system_rows("SELECT 1 WHERE 0") == []
        with proxy.broken(fault):
            began = time.monotonic()
            answers = await asyncio.gather(
                *(reader.system_rows("SELECT number FROM numbers(20)") for _ in range(8)), return_exceptions=True
            )
            assert time.monotonic() - began < 15
        assert [answer for answer in answers if not isinstance(answer, StoreUnavailable | QueryError)] == []
        if fault.code in TRY_AGAIN:
            assert all(isinstance(answer, StoreUnavailable) for answer in answers), "it is not the question's fault"
        assert await reader.system_rows("SELECT 1") == [[1]]
    finally:
        await reader.close()
        proxy.switch(PASS)
