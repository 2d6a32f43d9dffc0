"""A run: what the driver hands to an agent as one item. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from processors.decode import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Consecutive records of one partition that were fetched together.

    `first_offset` is where the run before ended, so that control records and holes lie inside; `generation` is the group
    generation it was fetched under. One without records covers offsets that hold none.
    """

    partition: int
    generation: int
    first_offset: int
    next_offset: int
    end_offset: int
    records: Sequence[Record]
    nbytes: int = 0
