-- What a listing shows of a call, as one JSON array: each column that a question reads costs it as much as a part of the table does,
-- whatever is in it (planned, opened, unpacked), and a page of logs read 24 of them. Made by the engine from the columns it repeats, so
-- that they cannot disagree; what a producer may fill at will (metadata, data) is not repeated. `query_api/logs.py` has the same order.
ALTER TABLE tool_executions
    ADD COLUMN IF NOT EXISTS shown String MATERIALIZED toJSONString(tuple(
        status, level, message, duration_ms, tool_slug, toolkit_slug, user_id, session_id, connected_account_id, auth_config_id,
        sandbox_id, request_id, trace_id, failure_class, http_status, error_message, error_code, error_type, parent_log_id,
        parent_tool_slug, framework, language, host)) CODEC(ZSTD(1));
ALTER TABLE tool_executions
    MATERIALIZE COLUMN shown;
