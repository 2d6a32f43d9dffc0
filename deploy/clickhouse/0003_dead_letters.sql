-- Input that could not become an event: bytes, reason and origin, kept so that it can be mended and replayed.
-- project_id is '' where the input did not say whose it is.
CREATE TABLE IF NOT EXISTS dead_letters
(
    batch_month     UInt32 CODEC(ZSTD(1)),
    project_id      LowCardinality(String),
    incarnation     LowCardinality(String),
    kafka_topic     LowCardinality(String),
    kafka_partition UInt32 CODEC(ZSTD(1)),
    kafka_offset    UInt64 CODEC(Delta, ZSTD(1)),
    kafka_index     UInt32 CODEC(ZSTD(1)),
    first_offset    UInt64 CODEC(Delta, ZSTD(1)),
    accepted_at     DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    reason          LowCardinality(String),
    message         String CODEC(ZSTD(1)),
    key             String CODEC(ZSTD(1)),
    payload         String CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree
PARTITION BY batch_month
ORDER BY (project_id, incarnation, kafka_partition, kafka_offset, kafka_index)
SETTINGS non_replicated_deduplication_window = 100000;
