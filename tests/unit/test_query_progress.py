"""Until when answers are complete, from heartbeats."""

import asyncio

import pytest

from ingest.contract.errors import StoreUnavailable
from ingest.contract.tables import SCHEMA_VERSION
from query_api.progress import UNKNOWN_MS, Freshness, progress, require_schema


def beat(partition, until_ms, *, incarnation="new", partitions=2, reported_ms=10, version=SCHEMA_VERSION):
    return [incarnation, partition, partitions, 5, 7, until_ms, reported_ms, version]


def test_the_slowest_partition_decides():
    """Events spread over all partitions, so the least of them holds for every project."""
    found = progress([beat(1, 900), beat(0, 700)], now_ms=1000)
    assert found.complete_until_ms == 700
    assert [one.partition for one in found.partitions] == [0, 1]


def test_a_partition_that_never_reported_makes_it_unknown():
    """Nothing is claimed for rows that may be missing."""
    assert progress([beat(1, 900)], now_ms=1000).complete_until_ms == UNKNOWN_MS
    assert progress([], now_ms=1000).complete_until_ms == UNKNOWN_MS


def test_it_never_lies_ahead_of_the_clock():
    """A worker whose clock runs ahead cannot promise the future."""
    assert progress([beat(0, 5000, partitions=1)], now_ms=1000).complete_until_ms == 1000


def test_a_former_incarnation_of_the_topic_counts_no_more():
    """After the topic was made anew, old heartbeats say nothing about it."""
    old = beat(1, 9, incarnation="old", reported_ms=1)
    assert progress([beat(0, 900), old], now_ms=1000).complete_until_ms == UNKNOWN_MS
    assert progress([beat(0, 900), beat(1, 800), old], now_ms=1000).complete_until_ms == 800


def test_tables_of_an_older_version_are_refused_and_newer_ones_taken():
    """A migration adds what a newer program counts on, and keeps what an older one does."""
    require_schema([])
    require_schema([beat(0, 900, version=SCHEMA_VERSION + 1)])
    with pytest.raises(StoreUnavailable, match="toolledger migrate"):
        require_schema([beat(0, 900, version=SCHEMA_VERSION - 1)])


class Asked:
    """A reader whose answers a test gives, and a clock that stands still until it is moved."""

    def __init__(self):
        self.answers = []
        self.now_s = 1000.0
        self.freshness = Freshness(self, cache_s=0.2, now=lambda: self.now_s, monotonic=lambda: self.now_s)

    async def system_rows(self, _text):
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]

    async def known(self, until_ms):
        """Have it know a time as of now."""
        got = await self.begin()
        self.answers[-1].set_result([beat(0, until_ms, partitions=1)])
        assert (await got).complete_until_ms == until_ms

    async def begin(self):
        """Ask, and run until it waits."""
        got = asyncio.create_task(self.freshness.get())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return got


def test_requests_that_come_together_share_one_question():
    """Whoever asked first may go away meanwhile; the others get the answer."""

    async def run():
        asked = Asked()
        first, second = await asked.begin(), await asked.begin()
        first.cancel()
        await asyncio.sleep(0)
        asked.answers[0].set_result([beat(0, 700, partitions=1)])
        assert (await second).complete_until_ms == 700
        assert len(asked.answers) == 1

    asyncio.run(run())


def test_what_is_known_is_told_while_the_next_is_on_its_way():
    """No request waits for progress where requests come all the time."""

    async def run():
        asked = Asked()
        await asked.known(700)
        asked.now_s += 0.3
        assert (await (await asked.begin())).complete_until_ms == 700
        assert (await (await asked.begin())).complete_until_ms == 700
        assert len(asked.answers) == 2, "one question is on its way for both"
        asked.answers[1].set_result([beat(0, 900, partitions=1)])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (await asked.freshness.get()).complete_until_ms == 900
        assert len(asked.answers) == 2

    asyncio.run(run())


def test_what_is_a_heartbeat_old_is_told_no_more():
    """After a pause a request waits for the answer of now."""

    async def run():
        asked = Asked()
        await asked.known(700)
        asked.now_s += 1.1
        got = await asked.begin()
        assert not got.done()
        asked.answers[1].set_result([beat(0, 900, partitions=1)])
        assert (await got).complete_until_ms == 900

    asyncio.run(run())


def test_a_failure_nobody_waited_for_is_told_once_what_is_known_is_old():
    """An outage of ClickHouse is not hidden by what was known before, and the next question after it counts again."""

    async def run():
        asked = Asked()
        await asked.known(700)
        asked.now_s += 0.3
        assert (await (await asked.begin())).complete_until_ms == 700
        asked.answers[1].set_exception(StoreUnavailable("away"))
        asked.now_s += 1
        got = await asked.begin()
        asked.answers[2].set_exception(StoreUnavailable("still away"))
        with pytest.raises(StoreUnavailable, match="still away"):
            await got
        await asked.known(900)

    asyncio.run(run())


def test_nothing_is_on_its_way_after_the_end():
    """A question that is under way when the service stops is given up."""

    async def run():
        asked = Asked()
        got = await asked.begin()
        await asked.freshness.close()
        assert asked.answers[0].cancelled()
        with pytest.raises(asyncio.CancelledError):
            await got

    asyncio.run(run())
