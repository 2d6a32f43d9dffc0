"""What an operator, or retention, does to Kafka behind the back of the workers."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code
from aiokafka.protocol.admin import DeleteGroupsRequest
from aiokafka.structs import TopicPartition

from deploy import topics as topic_admin
from ingest.contract.topics import CONSUMER_GROUP, TOOL_EXECUTIONS, topics

T = TypeVar("T")

# As an offset of `delete_records`: all there is.
TO_THE_END = -1


def _run(kafka: str, work: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
    async def connected() -> T:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        try:
            return await work(admin)
        finally:
            await admin.close()

    return asyncio.run(connected())


def members(kafka: str) -> list[str]:
    """Return the ids of the members of the workers' group."""

    async def ask(admin: AIOKafkaAdminClient) -> list[str]:
        group = (await admin.describe_consumer_groups([CONSUMER_GROUP]))[0].groups[0]
        return [member[0] for member in group[5]]

    return _run(kafka, ask)


def committed(kafka: str) -> dict[int, int]:
    """Return up to where batches of each partition of `tool-executions` are planned."""
    found = _run(kafka, lambda admin: admin.list_consumer_group_offsets(CONSUMER_GROUP))
    return {of.partition: at.offset for of, at in found.items() if of.topic == TOOL_EXECUTIONS}


def delete_group(kafka: str) -> None:
    """Take away the group with all its offsets, as their expiry does; nobody may be in it."""

    async def delete(admin: AIOKafkaAdminClient) -> None:
        node = await admin.find_coordinator(CONSUMER_GROUP)
        answer: Any = await admin._send_request_to_node(node, DeleteGroupsRequest([CONSUMER_GROUP]))
        for _, error_code in answer.results:
            if error_code:
                raise for_code(error_code)

    _run(kafka, delete)


def delete_records(kafka: str, before: Mapping[int, int]) -> None:
    """Take away the records of `tool-executions` below an offset of each partition, as retention does."""
    wanted = {TopicPartition(TOOL_EXECUTIONS, number): RecordsToDelete(offset) for number, offset in before.items()}
    _run(kafka, lambda admin: admin.delete_records(wanted))


def configure(kafka: str, **config: str) -> None:
    """Set configuration of `tool-executions`, beside that it was made with."""
    wanted = next(topic for topic in topics() if topic.name == TOOL_EXECUTIONS)
    made = {**wanted.config, **{name.replace("_", "."): value for name, value in config.items()}}

    async def alter(admin: AIOKafkaAdminClient) -> None:
        for answer in await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, TOOL_EXECUTIONS, made)]):
            for error_code, *_ in answer.resources:
                if error_code:
                    raise for_code(error_code)

    _run(kafka, alter)


def make_anew(kafka: str, *, partitions: int) -> None:
    """Delete `tool-executions` and make it again at once, under the same name."""
    _run(kafka, lambda admin: admin.delete_topics([TOOL_EXECUTIONS]))
    topic_admin.apply(kafka, topics(partitions=partitions))
