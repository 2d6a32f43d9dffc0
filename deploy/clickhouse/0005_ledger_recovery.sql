-- Of a receipt: how many offsets of its range Kafka had deleted before anybody read them. Nothing heals them; `verify` reports them.
ALTER TABLE usage_windows
    ADD COLUMN IF NOT EXISTS lost SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)) AFTER forwarded;

-- Grows each time a partition goes back to an older receipt. Whoever goes back takes away only rows older than that, so that one who
-- wakes up late in the middle of it harms nobody who went on since.
ALTER TABLE tool_executions
    ADD COLUMN IF NOT EXISTS rewind UInt64 CODEC(Delta, ZSTD(1)) AFTER first_offset;

ALTER TABLE dead_letters
    ADD COLUMN IF NOT EXISTS rewind UInt64 CODEC(Delta, ZSTD(1)) AFTER first_offset;
