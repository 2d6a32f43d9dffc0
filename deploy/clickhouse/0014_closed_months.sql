-- A month that is over is merged into one part, a day after the last change to it: every part that is looked into costs a question one
-- to two milliseconds, and by itself the engine leaves some five to ten of them for good. Each is rewritten this once, at the priority
-- of merges; a month of more than 150 GB stays as it is.
ALTER TABLE tool_executions MODIFY SETTING
    min_age_to_force_merge_seconds = 86400,
    min_age_to_force_merge_on_partition_only = 1,
    enable_max_bytes_limit_for_min_age_to_force_merge = 1;
ALTER TABLE usage_windows MODIFY SETTING
    min_age_to_force_merge_seconds = 86400,
    min_age_to_force_merge_on_partition_only = 1,
    enable_max_bytes_limit_for_min_age_to_force_merge = 1;
