-- A call is found by its id together with its project's: an id of another project is then in no stretch of rows that is looked into, not
-- even in the one that two projects share, so no clock can tell that it exists. And the primary key has nothing to say about an id
-- that is asked for this way, which saves a question 3 ms for 100 million rows. The index of ids alone goes once this one is there.
ALTER TABLE tool_executions
    ADD INDEX IF NOT EXISTS rows_of_own_id concat(project_id, ' ', id) TYPE text(tokenizer = 'array');
ALTER TABLE tool_executions
    MATERIALIZE INDEX rows_of_own_id;
ALTER TABLE tool_executions
    DROP INDEX IF EXISTS rows_of_id;
