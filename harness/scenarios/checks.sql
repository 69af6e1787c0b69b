-- name: counters
-- Scans and changes of every table, those by foreign keys and triggers too.
SELECT CASE WHEN schemaname = 'public' THEN relname ELSE schemaname || '.' || relname END::text,
       coalesce(seq_scan, 0) + coalesce(idx_scan, 0),
       n_tup_ins + n_tup_upd + n_tup_del
  FROM pg_stat_user_tables
 WHERE schemaname !~ '^harness_';

-- name: sequences
-- Where every sequence stands.
SELECT coalesce(jsonb_object_agg(schemaname || '.' || sequencename, last_value), '{}') FROM pg_sequences;

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
SELECT current_timestamp, localtimestamp, rolsuper FROM pg_roles WHERE rolname = current_user;

-- name: operators
-- Those of some operators that there are.
SELECT DISTINCT oprname::text FROM pg_operator WHERE oprname = ANY (%s);

-- name: columns
-- Every table with its columns, and the partitions and other children that have its rows.
WITH RECURSIVE below (parent, child) AS (
    SELECT inhparent, inhrelid FROM pg_inherits
    UNION
    SELECT b.parent, i.inhrelid FROM below AS b JOIN pg_inherits AS i ON i.inhparent = b.child
), named (oid, name) AS (
    SELECT c.oid, CASE WHEN n.nspname = 'public' THEN c.relname::text ELSE n.nspname || '.' || c.relname END
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^(pg_|information_schema$|harness_)'
)
SELECT t.name,
       ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = t.oid AND attnum > 0 AND NOT attisdropped),
       ARRAY(SELECT c.name FROM below AS b JOIN named AS c ON c.oid = b.child WHERE b.parent = t.oid)
  FROM named AS t;

-- name: pin_statistics
-- No autovacuum, so that nothing but one ANALYZE says how large a table is.
DO $$
DECLARE
    t regclass;
BEGIN
    FOR t IN SELECT c.oid::regclass FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
              WHERE c.relkind = 'r' AND n.nspname !~ '^(pg_|information_schema$)' LOOP
        BEGIN
            EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', t);
        EXCEPTION WHEN insufficient_privilege THEN
            NULL;  -- another role's: the sessions hardly write it
        END;
    END LOOP;
END $$
