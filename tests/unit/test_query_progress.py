"""Until when answers are complete, from heartbeats."""

import pytest

from ingest.contract.errors import StoreUnavailable
from ingest.contract.tables import SCHEMA_VERSION
from query_api.progress import UNKNOWN_MS, progress, require_schema


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
