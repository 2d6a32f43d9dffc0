"""How far a partition is, and until when its answers are complete. Pure.

A claim about time: every event accepted before `complete_until` is in the answers. Where everything is proved, that is the
moment the log's end was asked for; where something is left, it is the time of the newest record that is proved; and never
beyond what strays that were sent home, and are not proved there yet, hold it at.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far one partition is. Offsets, and epoch ms."""

    next_offset: int
    end_offset: int
    complete_until_ms: int


def progress(
    *,
    next_offset: int,
    end_offset: int,
    asked_ms: int,
    newest_record_ms: int,
    former_ms: int,
    skew_ms: int,
    held_ms: int | None,
) -> Progress:
    """Tell how far a partition is.

    Args:
        next_offset: everything below is proved.
        end_offset: where the log ended, asked after `asked_ms`; what open transactions hold is below it.
        asked_ms: this clock just before the end was asked for.
        newest_record_ms: acceptance time of the newest proved record.
        former_ms: what was said last; freshness never goes back while a partition has one owner, unless its clock is set back:
            nothing is complete until a time that has not come.
        skew_ms: how far this clock may be ahead of a broker's, and one broker's ahead of the next one's.
        held_ms: what strays hold it at, None where there are none.
    """
    reached = (asked_ms if next_offset >= end_offset else newest_record_ms) - skew_ms
    if held_ms is not None:
        reached = min(reached, held_ms)
    return Progress(next_offset=next_offset, end_offset=end_offset, complete_until_ms=max(reached, min(former_ms, asked_ms), 0))
