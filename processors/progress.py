"""Freshness: until when the answer is complete, by partition. Pure.

A record that Kafka accepted before `complete_until` is proved by a receipt. Where everything is proved, that is the moment
the log's end was asked for; where something is left, it is the time of the newest record that is proved.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far one partition is. Offsets, and epoch ms."""

    next_offset: int
    end_offset: int
    complete_until_ms: int


def progress(
    *, next_offset: int, end_offset: int, asked_ms: int, newest_record_ms: int, former_ms: int, skew_ms: int
) -> Progress:
    """Tell how far a partition is.

    Args:
        next_offset: everything below is proved.
        end_offset: where the log ended, asked after `asked_ms`.
        asked_ms: this clock just before the end was asked for.
        newest_record_ms: acceptance time of the newest proved record.
        former_ms: what was said last; freshness never goes back while a partition has one owner.
        skew_ms: how far this clock may be ahead of the broker's.
    """
    reached = asked_ms - skew_ms if next_offset >= end_offset else newest_record_ms
    return Progress(
        next_offset=next_offset, end_offset=end_offset, complete_until_ms=max(reached, former_ms, newest_record_ms, 0)
    )
