-- The dead letter a row was replayed from, as INCARNATION-PARTITION-OFFSET-INDEX; '' for a row that came by itself.
-- So whether a dead letter was replayed is asked of the rows themselves, and nothing has to be kept in step with them.
ALTER TABLE tool_executions ADD COLUMN IF NOT EXISTS replay_of String CODEC(ZSTD(1));
ALTER TABLE tool_executions ADD INDEX IF NOT EXISTS by_replay replay_of TYPE bloom_filter(0.01) GRANULARITY 1;
