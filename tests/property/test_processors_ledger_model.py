"""The ledger against every history hypothesis can think of: crash, zombie, lost answer, late write, rebalance, restore.

The real ledger runs; Kafka and ClickHouse are ours, in memory, and every call is held until the history says how it ends.
Exactness is the invariant: whatever happened, every event of the log is there once, and logs = usage = receipts.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.fake_ledger import faults
from tests.support.ledger_history import History, run_virtually

# What happens every night.
COMMON = (
    "progress", "progress", "progress", "progress", "done", "produce", "stray", "beat", "refused", "answer_lost", "delayed",
    "land", "start", "crash", "unheard", "rebalance", "grow", "failover",
)  # fmt: skip
# What makes an answer less complete than it looks: events away from home, and partitions that are at different points.
SPREAD = (
    "progress",
    "progress",
    "progress",
    "done",
    "produce",
    "stray",
    "stray",
    "beat",
    "beat",
    "crash",
    "rebalance",
    "start",
)
# What happens to ClickHouse and to the group's offsets while no worker runs.
STOPPED = (
    "progress", "progress", "progress", "progress", "done", "produce", "refused", "answer_lost", "crash", "backup",
    "restore_stopped", "offsets_lost", "emptied", "beat",
)  # fmt: skip


# Another coordinator takes over and shows offsets of a moment ago.
FAILOVER = ("progress", "progress", "done", "done", "produce", "failover", "delayed", "land")
# ClickHouse comes back older under workers that go on.
LIVE = (*COMMON, "backup", "restore")


def happens(choices: bytes, *, partitions: int, steps: tuple[str, ...]) -> None:
    """Let a history happen, and compare what is there with what was sent."""
    history = History(choices, partitions=partitions, steps=steps)
    run_virtually(history.run())
    found = [*history.untrue[:3], *faults(history.servers)]
    assert not found, "\n".join([*history.said, "", *found, "", f"choices: {choices!r}"])


@pytest.mark.parametrize("partitions", [1, 3])
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(choices=st.binary(max_size=160))
def test_every_event_counts_once_whatever_happens(partitions: int, choices: bytes) -> None:
    """Workers die, freeze and come back; calls are refused, unanswered or land late; the group rebalances at any moment."""
    happens(choices, partitions=partitions, steps=COMMON)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(choices=st.binary(max_size=160))
def test_what_is_called_complete_is_complete(choices: bytes) -> None:
    """At any moment, everything accepted before the time that heartbeats vouch for is there, strays under way included."""
    happens(choices, partitions=2, steps=SPREAD)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(choices=st.binary(max_size=160))
def test_offsets_of_a_moment_ago_are_not_believed(choices: bytes) -> None:
    """A plan that the coordinator does not show yet is recovered all the same."""
    happens(choices, partitions=1, steps=FAILOVER)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(choices=st.binary(max_size=160))
def test_a_clickhouse_that_goes_back_under_running_workers_is_healed(choices: bytes) -> None:
    """Workers notice that what they reported is gone, start again from the receipts, and fill the holes."""
    happens(choices, partitions=2, steps=LIVE)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(choices=st.binary(max_size=160))
def test_a_restored_clickhouse_or_lost_offsets_change_nothing(choices: bytes) -> None:
    """ClickHouse comes back older or empty, or the group forgets its offsets: what is missing is written again, once."""
    happens(choices, partitions=2, steps=STOPPED)
