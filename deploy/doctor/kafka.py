"""Kafka: does it answer, has it the topics as they must be, do they take writes, and does a worker read them?"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, UnknownTopicOrPartitionError

from deploy import topics as topic_admin
from deploy.doctor.finding import Finding, away, failed, ok, warning
from ingest.contract.addresses import is_kafka
from ingest.contract.errors import BrokerUnavailable
from ingest.contract.incarnation import topic_incarnation
from ingest.contract.topics import CONSUMER_GROUP, TOOL_EXECUTIONS, topics

_DEADLINE_S: Final = 20.0
_REQUEST_TIMEOUT_MS: Final = 10_000
# Records are stamped by the broker's clock: one from later than this is from a clock that is ahead of ours.
_AHEAD_MS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Who has a partition, as broker numbers; `leader` -1: nobody."""

    topic: str
    number: int
    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What Kafka was found to be.

    Args:
        incarnation: id of the event topic; empty where it is not there or Kafka could not be asked.
    """

    findings: tuple[Finding, ...]
    incarnation: str = ""


def examine(kafka: str, where: str) -> Examined:
    """Ask Kafka; nothing is changed.

    Args:
        kafka: bootstrap addresses.
        where: who named them, for the answer.
    """
    if not is_kafka(kafka):
        text = f"{kafka!r} is no address (address {where})"
        return Examined(findings=(failed("kafka", text, "put host:port[,host:port] into TOOLLEDGER_KAFKA"),))
    try:
        changes = topic_admin.apply(kafka, topics(), dry_run=True)
        return asyncio.run(_examine(kafka, where, changes))
    except (BrokerUnavailable, TimeoutError, KafkaError, OSError) as error:
        said = error if isinstance(error, BrokerUnavailable) else BrokerUnavailable(f"Kafka at {kafka} broke off: {error!r}")
        return Examined(findings=(away("kafka", said, where),))


async def _examine(kafka: str, where: str, changes: Sequence[topic_admin.Change]) -> Examined:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka, request_timeout_ms=_REQUEST_TIMEOUT_MS)
    async with asyncio.timeout(_DEADLINE_S):
        try:
            await admin.start()
            brokers = len((await admin.describe_cluster())["brokers"])
            findings = [ok("kafka", f"{kafka} answers, {brokers} broker{'' if brokers == 1 else 's'} (address {where})")]
            there = await _partitions(admin)
            findings += judge_topics(changes, there)
            if not any(each.topic == TOOL_EXECUTIONS for each in there):
                return Examined(findings=tuple(findings))
            findings += judge_replicas(there, await _in_sync_min(admin, {each.topic for each in there}))
            findings.append(await _workers(admin))
            incarnation, old = await _incarnation(kafka)
            numbers = [each.number for each in there if each.topic == TOOL_EXECUTIONS]
            ahead = await _from_the_future(kafka, numbers)
            return Examined(findings=(*findings, *old, *ahead), incarnation=incarnation)
        finally:
            await admin.close()


def judge_topics(changes: Sequence[topic_admin.Change], there: Iterable[Partition]) -> list[Finding]:
    """Judge the differences from the topics that are wanted."""
    found = [
        failed("topics", f"needed: {change.text}", "run toolledger topics") for change in changes if change.kind != "differs"
    ]
    if found:
        return found
    names = sorted({each.topic for each in there})
    counts = [f"{name} ({sum(each.topic == name for each in there)})" for name in names]
    choices = [change.text for change in changes if change.kind == "differs"]
    return [ok("topics", "; ".join([f"with their partitions: {', '.join(counts)}", *choices]))]


def judge_replicas(there: Sequence[Partition], in_sync_min: Mapping[str, int]) -> list[Finding]:
    """Judge whether every partition takes writes that are acknowledged by all in-sync replicas.

    Args:
        in_sync_min: `min.insync.replicas` by topic.
    """
    found = []
    if headless := [each for each in there if each.leader < 0]:
        found.append(failed("replicas", f"no broker leads {_named(headless)}", "start the brokers that have them"))
    short = [each for each in there if each.leader >= 0 and len(each.in_sync) < in_sync_min.get(each.topic, 1)]
    if short:
        text = f"fewer replicas in sync than min.insync.replicas asks for, so Kafka refuses writes: {_named(short)}"
        found.append(failed("replicas", text, "start the missing brokers, and look at their logs"))
    behind = [each for each in there if each not in short and each.leader >= 0 and len(each.in_sync) < len(each.replicas)]
    if behind:
        text = f"some replicas are missing or behind: {_named(behind)}"
        found.append(warning("replicas", text, "look at the logs of the brokers that have them"))
    return found or [ok("replicas", "all partitions are led, all replicas in sync")]


def _named(partitions: Sequence[Partition]) -> str:
    numbers: dict[str, list[str]] = {}
    for each in partitions:
        numbers.setdefault(each.topic, []).append(str(each.number))
    return ", ".join(f"{topic} {', '.join(sorted(of, key=int))}" for topic, of in sorted(numbers.items()))


async def _partitions(admin: AIOKafkaAdminClient) -> list[Partition]:
    # All topics are asked for: to name one that is missing makes some brokers create it.
    wanted = {topic.name for topic in topics()}
    return [
        Partition(
            topic=topic["topic"],
            number=each["partition"],
            leader=each["leader"],
            replicas=tuple(each["replicas"]),
            in_sync=tuple(each["isr"]),
        )
        for topic in await admin.describe_topics()
        if topic["topic"] in wanted
        for each in topic["partitions"]
    ]


async def _in_sync_min(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, int]:
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    found: dict[str, int] = {}
    for error_code, _, _, name, entries in (resource for answer in answers for resource in answer.resources):
        if not error_code:
            found[name] = next((int(entry[1]) for entry in entries if entry[0] == "min.insync.replicas" and entry[1]), 1)
    return found


async def _workers(admin: AIOKafkaAdminClient) -> Finding:
    """Tell who is in the workers' group, as Kafka has it."""
    group: Any = (await admin.describe_consumer_groups([CONSUMER_GROUP]))[0].groups[0]
    error_code, _, state, _, _, members = group[:6]
    if error_code or not members:
        text = "no worker is in its group: what is sent is kept by Kafka, and neither searched nor counted"
        return failed("workers", text, "start toolledger worker, or look at its log")
    count = f"{len(members)} worker{'' if len(members) == 1 else 's'}"
    if state != "Stable":
        return warning("workers", f"{count}, handing over partitions ({state})", "ask again in a few seconds")
    return ok("workers", count)


