-- name: counters
-- Scans and changes of every table, those by foreign keys and triggers too.
SELECT CASE WHEN schemaname = 'public' THEN relname ELSE schemaname || '.' || relname END::text,
       coalesce(seq_scan, 0) + coalesce(idx_scan, 0),
       n_tup_ins + n_tup_upd + n_tup_del
  FROM pg_stat_user_tables
 WHERE schemaname !~ '^harness_';

-- name: waits_for
-- Whom a backend waits for, and what each of them does.
SELECT by, CASE WHEN a.state = 'active' THEN 'runs ' ELSE a.state || ' after ' END || left(a.query, 80)
  FROM unnest(pg_blocking_pids(%s)) AS by
  LEFT JOIN pg_stat_activity AS a ON a.pid = by;

-- name: last_statements
-- When each backend's last statement began, and when it ended.
SELECT pid, query_start, state_change FROM pg_stat_activity WHERE pid = ANY (%s) AND state LIKE 'idle%%'
;

-- name: waiting
SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted AND pid = ANY (%s)
;

-- name: session
SELECT now(), localtimestamp, rolsuper FROM pg_roles WHERE rolname = current_user
