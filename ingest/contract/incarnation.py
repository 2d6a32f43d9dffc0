"""Read a topic's id, so that a topic that was deleted and made again is never taken for the one before.

aiokafka's own metadata request stops at version 5; topic ids come from version 10 on. This is version 12.
Source: Kafka protocol, MetadataRequest and MetadataResponse.
"""

from io import BytesIO
from typing import Any, ClassVar

from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields


class _Uuid:
    """Sixteen bytes on the wire, hex for us."""

    @classmethod
    def encode(cls, value: str) -> bytes:
        return bytes.fromhex(value)

    @classmethod
    def decode(cls, data: BytesIO) -> str:
        return data.read(16).hex()


_NO_ID = "00" * 16


class _Response(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _RequestStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _Request(Request[_RequestStruct]):  # type: ignore[misc]
    API_KEY = 3
    ALLOW_UNKNOWN_API_VERSION: ClassVar[bool] = True

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class([(_NO_ID, self._topic, {})], False, False, {})


async def topic_incarnation(client: Any, topic: str) -> tuple[str, int]:
    """Ask the cluster for a topic's id.

    Args:
        client: a connected aiokafka client (`AIOKafkaClient`), on its own loop.
        topic: the topic's name.

    Returns:
        The id as 32 hex digits, and the number of partitions.

    Raises:
        KafkaError: no broker answers, or the topic is not there (UnknownTopicOrPartitionError).
    """
    node = client.get_random_node()
    if node is None:
        raise KafkaError("no broker is known")
    response = await client.send(node, _Request(topic))
    error_code, _, topic_id, _, partitions, _, _ = response.topics[0]
    if error_code:
        raise for_code(error_code)(f"topic {topic}")
    return topic_id, len(partitions)