async def _incarnation(kafka: str) -> tuple[str, list[Finding]]:
    client = AIOKafkaClient(bootstrap_servers=kafka, request_timeout_ms=_REQUEST_TIMEOUT_MS)
    try:
        await client.bootstrap()
        return (await topic_incarnation(client, TOOL_EXECUTIONS))[0], []
    except UnknownTopicOrPartitionError:
        return "", []
    except IncompatibleBrokerVersion:
        return "", [failed("kafka", "it is too old: it does not tell a topic's id", "use Kafka 2.8 or newer")]
    finally:
        await client.close()


async def _from_the_future(kafka: str, partitions: Sequence[int]) -> list[Finding]:
    """Look for records that Kafka took later than it is by our clock."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, request_timeout_ms=_REQUEST_TIMEOUT_MS)
    await consumer.start()
    try:
        later_ms = time.time_ns() // 1_000_000 + _AHEAD_MS
        asked = {TopicPartition(TOOL_EXECUTIONS, number): later_ms for number in partitions}
        found = [each.timestamp for each in (await consumer.offsets_for_times(asked)).values() if each is not None]
    finally:
        await consumer.stop()
    if not found:
        return []
    ahead_s = (max(found) - later_ms + _AHEAD_MS) / 1000
    text = f"Kafka took records at a time that is {ahead_s:,.1f} s ahead of this machine's clock"
    return [failed("clock", text, "set the clocks of all machines by NTP")]
