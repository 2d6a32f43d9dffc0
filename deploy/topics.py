"""Bring the topics of the product into being: create what is missing, mend what correctness hangs on, never delete or shrink.

Pure in the middle (`plan`); `apply` asks the cluster, plans and carries out.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    KafkaConnectionError,
    KafkaError,
    NotCoordinatorForGroupError,
    TopicAlreadyExistsError,
    for_code,
)

from ingest.contract.errors import BrokerUnavailable
from ingest.contract.topics import CONSUMER_GROUP, Topic

# Without these an event's time of acceptance, a pack, or the memory of keys would be lost; all else is the operator's choice.
_ENFORCED: Final = frozenset({"message.timestamp.type", "max.message.bytes", "cleanup.policy"})
_REPLICAS_MAX: Final = 3
_DEADLINE_S: Final = 30.0
_POLL_S: Final = 0.1
# Kafka's number for a setting that was given to this very topic, not inherited from the broker or the product.
_SOURCE_TOPIC: Final = 1

Kind = Literal["create", "mend", "differs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Existing:
    """A topic as the cluster has it: `own` are the settings given to the topic itself, `config` those in force."""

    partitions: int
    config: Mapping[str, str]
    own: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference. `create` and `mend` are carried out; `differs` is only shown, because it is the operator's choice."""

    kind: Kind
    topic: Topic
    config: Mapping[str, str] = field(default_factory=dict)
    text: str


def plan(wanted: Sequence[Topic], existing: Mapping[str, Existing]) -> list[Change]:
    """Compare what is wanted with what is there, in the order wanted; nothing in the list means all is well."""
    changes = []
    for topic in wanted:
        found = existing.get(topic.name)
        if found is None:
            settings = ", ".join(f"{name}={value}" for name, value in sorted(topic.config.items()))
            count = f"{topic.partitions} partition{'s' if topic.partitions > 1 else ''}"
            text = f"create {topic.name}: {count}, {settings}"
            changes.append(Change(kind="create", topic=topic, text=text))
            continue
        mend = {name: value for name, value in topic.config.items() if name in _ENFORCED and _falls_short(name, value, found)}
        if mend:
            text = ", ".join(f"{name} from {found.config.get(name)} to {value}" for name, value in sorted(mend.items()))
            changes.append(Change(kind="mend", topic=topic, config=mend, text=f"set {topic.name}: {text}"))
        if found.partitions != topic.partitions:
            text = f"{topic.name} has {found.partitions} partitions, the default is {topic.partitions}: left as it is"
            changes.append(Change(kind="differs", topic=topic, text=text))
        for name, value in sorted(topic.config.items()):
            if name not in _ENFORCED and found.config.get(name) != value:
                text = f"{topic.name} has {name}={found.config.get(name)}, the default is {value}: left as it is"
                changes.append(Change(kind="differs", topic=topic, text=text))
    return changes


def _falls_short(name: str, value: str, found: Existing) -> bool:
    present = found.config.get(name)
    if name == "max.message.bytes" and present is not None:
        return int(present) < int(value)
    return present != value


def apply(kafka: str, wanted: Sequence[Topic], *, dry_run: bool = False) -> list[Change]:
    """Bring the cluster to what is wanted; safe to repeat and to run from several processes at once.

    Args:
        kafka: bootstrap addresses, host:port, comma separated.
        wanted: `ingest.contract.topics.topics(...)`.
        dry_run: only tell what would be done.

    Returns:
        All differences found, those carried out included.

    Raises:
        BrokerUnavailable: Kafka did not answer or refused a change.
    """
    try:
        return asyncio.run(_within_deadline(kafka, wanted, dry_run=dry_run))
    except TimeoutError:
        raise BrokerUnavailable(f"Kafka at {kafka} took longer than {_DEADLINE_S:g} s: is it running there?") from None
    except (KafkaConnectionError, OSError):
        raise BrokerUnavailable(f"no Kafka answers at {kafka}: start it, or name its address in TOOLLEDGER_KAFKA") from None
    except KafkaError as error:
        raise BrokerUnavailable(f"Kafka at {kafka} refused: {error}") from None


async def _within_deadline(kafka: str, wanted: Sequence[Topic], *, dry_run: bool) -> list[Change]:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka, request_timeout_ms=15_000)
    async with asyncio.timeout(_DEADLINE_S):
        try:
            await client.start()
            changes = plan(wanted, await _existing(client, [topic.name for topic in wanted]))
            if not dry_run:
                await _create(client, [change.topic for change in changes if change.kind == "create"])
                await _mend(client, [change for change in changes if change.kind == "mend"])
                await _ready_groups(client)
            return changes
        finally:
            await client.close()


async def _existing(client: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, Existing]:
    # All topics are asked for: to name one that is missing makes some brokers create it.
    counts = {each["topic"]: len(each["partitions"]) for each in await client.describe_topics() if each["topic"] in names}
    if not counts:
        return {}
    answers = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in counts])
    found: dict[str, Existing] = {}
    for error_code, error_message, _, name, entries in (resource for answer in answers for resource in answer.resources):
        if error_code:
            raise for_code(error_code)(f"{name}: {error_message}")
        config = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
        own = {entry[0]: entry[1] for entry in entries if entry[1] is not None and entry[3] == _SOURCE_TOPIC}
        found[name] = Existing(partitions=counts[name], config=config, own=own)
    return found


async def _create(client: AIOKafkaAdminClient, missing: Sequence[Topic]) -> None:
    if not missing:
        return
    replicas = min(_REPLICAS_MAX, len((await client.describe_cluster())["brokers"]))
    answer = await client.create_topics(
        [NewTopic(topic.name, topic.partitions, replicas, topic_configs=topic.config) for topic in missing]
    )
    for name, error_code, error_message in answer.topic_errors:
        # Another process may have been faster.
        if error_code not in (0, TopicAlreadyExistsError.errno):
            raise for_code(error_code)(f"{name}: {error_message}")
    # Created means recorded by the controller; a producer can write once each partition has a leader.
    while not await _led(client, {topic.name for topic in missing}):  # noqa: ASYNC110 - only asking tells
        await asyncio.sleep(_POLL_S)


async def _led(client: AIOKafkaAdminClient, names: set[str]) -> bool:
    topics: list[dict[str, Any]] = await client.describe_topics()
    led = {
        topic["topic"]
        for topic in topics
        if topic["partitions"] and all(partition["leader"] >= 0 for partition in topic["partitions"])
    }
    return names <= led


async def _ready_groups(client: AIOKafkaAdminClient) -> None:
    """Wait until consumer groups have a coordinator: a new broker makes its topic of offsets at the first question for one."""
    while True:
        try:
            await client.find_coordinator(CONSUMER_GROUP)
        except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError):
            await asyncio.sleep(_POLL_S)
        else:
            return


async def _mend(client: AIOKafkaAdminClient, changes: Sequence[Change]) -> None:
    if not changes:
        return
    existing = await _existing(client, [change.topic.name for change in changes])
    # This request replaces all settings of a topic: the ones it has go along.
    resources = [
        ConfigResource(ConfigResourceType.TOPIC, change.topic.name, {**existing[change.topic.name].own, **change.config})
        for change in changes
    ]
    for answer in await client.alter_configs(resources):
        for error_code, error_message, _, name in answer.resources:
            if error_code:
                raise for_code(error_code)(f"{name}: {error_message}")
