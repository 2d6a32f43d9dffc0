"""The ledger of one partition: plan, write, receipt, so that every batch is written exactly once. DESIGN section 5.

1. Plan: commit the batch's end to Kafka, fenced by the group generation, with its start in the metadata.
   A crash here leaves the range [F, C) to be written again, as exactly that batch.
2. Dead letters to their table; forwarded events to their home partition, dead letters to their topic (at least once).
   A crash here: as above; the table refuses the token it has, and at home an id counts once.
3. Executions. A crash here: as above; what landed is read back and is the truth.
4. Usage and receipt, one block. The commit point: a crash behind it redoes nothing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

import msgspec

from ingest.contract import metrics
from ingest.contract.errors import LedgerInvariantBroken, TransportError
from ingest.contract.logs import logger
from processors.batch import Batch, Prepared
from processors.decode import Record

log = logger(__name__)
T = TypeVar("T")

_RETRY_FIRST_S: Final = 0.1


class Plan(msgspec.Struct, frozen=True, rename={"first_offset": "f", "incarnation": "i", "rewind": "r"}):
    """The metadata of a committed plan. `rewind` counts how often this partition had to be written again from a receipt."""

    first_offset: int
    incarnation: str
    rewind: int = 0

    def encode(self) -> str:
        """Return the text Kafka keeps beside the offset."""
        return msgspec.json.encode(self).decode()

    @staticmethod
    def read(metadata: str) -> "Plan | None":
        """Return the plan of a commit, None if somebody else committed."""
        try:
            return msgspec.json.decode(metadata, type=Plan)
        except msgspec.MsgspecError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is known of a partition when it is assigned. Offsets; None where there is nothing."""

    proved: int | None  # D: next offset of the last receipt
    planned: int | None  # C: the group's committed offset
    plan: Plan | None  # F and more, from the metadata of C
    log_start: int
    log_end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How to go on with a partition."""

    start: int
    recover: tuple[int, int] | None = None  # write exactly this range again, as one batch
    rewind: bool = False  # remove what lies at or above `start`, write it again in ordinary batches
    gap: tuple[int, int] | None = None  # what Kafka no longer has though no receipt proves it
    rewinds: int = 0


def decide(found: Found, *, incarnation: str) -> Opening:
    """Decide how to go on with a partition. Pure; the table of DESIGN section 5."""
    plan = found.plan if found.plan is not None and found.plan.incarnation == incarnation else None
    planned = found.planned if plan is not None else None
    rewinds = plan.rewind if plan is not None else 0
    proved = found.proved
    if proved is None:
        # No receipt at all: either nothing was ever proved, or ClickHouse was wiped.
        if plan is None or planned is None:
            return Opening(start=found.log_start)
        proved = plan.first_offset if plan.first_offset <= found.log_start < planned else found.log_start
    if planned is None or planned < proved:
        # Reset or expired offsets. What a lost plan may have left above D goes first.
        opening = Opening(start=proved, rewind=planned is None, rewinds=rewinds + (planned is None))
    elif planned == proved:
        opening = Opening(start=proved, rewinds=rewinds)
    elif plan is not None and plan.first_offset == proved:
        opening = Opening(start=planned, recover=(proved, planned), rewinds=rewinds)
    else:
        opening = Opening(start=proved, rewind=True, rewinds=rewinds + 1)
    begins = opening.recover[0] if opening.recover else opening.start
    if found.log_start > begins:
        gap = (begins, found.log_start)
        return msgspec.structs.replace(opening, gap=gap) if False else _with_gap(opening, gap)
    return opening


def _with_gap(opening: Opening, gap: tuple[int, int]) -> Opening:
    start = opening.start if opening.recover else max(opening.start, gap[1])
    return Opening(start=start, recover=opening.recover, rewind=opening.rewind, gap=gap, rewinds=opening.rewinds)
