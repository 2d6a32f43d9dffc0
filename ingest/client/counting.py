"""What became of the calls: each recorded one is waiting, delivered, refused, on disk, or dropped, and counted as such."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

# Why a call was not kept: memory is full and the disk takes nothing; the client was closed and the disk takes nothing; a file
# on disk was torn or damaged; the server refused it for so long that nobody will mend it.
DropReason = Literal["memory_full", "closed", "damaged", "refused_for_too_long", "internal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Calls since this process began to record.

    `recorded` = `accepted` + `rejected` + `spooled` + `dropped` + `waiting`, where `recovered` ones (read from disk, and
    answered for: by whatever process they were written) stand apart.
    """

    recorded: int = 0
    accepted: int = 0
    rejected: int = 0
    spooled: int = 0
    dropped: int = 0
    waiting: int = 0
    recovered: int = 0
    dropped_by_reason: Mapping[DropReason, int] = field(default_factory=dict)
