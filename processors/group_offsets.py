"""Ask for the group's committed offsets, and never take "I do not know yet" for "there are none".

A coordinator that has just started answers for the whole group that it still loads, with no partition in its answer. aiokafka
0.14 reads the partitions' codes only, and tells of a group without any offsets; the ledger would take its plan for lost.
Source: Kafka protocol, OffsetFetchResponse from version 2 on: `error_code` beside `topics`.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, NotCoordinatorForGroupError, for_code
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.structs import OffsetAndMetadata

from ingest.contract.logs import logger

log = logger(__name__)

_PAUSE_FIRST_S: Final = 0.1
_PAUSE_S_MAX: Final = 2.0


async def committed_offsets(coordinator: Any, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
    """Ask until the coordinator knows.

    Args:
        coordinator: aiokafka's `GroupCoordinator`, on its own loop.
        partitions: whose offsets are wanted.

    Returns:
        Those that have one.

    Raises:
        KafkaError: the coordinator refuses, and will go on refusing.
    """
    by_topic: dict[str, list[int]] = {}
    for key in partitions:
        by_topic.setdefault(key.topic, []).append(key.partition)
    pause_s = _PAUSE_FIRST_S
    while True:
        await coordinator.ensure_coordinator_known()
        try:
            return offsets_in(await coordinator._send_req(OffsetFetchRequest(coordinator.group_id, list(by_topic.items()))))
        except KafkaError as error:
            if isinstance(error, NotCoordinatorForGroupError):
                coordinator.coordinator_dead()
            elif not error.retriable:
                raise
            log.warning("offsets_not_told", error=repr(error), retry_s=pause_s)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _PAUSE_S_MAX)


def offsets_in(answer: Any) -> dict[TopicPartition, OffsetAndMetadata]:
    """Read an answer.

    Raises:
        KafkaError: it says of the group or of one partition that it cannot tell.
    """
    codes = [getattr(answer, "error_code", 0), *(part[3] for _, parts in answer.topics for part in parts)]
    for code in codes:
        if code:
            raise for_code(code)
    return {
        TopicPartition(topic, partition): OffsetAndMetadata(offset, metadata)
        for topic, parts in answer.topics
        for partition, offset, metadata, _ in parts
        if offset >= 0
    }
