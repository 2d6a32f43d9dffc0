"""From rows of `tool_executions` to rows of `usage_windows`: sums by window, in several grains, and corrections. Pure.

The same rows give the same sums whatever their order and however they are parted into batches; that, and the one block they
share with the receipt, is why logs and usage agree.
"""

from typing import Final

import polars as pl

from ingest.contract.sketch import LN_GAMMA, TINY_MS, ZERO_BUCKET
from ingest.contract.tables import (
    KIND_CORRECTION,
    KIND_PROJECT_RECEIPT,
    KIND_RECEIPT,
    KIND_SESSION_DAY,
    KIND_SESSION_HOUR,
    KIND_TOOL_DAY,
    KIND_TOOL_HOUR,
    KIND_TOOL_MINUTE,
    KIND_USER_DAY,
    KIND_USER_HOUR,
    NO_FIRST_CALL,
)
from processors.late import IN_TIME, corrections

_BASE: Final = ("tool_slug", "toolkit_slug", "status", "failure_class")
_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 60 * _MINUTE_MS
_DAY_MS: Final = 24 * _HOUR_MS
# kind -> (length of its window in ms, what it is keyed by beside project and window)
KINDS: Final = {
    KIND_TOOL_MINUTE: (_MINUTE_MS, _BASE),
    KIND_TOOL_HOUR: (_HOUR_MS, _BASE),
    KIND_TOOL_DAY: (_DAY_MS, _BASE),
    KIND_USER_HOUR: (_HOUR_MS, (*_BASE, "user_id", "connected_account_id")),
    KIND_SESSION_HOUR: (_HOUR_MS, (*_BASE, "user_id", "connected_account_id", "session_id")),
}
# kind -> the column whose values it tells of: who called on a day, and when first and last; no sums.
PRESENCE: Final = {KIND_USER_DAY: "user_id", KIND_SESSION_DAY: "session_id"}
# What a rollup needs of a row; what recovery reads back.
NEEDED: Final = (
    "project_id", "timestamp", "id", "tool_slug", "toolkit_slug", "status", "failure_class", "duration_ms", "user_id",
    "session_id", "connected_account_id", "kafka_offset", "late_at_ms",
)  # fmt: skip
# Their types as they are read back, the timestamp in epoch ms.
NEEDED_TYPES: Final = {name: pl.String() for name in NEEDED} | {
    "timestamp": pl.Int64(),
    "duration_ms": pl.Float64(),
    "kafka_offset": pl.UInt64(),
    "late_at_ms": pl.Int64(),
}
COUNTS: Final = ("records", "events", "accepted", "duplicates", "conflicts", "dead_letters", "forwarded", "lost")

DIMENSIONS: Final = (*_BASE, "user_id", "connected_account_id", "session_id")
_NO_CORRECTION: Final = (
    pl.lit(0, dtype=pl.Int64).alias("newest_record_ms"),
    pl.lit(0, dtype=pl.UInt64).alias("first_offset"),
)
_SKETCH: Final = pl.List(pl.Struct({"key": pl.Int16, "value": pl.UInt64}))


def window_start_ms(timestamp_ms: int, length_ms: int) -> int:
    """Return the start of the one window [start, start + length) a timestamp lies in; windows are aligned to the epoch."""
    return timestamp_ms - timestamp_ms % length_ms


def rollup(rows: pl.DataFrame) -> pl.DataFrame:
    """Sum rows into windows of every kind.

    Args:
        rows: at least the columns NEEDED; `timestamp` as Datetime in ms.

    Returns:
        kind, project_id, window_start (epoch s), DIMENSIONS, calls, durations (list of {key, value}), first_ms, first_id,
        last_call_ms (0 but of PRESENCE), newest_record_ms and first_offset (both 0 but of corrections).
    """
    narrow = rows.select(
        "project_id",
        *DIMENSIONS,
        "id",
        "kafka_offset",
        "late_at_ms",
        pl.col("timestamp").cast(pl.Int64).alias("at_ms"),
        pl.when(pl.col("duration_ms") < TINY_MS)
        .then(pl.lit(ZERO_BUCKET, dtype=pl.Int64))
        .otherwise((pl.col("duration_ms").clip(lower_bound=TINY_MS).log() / LN_GAMMA).ceil().cast(pl.Int64))
        .cast(pl.Int16)
        .alias("bucket"),
    )
    parts = [_kind(narrow, kind, length_ms, list(keys)) for kind, (length_ms, keys) in KINDS.items()]
    parts += [_presence(narrow, kind, column) for kind, column in PRESENCE.items()]
    if (narrow["late_at_ms"] != IN_TIME).any():
        parts.append(_corrections(narrow))
    return pl.concat(parts)


