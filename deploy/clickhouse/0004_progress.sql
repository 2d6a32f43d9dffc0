-- A heartbeat of each partition's owner: how far the proof reaches, and until when the answer is complete.
-- The row with the newest reported_at of a (incarnation, kafka_partition) is in force.
CREATE TABLE IF NOT EXISTS progress
(
    incarnation     LowCardinality(String),
    kafka_partition UInt32,
    partitions      UInt32,
    next_offset     UInt64,
    end_offset      UInt64,
    complete_until  DateTime64(3, 'UTC'),
    worker          String,
    reported_at     DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(reported_at)
ORDER BY (incarnation, kafka_partition);
