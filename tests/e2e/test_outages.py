"""ClickHouse away in every way it can be: the worker waits in the group, says what is wrong, and catches up exactly."""

import time

import pytest

from tests.support.faulty_clickhouse import CODES, PASS, Fault
from tests.support.outages import Chatter, Outages
from tests.support.pipeline import eventually

pytestmark = pytest.mark.real

# As an operator finds it in /readyz.
AWAY = [
    (Fault(how="refuse"), "Cannot connect"),
    (Fault(how="hang"), "no answer within 1 s"),
    (Fault(how="delay", seconds=1.5), "no answer within 1 s"),
    (Fault(how="trickle"), "no answer within 1 s"),
    (Fault(how="lose_answer", only="inserts"), "reset by peer"),
    (Fault(how="apply_late", only="inserts", seconds=1.5), "reset by peer"),
    (Fault(how="cut_request", only="inserts"), "reset by peer"),
    (Fault(how="cut_answer", only="selects"), ""),
    (Fault(how="garbage"), "It works!"),
    (Fault(how="empty", only="inserts"), "something else answered"),
    (Fault(how="empty", only="selects"), "something else answered"),
]
LINES_PER_SECOND_MAX = 40


@pytest.mark.parametrize(
    ("fault", "said"), AWAY, ids=lambda given: f"{given.how}-{given.only}" if isinstance(given, Fault) else ""
)
def test_an_outage_is_waited_for_in_the_group(outages: Outages, fault: Fault, said: str) -> None:
    """Events that arrive meanwhile are there once afterwards; nobody left the group, and nobody said it was well."""
    salt = f"{fault.how}{fault.only}"
    before = outages.membership()
    with outages.proxy.broken(fault), Chatter(outages) as chatter:
        outages.send(salt)
        eventually(f"/readyz says {said!r}", lambda: any(said in reason for reason in outages.reasons() or []))
        # Long enough for some more tries.
        tries = outages.metric("toolledger_worker_retries_total")
        eventually("it was tried again", lambda: outages.metric("toolledger_worker_retries_total") > tries)
        claimed = outages.claimed()
    outages.all_caught_up(salt, claimed)
    assert outages.membership() == before
    assert chatter.per_second < LINES_PER_SECOND_MAX
    outages.proxy.settle()
    assert outages.pipeline.verify().findings == ()


def test_what_clickhouse_says_is_passed_on(outages: Outages) -> None:
    """Read-only, too many parts, disk full, out of memory, keeper lost, too busy: inserts are refused while questions are
    answered, /readyz gives ClickHouse's own reason, and everything is there once afterwards."""
    before = outages.membership()
    try:
        for code in CODES:
            outages.proxy.switch(Fault(how="error", only="inserts", code=code))
            outages.send(f"code{code}")
            eventually(
                f"/readyz names {code}",
                lambda code=code: any(f"Code: {code}" in said for said in outages.reasons() or []),
            )
        claimed = outages.claimed()
    finally:
        outages.proxy.switch(PASS)
    outages.all_caught_up(f"code{CODES[0]}", claimed)
    assert outages.membership() == before


def test_a_token_that_clickhouse_remembers_of_what_it_has_not_is_not_believed(outages: Outages) -> None:
    """Killed at the wrong moment ClickHouse knows the token of a block it never got to keep, and refuses it for a duplicate.

    That moment, between its record of the token and the part itself, cannot be hit at will. So the tokens of batches in work
    are used up by rows that go again: what is left then is the same.
    """
    pipeline, known = outages.pipeline, len(outages.said("batch_interrupted"))
    with outages.proxy.broken(Fault(how="refuse")):
        # All new: a batch that ClickHouse has to be asked about first would not be in work before it answers.
        outages.send("remembered", again=False)
        pipeline.send_records([(b'{"rubbish": 1}', partition) for partition in range(pipeline.partitions)])
        interrupted = eventually(
            "batches are in work", lambda: [line["token"] for line in outages.said("batch_interrupted")[known:]]
        )
        month = pipeline.rows("SELECT max(batch_month) FROM tool_executions")[0][0]
        for table, column in (("tool_executions", "id"), ("usage_windows", "kind"), ("dead_letters", "reason")):
            for token in interrupted:
                pipeline.rows(
                    f"INSERT INTO {table} (batch_month, {column}) SETTINGS insert_deduplication_token = '{token}'"
                    f" VALUES ({month}, 'never')"
                )
            pipeline.rows(f"ALTER TABLE {table} DELETE WHERE {column} = 'never' SETTINGS mutations_sync = 2")
        claimed = outages.claimed()
    outages.all_caught_up("remembered", claimed)
    assert len(outages.said("token_renewed")) >= len(interrupted)


def test_an_outage_may_last_longer_than_the_session_timeout(outages: Outages) -> None:
    """Heartbeats go on while nothing is consumed: after two session timeouts the same member goes on where it stood."""
    before = outages.membership()
    session_s = int(outages.pipeline.env["TOOLLEDGER_SESSION_TIMEOUT_MS"]) / 1000
    with outages.proxy.broken(Fault(how="refuse")):
        outages.send("long", count=100)
        until = time.monotonic() + 2 * session_s
        eventually("two session timeouts are over", lambda: time.monotonic() > until)
        claimed = outages.claimed()
    outages.all_caught_up("long", claimed)
    assert outages.membership() == before
