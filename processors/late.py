"""Which events came after their window had closed, and the rows of `usage_windows` that say so. Pure.

A window here is the UTC hour [start, end) of an event's timestamp. It closes a while after its end:

    start              end        closes
      |---- window -----|-- close --|
      events of it, counted here ... | ... and here: late, each leaves a correction

What is compared with it is the time of the record the event counts by, never the clock and never an earlier acceptance that
a forwarded or replayed event carries: so a replay judges alike. And it is the partition's time, the latest record time up to
that record: where brokers' clocks differ, records may step back in time, and a window that was told to be complete must not
change without a correction. Neither depends on how records are cut into batches, so all corrections of a log that is
written again are as they were, moments included, and whoever reads them on from a moment misses and repeats none.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl

from processors.decode import Record

WINDOW_MS: Final = 3_600_000
IN_TIME: Final = 0


def late_at(
    rows: pl.DataFrame, *, records: Sequence[Record], newest_before_ms: int, newest_record_ms: int, close_ms: int
) -> pl.Series:
    """Return `late_at_ms` of each row: the partition's time at which it was counted late, IN_TIME if it was not.

    Args:
        rows: with `timestamp` as Datetime in ms, and `kafka_offset`.
        records: those of the batch, in offset order, among them that of each row.
        newest_before_ms: the latest record time in the partition before this batch, 0 at its start.
        newest_record_ms: the latest among the records.
        close_ms: how long after its end a window closes.
    """
    at_ms = rows["timestamp"].to_physical().to_numpy()
    closes_ms = at_ms - at_ms % WINDOW_MS + (WINDOW_MS + close_ms)
    if not len(at_ms) or max(newest_before_ms, newest_record_ms) < closes_ms.min():
        # As good as always: no row needs to be looked at.
        return pl.repeat(IN_TIME, len(at_ms), dtype=pl.Int64, eager=True).alias("late_at_ms")
    offsets = np.fromiter((record.offset for record in records), dtype=np.uint64, count=len(records))
    times_ms = np.fromiter((record.timestamp_ms for record in records), dtype=np.int64, count=len(records))
    reached_ms = np.maximum(np.maximum.accumulate(times_ms), newest_before_ms)
    counted_ms = reached_ms[np.searchsorted(offsets, rows["kafka_offset"].to_numpy())]
    return pl.Series("late_at_ms", np.where(counted_ms >= closes_ms, counted_ms, IN_TIME), dtype=pl.Int64)


def corrections(rows: pl.DataFrame, *, by: Sequence[str]) -> pl.DataFrame:
    """Sum late rows up, so that what a closed window gained can be settled by each of its keys.

    A moment is told apart by the first offset that was counted at it: rows of other moments and of other batches have others,
    so ClickHouse, which merges rows of one key, never merges two of them.

    Args:
        rows: project_id, `by`, at_ms, kafka_offset, late_at_ms.

    Returns:
        project_id, window_start (epoch s), `by`, calls, newest_record_ms (the moment), first_offset.
    """
    window = (pl.col("at_ms") - pl.col("at_ms") % WINDOW_MS) // 1000
    return (
        rows.filter(pl.col("late_at_ms") != IN_TIME)
        .group_by("project_id", window.alias("window_start"), *by, pl.col("late_at_ms").alias("newest_record_ms"))
        .agg(pl.len().cast(pl.UInt64).alias("calls"), pl.col("kafka_offset").min().alias("first_offset"))
    )