def _kind(rows: pl.DataFrame, kind: str, length_ms: int, keys: list[str]) -> pl.DataFrame:
    if kind == KIND_SESSION_HOUR:
        # A call without a session is in the other kinds; here it would only repeat what they hold.
        rows = rows.filter(pl.col("session_id") != "")
    window = (pl.col("at_ms") - pl.col("at_ms") % length_ms) // 1000
    by = ["project_id", "window_start", *keys]
    rows = rows.with_columns(window.alias("window_start"))
    buckets = rows.group_by([*by, "bucket"]).agg(pl.len().cast(pl.UInt64).alias("n"))
    sums = buckets.group_by(by).agg(
        pl.col("n").sum().alias("calls"),
        pl.struct(pl.col("bucket").alias("key"), pl.col("n").alias("value")).alias("durations"),
    )
    if kind == KIND_SESSION_HOUR:
        # The smallest (timestamp, id); ids compare by their bytes, as in ClickHouse.
        first = rows.group_by(by).agg(
            pl.col("at_ms").min().alias("first_ms"), pl.col("id").sort_by("at_ms", "id").first().alias("first_id")
        )
        sums = sums.join(first, on=by, how="left")
    else:
        sums = sums.with_columns(
            pl.lit(NO_FIRST_CALL[0], dtype=pl.Int64).alias("first_ms"), pl.lit(NO_FIRST_CALL[1]).alias("first_id")
        )
    absent = [pl.lit("").alias(name) for name in DIMENSIONS if name not in keys]
    return sums.with_columns(
        pl.lit(kind).alias("kind"),
        *absent,
        *_NO_CORRECTION,
        pl.lit(0, dtype=pl.Int64).alias("last_call_ms"),
    ).select(_columns())


def _presence(rows: pl.DataFrame, kind: str, column: str) -> pl.DataFrame:
    window = (pl.col("at_ms") - pl.col("at_ms") % _DAY_MS) // 1000
    absent = [pl.lit("").alias(name) for name in (*DIMENSIONS, "first_id") if name != column]
    return (
        rows.filter(pl.col(column) != "")
        .group_by("project_id", window.alias("window_start"), column)
        .agg(pl.col("at_ms").min().alias("first_ms"), pl.col("at_ms").max().alias("last_call_ms"))
        .with_columns(
            pl.lit(kind).alias("kind"),
            *absent,
            *_NO_CORRECTION,
            pl.lit(0, dtype=pl.UInt64).alias("calls"),
            pl.lit([], dtype=_SKETCH).alias("durations"),
        )
        .select(_columns())
    )


def _corrections(rows: pl.DataFrame) -> pl.DataFrame:
    # Calls are settled, and failures among them by their status; percentiles are not, so a correction holds no sketch.
    return (
        corrections(rows, by=DIMENSIONS)
        .with_columns(
            pl.lit(KIND_CORRECTION).alias("kind"),
            pl.lit([], dtype=_SKETCH).alias("durations"),
            pl.lit(NO_FIRST_CALL[0], dtype=pl.Int64).alias("first_ms"),
            pl.lit(NO_FIRST_CALL[1]).alias("first_id"),
            pl.lit(0, dtype=pl.Int64).alias("last_call_ms"),
        )
        .select(_columns())
    )


def _columns() -> list[pl.Expr]:
    return [
        *map(pl.col, ("kind", "project_id", "window_start", *DIMENSIONS, "calls")),
        pl.col("durations").cast(_SKETCH),
        *map(pl.col, ("first_ms", "first_id", "last_call_ms", "newest_record_ms", "first_offset")),
    ]


def receipt_rows(
    *, totals: dict[str, int], projects: dict[str, dict[str, int]], next_offset: int, newest_record_ms: int
) -> pl.DataFrame:
    """Build the receipt of a batch and its parts by project; to be written in one block with the batch's sums.

    Args:
        totals: each of COUNTS for the whole batch.
        projects: the same by project, without records.
        next_offset: where the batch ends.
        newest_record_ms: the latest record's time, 0 of an empty batch; it also gives the receipt's hour.
    """
    hour = window_start_ms(newest_record_ms, 3_600_000) // 1000
    lines = [(KIND_RECEIPT, "", totals), *((KIND_PROJECT_RECEIPT, project, counts) for project, counts in projects.items())]
    return pl.DataFrame(
        [
            {
                "kind": kind,
                "project_id": project,
                "window_start": hour,
                "receipts": 1,
                "next_offset": next_offset,
                "newest_record_ms": newest_record_ms,
                **{name: counts.get(name, 0) for name in COUNTS},
            }
            for kind, project, counts in lines
        ]
    )
