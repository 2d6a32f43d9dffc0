-- What `toolledger verify` found the last time: a row for each project that had events then, and one of project_id '' for the whole
-- ledger, whose findings are those of no project. All rows of a run have the same verified_at; the newest of a project is in force.
-- kafka_partition is always 0: on a cluster rows go to the shard of their partition, and these belong to none.
CREATE TABLE IF NOT EXISTS verifications
(
    project_id      String,
    verified_at     DateTime64(3, 'UTC'),
    proved          Bool,
    events          UInt64,
    accepted        UInt64,
    duplicates      UInt64,
    conflicts       UInt64,
    letters         UInt64, -- dead ones
    forwarded       UInt64,
    rows            UInt64,
    calls           UInt64,
    findings        String, -- the first of them, as JSON: [{"kind", "text", "action"}]
    findings_count  UInt64,
    kafka_partition UInt32
)
ENGINE = ReplacingMergeTree(verified_at)
ORDER BY project_id
TTL toDateTime(verified_at) + INTERVAL 400 DAY;
