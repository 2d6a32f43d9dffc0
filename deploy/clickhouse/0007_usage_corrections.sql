-- What late events changed after a window had closed. A window here is an hour of usage; it closes a while after its end
-- (TOOLLEDGER_WINDOW_CLOSE_MS). Judged by the time of the record that an event counts by, so that a replay judges alike.
-- 0: counted in time. Otherwise when it was counted, epoch ms: what recovery makes a batch's corrections from.
ALTER TABLE tool_executions ADD COLUMN IF NOT EXISTS late_at_ms Int64 CODEC(Delta, ZSTD(1)) AFTER accepted_at;
-- Corrections stand in usage_windows, as kind `correction`, because they must land in one block with the sums they are part of:
-- keys as session_hour, incarnation and kafka_partition; first_offset is the first record counted at the moment
-- newest_record_ms, which tells apart what would otherwise merge. The index finds the moments of a short time.
ALTER TABLE usage_windows ADD INDEX IF NOT EXISTS by_newest_record newest_record_ms TYPE minmax GRANULARITY 1;
CREATE VIEW IF NOT EXISTS usage_corrections AS
SELECT
    project_id,
    window_start,
    window_start + INTERVAL 1 HOUR AS window_end,
    fromUnixTimestamp64Milli(newest_record_ms, 'UTC') AS corrected_at,
    tool_slug,
    toolkit_slug,
    status,
    failure_class,
    user_id,
    connected_account_id,
    session_id,
    calls,
    incarnation,
    kafka_partition,
    first_offset AS kafka_offset,
    newest_record_ms AS corrected_ms
FROM usage_windows
WHERE kind = 'correction';
