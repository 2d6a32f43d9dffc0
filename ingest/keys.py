"""Make, list and revoke API keys and set project rules: read the control topic to its end, then append to it.

Every change is one compacted record, acknowledged by all in-sync replicas before the call returns.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypedDict, TypeVar, Unpack

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from ingest.contract.access import (
    Access,
    Key,
    ProjectRules,
    Purge,
    Purges,
    Scope,
    hash_key,
    is_project,
    key_record,
    new_key,
    purges_record,
    rules_record,
)
from ingest.contract.errors import BrokerUnavailable, ConfigurationError
from ingest.contract.event import PROJECT_PATTERN
from ingest.contract.logs import logger
from ingest.contract.topics import CONTROL

log = logger(__name__)
T = TypeVar("T")

# A command a person waits for. A broker that dies is missed after 9 s, and only then its partitions get another leader.
TIMEOUT_S: Final = 30.0
_REQUEST_TIMEOUT_MS: Final = 5_000
_RETRY_S: Final = 0.3
_NAME_CHARS_MAX: Final = 200
# Of a project: one a day, for longer than Kafka keeps records that may be read again.
_PURGES_MAX: Final = 64
# A century; nobody means more.
_RETENTION_DAYS_MAX: Final = 36_500


async def create_key(
    kafka: str,
    *,
    project_id: str = "",
    org_id: str = "",
    name: str = "",
    scope: Scope = "full",
    key: str | None = None,
) -> tuple[Key, str]:
    """Make an API key and write its hash to the control topic.

    Args:
        kafka: bootstrap addresses, host:port, comma separated.
        project_id: the project the key belongs to; empty for a key of a whole organisation, which needs `org_id`.
        org_id: the organisation, optional for a project's key.
        name: for people, at most 200 characters.
        scope: full, read or ingest.
        key: the key itself, where it is given from outside (a demo key that must stay the same); else a fresh one.

    Returns:
        The stored key and the key itself, which nobody can read again.

    Raises:
        ConfigurationError: a project, organisation or name that cannot be used, or a project of another organisation.
        BrokerUnavailable: Kafka did not acknowledge it in time, or the control topic is missing.
    """
    org_wide = not project_id
    if org_wide and not org_id:
        raise ConfigurationError("a key belongs to a project or an organisation; name one")
    for kind, value in (("project", project_id), ("organisation", org_id)):
        if value and not is_project(value):
            raise ConfigurationError(f"the {kind} id {value!r} cannot be used; it must match {PROJECT_PATTERN}")
    if len(name) > _NAME_CHARS_MAX:
        raise ConfigurationError(f"the key's name has {len(name)} characters; at most {_NAME_CHARS_MAX} are taken")
    if project_id and org_id:
        others = (await read_access(kafka)).organisations_of(project_id) - {org_id}
        if others:
            raise ConfigurationError(
                f"the project {project_id!r} belongs to the organisation {', '.join(sorted(others))}: name that one, or none;"
                f" to move the project: toolledger projects set {project_id} --org {org_id}"
            )
    plain = key or new_key(org=org_wide)
    made = Key(
        id=("oky_" if org_wide else "key_") + secrets.token_hex(6),
        key_hash=hash_key(plain),
        project_id=project_id,
        org_id=org_id,
        name=name,
        scope=scope,
        created_at_ms=time.time_ns() // 1_000_000,
    )
    await _until_done(kafka, "write the key", lambda: _append(kafka, [key_record(made)]))
    log.info("api_key_created", key_id=made.id, project_id=project_id, org_id=org_id, scope=scope)
    return made, plain


async def list_keys(kafka: str) -> list[Key]:
    """List all keys, revoked ones too, oldest first.

    Raises:
        BrokerUnavailable: Kafka did not answer in time, or the control topic is missing.
    """
    access = await read_access(kafka)
    return sorted(access.keys.values(), key=lambda key: (key.created_at_ms, key.id))


async def revoke_key(kafka: str, key_id: str) -> Key | None:
    """Revoke a key by its id. Every service refuses it within a second.

    Returns:
        The key as it stands now, with the first time of revocation if it was revoked before; None if there is none.

    Raises:
        BrokerUnavailable: Kafka did not acknowledge it in time, or the control topic is missing.
    """
    found = (await read_access(kafka)).keys.get(key_id)
    if found is None or found.revoked_at_ms is not None:
        return found
    revoked = msgspec.structs.replace(found, revoked_at_ms=time.time_ns() // 1_000_000)
    await _until_done(kafka, "write the revocation", lambda: _append(kafka, [key_record(revoked)]))
    log.info("api_key_revoked", key_id=key_id, project_id=revoked.project_id)
    return revoked


class RuleChanges(TypedDict, total=False):
    """The members of `ProjectRules` that may be set; retention None goes back to the product's default."""

    org_id: str
    store_payloads: bool
    retention_days: int | None
    payload_retention_days: int | None


