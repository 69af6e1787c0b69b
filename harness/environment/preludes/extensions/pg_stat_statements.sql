-- Stand-in for pg_stat_statements: always empty.
-- says: always empty
CREATE VIEW pg_stat_statements AS
    SELECT NULL::oid AS userid, NULL::oid AS dbid, NULL::bigint AS queryid, NULL::text AS query, NULL::bigint AS calls,
           NULL::float8 AS total_exec_time, NULL::float8 AS min_exec_time, NULL::float8 AS max_exec_time,
           NULL::float8 AS mean_exec_time, NULL::bigint AS rows WHERE false;
CREATE FUNCTION pg_stat_statements_reset(userid oid DEFAULT 0, dbid oid DEFAULT 0, queryid bigint DEFAULT 0) RETURNS void
LANGUAGE sql AS $$ SELECT $$;
