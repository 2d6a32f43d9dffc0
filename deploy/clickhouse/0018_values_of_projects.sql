-- What 0016 did for ids, for users, sessions, traces and requests: each is found together with its project's id, so that nothing of
-- another project is read for a value that this one has too, not even a stretch of rows that both share (as all do that were written
-- together a moment ago), and no clock tells that it exists. The indexes of values alone go once these are there.
-- None of them has the empty value, and none ever had: calls without a session, which usage by session reads from here, are found by the
-- smallest one of a stretch of rows.
ALTER TABLE tool_executions
    ADD INDEX IF NOT EXISTS rows_of_own_user if(user_id = '', '', concat(project_id, ' ', user_id)) TYPE text(tokenizer = 'array'),
    ADD INDEX IF NOT EXISTS rows_of_own_session if(session_id = '', '', concat(project_id, ' ', session_id)) TYPE text(tokenizer = 'array'),
    ADD INDEX IF NOT EXISTS rows_of_own_trace if(trace_id = '', '', concat(project_id, ' ', trace_id)) TYPE text(tokenizer = 'array'),
    ADD INDEX IF NOT EXISTS rows_of_own_request if(request_id = '', '', concat(project_id, ' ', request_id)) TYPE text(tokenizer = 'array'),
    ADD INDEX IF NOT EXISTS rows_of_own_failed_user
        if(status = 'failed', if(user_id = '', '', concat(project_id, ' ', user_id)), '') TYPE text(tokenizer = 'array'),
    ADD INDEX IF NOT EXISTS least_session session_id TYPE minmax;
ALTER TABLE tool_executions
    MATERIALIZE INDEX rows_of_own_user,
    MATERIALIZE INDEX rows_of_own_session,
    MATERIALIZE INDEX rows_of_own_trace,
    MATERIALIZE INDEX rows_of_own_request,
    MATERIALIZE INDEX rows_of_own_failed_user,
    MATERIALIZE INDEX least_session;
ALTER TABLE tool_executions
    DROP INDEX IF EXISTS rows_of_user,
    DROP INDEX IF EXISTS rows_of_session,
    DROP INDEX IF EXISTS rows_of_trace,
    DROP INDEX IF EXISTS rows_of_request,
    DROP INDEX IF EXISTS rows_of_failed_user;
