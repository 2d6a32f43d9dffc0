"""From accepted events to the columns of `tool_executions`. Pure.

Columns, not objects: each column is built in one pass, so an event costs a few array steps.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import polars as pl
import xxhash

from ingest.contract.event import Context, Event, Parent, Source
from ingest.contract.redact import COMMON, Redactor
from processors.enrich import failure_of, toolkit_of

_NO_CONTEXT: Final = Context()
_NO_SOURCE: Final = Source()
_NO_PARENT: Final = Parent()
_MOMENT: Final = pl.Datetime("ms", "UTC")


def batch_month(record_ms: int) -> int:
    """Return yyyymm of a batch's first record, UTC: the table partition of everything the batch writes."""
    moment = datetime.fromtimestamp(record_ms / 1000, tz=UTC)
    return moment.year * 100 + moment.month


def execution_rows(
    events: Sequence[Event],
    *,
    project_ids: Sequence[str],
    ids: Sequence[str],
    timestamps_ms: Sequence[int],
    accepted_ms: Sequence[int],
    offsets: Sequence[int],
    indexes: Sequence[int],
    data: Sequence[bytes],
    metadata: Sequence[bytes],
    replays: Sequence[str],
    origin: Mapping[str, object],
    stores_payload: Callable[[str], bool],
    redactor: Redactor = COMMON,
) -> pl.DataFrame:
    """Build the rows of accepted events, one a row, in the order given.

    Args:
        events: with the parallel lists beside them.
        replays: the dead letters they were replayed from; empty where none was.
        origin: constant columns: batch_month, incarnation, kafka_partition, first_offset, rewind.
        stores_payload: whether a project keeps request and response.
        redactor: takes secrets out: those who write to Kafka themselves may not have.
    """
    failures = [failure_of(event) for event in events]
    contexts = [event.context or _NO_CONTEXT for event in events]
    sources = [event.source or _NO_SOURCE for event in events]
    parents = [event.parent or _NO_PARENT for event in events]
    payloads = clean_json(data, redactor)
    error_messages = clean_texts([failure[0] for failure in failures], redactor)
    messages = clean_texts([event.message or "" for event in events], redactor)
    hashes = [
        _hash(event, message, error, raw)
        for event, message, error, raw in zip(events, messages, error_messages, payloads, strict=True)
    ]
    stored = {project_id: stores_payload(project_id) for project_id in set(project_ids)}
    if not all(stored.values()):
        payloads = ["" if not stored[owner] else text for text, owner in zip(payloads, project_ids, strict=True)]

    def text(name: str, values: Sequence[str | None]) -> pl.Series:
        # Many members are seldom sent: a column of nothing costs nothing.
        return pl.Series(name, values if any(values) else pl.repeat("", len(values), eager=True), dtype=pl.String)

    frame = pl.DataFrame(
        [
            text("project_id", project_ids),
            pl.Series("timestamp", timestamps_ms, dtype=pl.Int64),
            text("id", ids),
            text("tool_slug", [event.tool_slug for event in events]),
            text("toolkit_slug", [toolkit_of(event.tool_slug, event.toolkit_slug) for event in events]),
            text("user_id", [event.user_id for event in events]),
            text("session_id", [event.session_id for event in events]),
            text("status", [event.status for event in events]),
            text("failure_class", [failure[4] for failure in failures]),
            pl.Series("http_status", [failure[3] for failure in failures], dtype=pl.UInt16),
            pl.Series("duration_ms", [event.duration_ms for event in events], dtype=pl.Float64),
            text("message", messages),
            text("error_message", error_messages),
            text("error_code", [failure[1] for failure in failures]),
            text("error_type", [failure[2] for failure in failures]),
            text("connected_account_id", [event.connected_account_id for event in events]),
            text("auth_config_id", [event.auth_config_id for event in events]),
            text("sandbox_id", [event.sandbox_id for event in events]),
            text("parent_log_id", [parent.log_id for parent in parents]),
            text("parent_tool_slug", [parent.tool_slug for parent in parents]),
            text("trace_id", [context.trace_id for context in contexts]),
            text("request_id", [context.request_id for context in contexts]),
            text("framework", [source.framework for source in sources]),
            text("language", [source.language for source in sources]),
            text("host", [source.host for source in sources]),
            text("metadata", clean_json(metadata, redactor)),
            text("data", payloads),
            pl.Series("content_hash", hashes, dtype=pl.UInt64),
            pl.Series("accepted_at", accepted_ms, dtype=pl.Int64),
            pl.Series("kafka_offset", offsets, dtype=pl.UInt64),
            pl.Series("kafka_index", indexes, dtype=pl.UInt32),
            text("replay_of", replays or [""] * len(events)),
        ]
    )
    failed = pl.col("status") == "failed"
    said = (
        pl.when(pl.col("message") != "")
        .then(pl.col("message"))
        .when(failed & (pl.col("error_message") != ""))
        .then(pl.col("tool_slug") + " failed: " + pl.col("error_message"))
        .when(failed)
        .then(pl.col("tool_slug") + " failed")
        .otherwise(pl.col("tool_slug") + " succeeded")
    )
    # Absent, null and "" are one thing.
    return frame.with_columns(
        pl.col(pl.String).fill_null(""),
        pl.col("timestamp", "accepted_at").cast(_MOMENT),
    ).with_columns(
        said.alias("message"),
        pl.when(failed).then(pl.lit("error")).otherwise(pl.lit("info")).alias("level"),
        pl.lit(origin["batch_month"], dtype=pl.UInt32).alias("batch_month"),
        pl.lit(origin["incarnation"], dtype=pl.String).alias("incarnation"),
        pl.lit(origin["kafka_partition"], dtype=pl.UInt32).alias("kafka_partition"),
        pl.lit(origin["first_offset"], dtype=pl.UInt64).alias("first_offset"),
        pl.lit(origin["rewind"], dtype=pl.UInt64).alias("rewind"),
    )


def content_hash(event: Event, redactor: Redactor = COMMON) -> int:
    """Return what `content_hash` of an event's row is: whether two events with one id say the same.

    The timestamp is left out, for a retry may have been given a new one.
    """
    (data,) = clean_json([b"" if event.data == b"null" else bytes(event.data)], redactor)
    message, error = clean_texts([event.message or "", failure_of(event)[0]], redactor)
    return _hash(event, message, error, data)


def _hash(event: Event, message: str, error_message: str, data: str) -> int:
    said = (
        f"{event.tool_slug}\x1f{event.status}\x1f{event.duration_ms!r}\x1f{event.user_id or ''}\x1f{event.session_id or ''}"
        f"\x1f{message}\x1f{error_message}\x1f{data}"
    )
    return xxhash.xxh3_64_intdigest(said.encode())


def clean_json(values: Sequence[bytes], redactor: Redactor) -> list[str]:
    """Redact JSON texts."""
    texts = [value.decode() for value in values]
    for place in redactor.suspects(values):
        texts[place] = redactor.json(values[place]).decode()
    return texts


def clean_texts(values: list[str], redactor: Redactor) -> list[str]:
    """Redact messages, in place; most events have none."""
    said = [place for place, value in enumerate(values) if value]
    for place in redactor.suspects([values[place].encode() for place in said]) if said else ():
        values[said[place]] = redactor.text(values[said[place]])
    return values
