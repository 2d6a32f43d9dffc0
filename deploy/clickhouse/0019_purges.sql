-- What `toolledger retention` has taken away: of a project everything before `until`. A purge of `logs` takes rows and usage alike, and
-- `calls` says of how many, noted before the first is taken and the largest number that was noted; `done` once they are gone. A purge of
-- `payloads` only empties them. kafka_partition is always 0: on a cluster rows go to the shard of their partition.
CREATE TABLE IF NOT EXISTS purges
(
    project_id      String,
    kind            LowCardinality(String),
    until           DateTime('UTC'),
    calls           SimpleAggregateFunction(max, UInt64),
    done            SimpleAggregateFunction(max, UInt8),
    noted_at        SimpleAggregateFunction(max, DateTime64(3, 'UTC')),
    kafka_partition SimpleAggregateFunction(max, UInt32)
)
ENGINE = AggregatingMergeTree
ORDER BY (project_id, kind, until);
-- Accepted, counted, and past its retention: accepted = rows + purged = calls + purged.
ALTER TABLE verifications ADD COLUMN IF NOT EXISTS purged UInt64 AFTER calls;
-- A merge makes the inverted indexes of its part anew. It did so within a gigabyte an index, which a large part fills; in pieces of this
-- size it takes as long. A version that does not know the setting does without it.
ALTER TABLE tool_executions MODIFY SETTING text_index_max_memory_usage_before_flush = 67108864;