async def set_rules(kafka: str, project_id: str, **changes: Unpack[RuleChanges]) -> ProjectRules:
    """Change a project's rules; what is not named stays as it was.

    Args:
        kafka: bootstrap addresses.
        project_id: the project.
        changes: what to set, by name.

    Returns:
        The rules now in force.

    Raises:
        ConfigurationError: the project id or a value cannot be used.
        BrokerUnavailable: Kafka did not acknowledge it in time, or the control topic is missing.
    """
    if not is_project(project_id):
        raise ConfigurationError(f"the project id {project_id!r} cannot be used; it must match {PROJECT_PATTERN}")
    for name, days in (
        ("retention_days", changes.get("retention_days")),
        ("payload_retention_days", changes.get("payload_retention_days")),
    ):
        if days is not None and not 1 <= days <= _RETENTION_DAYS_MAX:
            raise ConfigurationError(f"{name} is a number of days, from 1 to {_RETENTION_DAYS_MAX}")
    rules = (await read_access(kafka)).rules_of(project_id)
    rules = msgspec.structs.replace(rules, **changes)
    await _until_done(kafka, "write the project's rules", lambda: _append(kafka, [rules_record(rules)]))
    log.info("project_rules_set", project_id=project_id, **changes)
    return rules


async def announce_purges(kafka: str, untils: Mapping[str, int], *, effective_ms: int) -> int:
    """Announce that projects' logs are about to be taken away, so that nobody takes events of that time from then on.

    Args:
        kafka: bootstrap addresses.
        untils: project -> before which timestamp, epoch ms.
        effective_ms: from which time of acceptance on; later than every worker hears of it.

    Returns:
        From when on all of them are in force, epoch ms: what was announced before stays as it was.

    Raises:
        BrokerUnavailable: Kafka did not acknowledge it in time, or the control topic is missing.
    """
    while True:
        access = await read_access(kafka)
        records = []
        for project_id, until_ms in untils.items():
            known = access.purges.get(project_id, ())
            if until_ms > max((one.until_ms for one in known), default=0):
                purges = (*known, Purge(until_ms=until_ms, effective_ms=effective_ms))[-_PURGES_MAX:]
                records.append(purges_record(Purges(project_id=project_id, logs=purges)))
        if not records:
            break
        # Looked at again: whoever announced at the same moment may have written a record without this one over it.
        await _until_done(kafka, "announce what retention takes away", partial(_append, kafka, records))
    return max(
        min(one.effective_ms for one in access.purges[project_id] if one.until_ms >= until_ms)
        for project_id, until_ms in untils.items()
    )


async def read_access(kafka: str) -> Access:
    """Read the control topic from its start to its present end.

    Raises:
        BrokerUnavailable: Kafka did not answer in time, or the control topic is missing.
    """
    return await _until_done(kafka, "read the control topic", lambda: _read(kafka))


async def _read(kafka: str) -> Access:
    access = Access()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        request_timeout_ms=_REQUEST_TIMEOUT_MS,
    )
    try:
        await consumer.start()
        partition = TopicPartition(CONTROL, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end_offset = (await consumer.end_offsets([partition]))[partition]
        # The position also moves past what compaction took away, so it reaches the end although records are missing.
        while await consumer.position(partition) < end_offset:
            for records in (await consumer.getmany(partition, timeout_ms=500)).values():
                for record in records:
                    access.apply(record.key, record.value)
    finally:
        await consumer.stop()
    return access


async def _append(kafka: str, records: Sequence[tuple[bytes, bytes]]) -> None:
    # Not idempotent: such a producer never gives a record up, so closing it would hang while Kafka is away. Written twice, a
    # compacted record means the same.
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", request_timeout_ms=_REQUEST_TIMEOUT_MS)
    try:
        await producer.start()
        for key, value in records:
            await producer.send_and_wait(CONTROL, value, key=key, partition=0)
    finally:
        await producer.stop()


async def _require_topic(client: AIOKafkaClient) -> None:
    """Refuse to touch a control topic that is not there: a broker may create it, uncompacted, at the first mention.

    Asking for all topics creates none, whatever the broker's settings.
    """
    metadata = await client.fetch_all_metadata()
    if not metadata.partitions_for_topic(CONTROL):
        raise BrokerUnavailable(f"the topic {CONTROL} is missing; run `toolledger topics`")


async def _until_done(kafka: str, what: str, work: Callable[[], Awaitable[T]]) -> T:
    """Try until it is done, through the election of another leader; where no broker answers at all, say so at once."""
    failure: Exception | None = None
    client = AIOKafkaClient(bootstrap_servers=kafka, request_timeout_ms=_REQUEST_TIMEOUT_MS)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            try:
                await client.bootstrap()
            except (KafkaError, OSError) as error:
                raise BrokerUnavailable(
                    f"no Kafka answers at {kafka}, to {what}: start it, or name its address in TOOLLEDGER_KAFKA ({error})"
                ) from None
            while True:
                try:
                    await _require_topic(client)
                    return await work()
                except (KafkaError, OSError) as error:
                    failure = error
                await asyncio.sleep(_RETRY_S)
    except TimeoutError:
        reason = f": {failure}" if failure is not None else ""
        raise BrokerUnavailable(f"Kafka took longer than {TIMEOUT_S:g} s to {what}{reason}") from None
    finally:
        await client.close()
