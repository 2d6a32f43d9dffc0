"""Topics, their configuration, and which partition an event calls home."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

TOOL_EXECUTIONS: Final = "tool-executions"
DEAD_LETTERS: Final = "tool-executions.dead-letters"
CONTROL: Final = "toolledger.control"

CONSUMER_GROUP: Final = "toolledger-worker"

# Record headers. `project_id` may be set by any producer; the others only by our own forwarding and replay.
HEADER_PROJECT: Final = "project_id"
HEADER_FIRST_ACCEPTED_MS: Final = "first_accepted_ms"
# How many partitions the one who forwarded an event to its home knew of.
HEADER_FORWARDED_AMONG: Final = "forwarded_among"
# The id of the dead letter an event was replayed from.
HEADER_REPLAY_OF: Final = "replay_of"

# Room for a pack beside the largest single event (EVENT_BYTES_MAX), with the record's own overhead.
RECORD_BYTES_MAX: Final = 4 * 1024 * 1024
# A dead letter may be as large as any record, and carries headers beside.
LETTER_BYTES_MAX: Final = 2 * RECORD_BYTES_MAX
# Ingest closes a pack here: large enough to make the per-record cost vanish, small enough that a run stays divisible.
PACK_BYTES: Final = 512 * 1024

DEFAULT_PARTITIONS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic as `toolledger topics` creates it."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


def topics(*, partitions: int = DEFAULT_PARTITIONS, retention_ms: int = 7 * 24 * 3_600_000) -> tuple[Topic, ...]:
    """List every topic of the product.

    LogAppendTime everywhere: the broker's time of acceptance, which no producer can choose and which retention counts from.
    """
    appended = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(RECORD_BYTES_MAX)}
    letters = {**appended, "max.message.bytes": str(LETTER_BYTES_MAX)}
    return (
        Topic(name=TOOL_EXECUTIONS, partitions=partitions, config={**appended, "retention.ms": str(retention_ms)}),
        Topic(name=DEAD_LETTERS, partitions=1, config={**letters, "retention.ms": str(4 * retention_ms)}),
        # Compacted and kept for ever: access and rules must survive everything else.
        Topic(
            name=CONTROL,
            partitions=1,
            config={
                "cleanup.policy": "compact",
                "message.timestamp.type": "LogAppendTime",
                "min.cleanable.dirty.ratio": "0.1",
            },
        ),
    )
