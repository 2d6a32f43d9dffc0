"""From frames to Arrow streams, one record batch each, so that an insert is one block. Pure.

Arrow, because ClickHouse reads it without a Python step a value, and pyarrow, because Polars has no Map type.
"""

from collections.abc import Sequence
from typing import Final

import polars as pl
import pyarrow as pa

from ingest.contract.tables import KIND_CORRECTION, NO_FIRST_CALL
from ingest.contract.topics import TOOL_EXECUTIONS
from processors.batch import Batch, Prepared
from processors.usage import COUNTS, DIMENSIONS

_RECEIPT: Final = ("receipts", "next_offset", *COUNTS)


def execution_block(prepared: Prepared) -> bytes:
    """Return the block of a batch for `tool_executions`."""
    return _stream(_plain(prepared.executions.to_arrow()))


def usage_block(prepared: Prepared) -> bytes:
    """Return the ONE block of a batch for `usage_windows`: its sums and its receipt."""
    batch, usage, receipt = prepared.batch, prepared.usage, prepared.receipt
    zeros = [pl.lit(0, dtype=pl.UInt64).alias(name) for name in _RECEIPT]
    # Sums of all partitions merge; corrections and receipts stay those of their own.
    own = pl.when(pl.col("kind") == KIND_CORRECTION)
    sums = usage.with_columns(
        *zeros,
        own.then(pl.lit(batch.incarnation)).otherwise(pl.lit("")).alias("incarnation"),
        own.then(pl.lit(batch.partition, dtype=pl.UInt32)).otherwise(pl.lit(0, dtype=pl.UInt32)).alias("kafka_partition"),
    )
    proof = receipt.with_columns(
        *[pl.lit("").alias(name) for name in DIMENSIONS],
        pl.col(*_RECEIPT).cast(pl.UInt64),
        pl.lit(0, dtype=pl.UInt64).alias("calls"),
        pl.lit([], dtype=usage.schema["durations"]).alias("durations"),
        pl.lit(NO_FIRST_CALL[0], dtype=pl.Int64).alias("first_ms"),
        pl.lit(NO_FIRST_CALL[1]).alias("first_id"),
        pl.lit(0, dtype=pl.Int64).alias("last_call_ms"),
        pl.lit(batch.first_offset, dtype=pl.UInt64).alias("first_offset"),
        pl.lit(batch.incarnation).alias("incarnation"),
        pl.lit(batch.partition, dtype=pl.UInt32).alias("kafka_partition"),
    ).select(sums.columns)
    whole = pl.concat([sums, proof]).with_columns(
        pl.lit(batch.month, dtype=pl.UInt32).alias("batch_month"), pl.col("window_start").cast(pl.UInt32)
    )
    table = _plain(whole.drop("durations", "first_ms", "first_id").to_arrow())
    return _stream(
        table.append_column("durations", _map(whole["durations"])).append_column(
            "first_call", _pair(whole["first_ms"], whole["first_id"])
        )
    )


def dead_letter_block(prepared: Prepared) -> bytes:
    """Return the block of a batch for `dead_letters`; bytes stay bytes, whatever they are."""
    batch, letters = prepared.batch, prepared.dead_letters
    count = len(letters)
    columns = {
        "batch_month": pa.array([batch.month] * count, pa.uint32()),
        "project_id": pa.array([letter.project_id for letter in letters], pa.string()),
        "incarnation": pa.array([batch.incarnation] * count, pa.string()),
        "kafka_topic": pa.array([TOOL_EXECUTIONS] * count, pa.string()),
        "kafka_partition": pa.array([batch.partition] * count, pa.uint32()),
        "kafka_offset": pa.array([letter.offset for letter in letters], pa.uint64()),
        "kafka_index": pa.array([letter.index for letter in letters], pa.uint32()),
        "first_offset": pa.array([batch.first_offset] * count, pa.uint64()),
        "rewind": pa.array([batch.rewind] * count, pa.uint64()),
        "accepted_at": pa.array([letter.accepted_ms for letter in letters], pa.timestamp("ms", "UTC")),
        "reason": pa.array([letter.reason for letter in letters], pa.string()),
        "message": pa.array([letter.message for letter in letters], pa.string()),
        "key": pa.array([letter.key for letter in letters], pa.binary()),
        "payload": pa.array([letter.payload for letter in letters], pa.binary()),
    }
    return _stream(pa.table(columns))


def _map(durations: pl.Series) -> pa.Array:
    """A list of {key, value} is a Map in all but its Arrow type."""
    listed = durations.rechunk().to_arrow()
    pairs = listed.values
    offsets = listed.offsets.cast(pa.int32())
    return pa.MapArray.from_arrays(offsets, pairs.field(0), pairs.field(1))


def _pair(first: pl.Series, second: pl.Series) -> pa.Array:
    return pa.StructArray.from_arrays([_one(first.to_arrow()), _text(second.to_arrow())], names=["1", "2"])


def _plain(table: pa.Table) -> pa.Table:
    """Strings as the classic Arrow type, one chunk a column; ClickHouse reads views and large strings less widely."""
    columns = [_text(column) if pa.types.is_large_string(column.type) or _is_view(column.type) else column
               for column in map(_one, table.columns)]  # fmt: skip
    return pa.table(dict(zip(table.column_names, columns, strict=True)))


def _is_view(kind: pa.DataType) -> bool:
    return bool(kind == pa.string_view())


def _text(column: pa.Array) -> pa.Array:
    return column.cast(pa.string())


def _one(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=max(1, table.num_rows))
    return bytes(sink.getvalue())


def columns_of(block: bytes) -> Sequence[str]:
    """Return the column names of a block, in order."""
    return list(pa.ipc.open_stream(block).schema.names)


__all__ = ["Batch", "columns_of", "dead_letter_block", "execution_block", "usage_block"]
