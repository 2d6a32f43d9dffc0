-- Of a purge of logs it was noted how many it took; now, under the kind `totals`, how many were ever taken of the project up to it, so
-- that nothing is counted twice however purges were noted beside each other. The former notes stay as they are and are not read again.
INSERT INTO purges (project_id, kind, until, calls, done, noted_at, kafka_partition)
SELECT project_id, 'totals', until, sum(taken) OVER (PARTITION BY project_id ORDER BY until), is_done, last_noted_at, 0
FROM
(
    SELECT project_id, until, max(calls) AS taken, max(done) AS is_done, max(noted_at) AS last_noted_at
    FROM purges
    WHERE kind = 'logs'
    GROUP BY project_id, until
);
