-- name: release
-- Shut the gate that a call will come to next, then open the one it waits at; null when the next is held by somebody.
SELECT CASE WHEN pg_try_advisory_lock($1, $2) THEN pg_advisory_unlock($1, $3) END;

-- name: shut
SELECT pg_try_advisory_lock($1, $2);

-- name: open
SELECT pg_advisory_unlock($1, $2);

-- name: blockers
-- Who keeps each of these backends waiting, each once.
SELECT pid, array_to_string(ARRAY(SELECT DISTINCT unnest(pg_blocking_pids(pid))), ' ')
  FROM unnest($1::integer[]) AS pid;

-- name: cancel
SELECT pg_cancel_backend($1);

-- name: terminate
SELECT pg_terminate_backend($1);
