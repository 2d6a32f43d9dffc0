-- Usage and receipts in ONE table, because only one table lands in one block: a batch's sums and its receipt arrive together
-- or not at all. Kinds:
--   tool_minute      window of a minute; keys tool_slug, toolkit_slug, status, failure_class
--   user_hour        window of an hour;  those and user_id, connected_account_id
--   session_hour     window of an hour;  all of those and session_id; first_call is the smallest (timestamp ms, id) in the row
--   receipt          one row a batch; project_id is '', keys incarnation, kafka_partition, first_offset; window_start is its hour
--   project_receipt  one row a batch and project, for the proof by project
-- `durations` is a sketch: log bucket -> calls (ingest.contract.sketch). Sums add up over rows, whatever was merged already.
CREATE TABLE IF NOT EXISTS usage_windows
(
    batch_month          UInt32 CODEC(ZSTD(1)),
    kind                 LowCardinality(String),
    project_id           LowCardinality(String),
    incarnation          LowCardinality(String),
    kafka_partition      UInt32 CODEC(ZSTD(1)),
    window_start         DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    tool_slug            LowCardinality(String),
    toolkit_slug         LowCardinality(String),
    status               LowCardinality(String),
    failure_class        LowCardinality(String),
    user_id              String CODEC(ZSTD(1)),
    connected_account_id String CODEC(ZSTD(1)),
    session_id           String CODEC(ZSTD(1)),
    first_offset         UInt64 CODEC(Delta, ZSTD(1)),
    calls                SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    durations            SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1)),
    first_call           SimpleAggregateFunction(min, Tuple(Int64, String)) CODEC(ZSTD(1)),
    receipts             SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    next_offset          SimpleAggregateFunction(max, UInt64) CODEC(Delta, ZSTD(1)),
    records              SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    events               SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    accepted             SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    duplicates           SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    conflicts            SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    dead_letters         SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    forwarded            SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    newest_record_ms     SimpleAggregateFunction(max, Int64) CODEC(Delta, ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY batch_month
ORDER BY (kind, project_id, incarnation, kafka_partition, window_start, tool_slug, toolkit_slug, status, failure_class,
          user_id, connected_account_id, session_id, first_offset)
SETTINGS non_replicated_deduplication_window = 100000;
