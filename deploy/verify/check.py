"""Prove that nothing is missing and nothing counted twice: receipts against Kafka, rows against receipts, sums against rows.

Runs beside live traffic without false alarms. A batch lands in one block of `usage_windows`, so one question to that table
sees it whole or not at all; each partition, and each project, is judged up to what that one question saw, never by the clock.
All sums are made by ClickHouse, in bounded memory; what comes over the wire is a line a finding, and a line a project and hour.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from deploy.verify.purged import Purged, purged
from deploy.verify.receipts import Receipts
from deploy.verify.report import FINDINGS_MAX, Finding, ProjectTotals, Report, finding
from deploy.verify.store import Store
from deploy.verify.usage import ProjectUsage
from ingest.contract import tables
from ingest.contract.errors import BrokerUnavailable
from ingest.contract.incarnation import topic_incarnation
from ingest.contract.topics import CONSUMER_GROUP, TOOL_EXECUTIONS
from processors.opening import Plan

# Called with the name of a step, and how much of how many is done.
Tell = Callable[[str, int, int], None]
_COUNTS: Final = ("events", "accepted", "duplicates", "conflicts", "dead_letters", "forwarded", "rows", "calls", "purged")


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What Kafka says: by partition its first and next offset, and where receipts should begin, as far as a plan says so."""

    incarnation: str
    ends: dict[int, tuple[int, int]]
    began: dict[int, int]


def verify(kafka: str, clickhouse: str, *, progress: Tell | None = None) -> Report:
    """Check everything.

    Args:
        kafka: bootstrap addresses.
        clickhouse: its URL.
        progress: called with the name of each step as it goes on, and how much of how many is done.

    Raises:
        BrokerUnavailable: Kafka does not answer.
        StoreUnavailable: ClickHouse does not, or refuses a question.
    """
    tell = progress or (lambda *_: None)
    tell("log", 0, 1)
    log = asyncio.run(read_log(kafka))
    with Store(clickhouse) as store:
        while True:
            taken = purged(store)
            report = _report(store, log, tell, taken, again=lambda: asyncio.run(read_log(kafka)))
            # What was noted since took rows from under the check.
            if report.proved or purged(store) == taken:
                return report


async def read_log(kafka: str) -> Log:
    """Ask Kafka.

    Raises:
        BrokerUnavailable: it does not answer.
    """
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, group_id=None)
    group = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, group_id=CONSUMER_GROUP)
    try:
        await consumer.start()
        incarnation, partitions = await topic_incarnation(consumer._client, TOOL_EXECUTIONS)
        keys = [TopicPartition(TOOL_EXECUTIONS, number) for number in range(partitions)]
        starts, ends = await consumer.beginning_offsets(keys), await consumer.end_offsets(keys)
        # Never subscribed, so that it only asks and never becomes a member.
        await group.start()
        began = {}
        for key, committed in (await group._coordinator.fetch_committed_offsets(keys)).items():
            plan = Plan.parse(committed.metadata) if committed.offset >= 0 else None
            if plan is not None and plan.incarnation == incarnation and plan.began is not None:
                began[key.partition] = plan.began
    except KafkaError as error:
        raise BrokerUnavailable(
            f"no Kafka answers at {kafka}: start it, or name its address in TOOLLEDGER_KAFKA ({error})"
        ) from error
    finally:
        await consumer.stop()
        await group.stop()
    return Log(incarnation=incarnation, ends={key.partition: (starts[key], ends[key]) for key in keys}, began=began)


def _report(store: Store, log: Log, tell: Tell, taken: Purged, *, again: Callable[[], Log]) -> Report:
    receipts = Receipts(store, incarnation=log.incarnation, began=log.began)
    findings: list[Finding] = []
    steps: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("receipts", receipts.chain),
        ("log ends", lambda: log_ends(log, receipts.proved_now, again=again)),
        ("rows", lambda: receipts.rows(taken)),
        ("dead letters", receipts.dead_letters),
    ]
    for number, (name, step) in enumerate(steps):
        tell(name, number, len(steps))
        findings += step()
    usage = ProjectUsage(store, taken)
    projects: list[ProjectTotals] = []
    together = usage.projects()
    for names in together:
        tell("usage", len(projects), sum(map(len, together)))
        totals, found = usage.check(names)
        projects += totals
        findings += found
    records, count, lost = receipts.totals()
    known_ids, horizon_ms = _horizon(store, log.incarnation)
    return Report(
        incarnation=log.incarnation,
        partitions=len(log.ends),
        receipts=count,
        records=records,
        lost_records=lost,
        lag_records=_lag(log, receipts),
        known_ids=known_ids,
        horizon_ms=horizon_ms,
        projects=projects,
        findings=tuple(findings[:FINDINGS_MAX]),
        **{name: sum(getattr(each, name) for each in projects) for name in _COUNTS},
    )


def lag_records(kafka: str, clickhouse: str) -> int:
    """Return how many offsets no receipt covers yet, which is asked much faster than all that `verify` asks.

    Raises:
        BrokerUnavailable: Kafka does not answer.
        StoreUnavailable: ClickHouse does not.
    """
    log = asyncio.run(read_log(kafka))
    with Store(clickhouse) as store:
        return _lag(log, Receipts(store, incarnation=log.incarnation, began=log.began))


def _lag(log: Log, receipts: Receipts) -> int:
    return sum(max(0, end - receipts.proved_now.get(partition, start)) for partition, (start, end) in log.ends.items())


def log_ends(log: Log, proved_now: dict[int, int], *, again: Callable[[], Log]) -> Iterator[Finding]:
    """Where receipts end, Kafka still has the rest.

    Args:
        log: asked before the receipts.
        again: asks it again. Records that came and were proved in between lie beyond the ends of `log`, but not of this one.
    """
    ahead = [number for number, (_, end) in log.ends.items() if proved_now.get(number, 0) > end]
    now = again().ends if ahead else log.ends
    for partition, (start, end) in log.ends.items():
        proved = proved_now.get(partition)
        if proved is not None and proved < start:
            yield finding(
                "lost_to_retention", f"partition {partition}: [{proved}, {start}) is gone and nobody read it", partition
            )
        if proved is not None and proved > (end := max(end, now.get(partition, (0, 0))[1])):
            yield finding("ahead_of_log", f"partition {partition}: proved up to {proved}, the log ends at {end}", partition)


def _horizon(store: Store, incarnation: str) -> tuple[int, int]:
    """Return how many ids the workers' filters hold, and since when all are known, as of their last heartbeats."""
    rows = store.rows(
        f"SELECT known_ids, toUnixTimestamp64Milli(known_since) FROM {tables.PROGRESS}"
        " WHERE incarnation = {incarnation:String} ORDER BY reported_at DESC LIMIT 1 BY kafka_partition",
        incarnation=incarnation,
    )
    return sum(row[0] for row in rows), max((row[1] for row in rows), default=0)
