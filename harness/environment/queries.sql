-- name: settings
-- The settings that a figure must be read with.
SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY (%s) OR name = 'server_version';

-- name: may_create_databases
SELECT rolname, rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user;

-- name: rights
SELECT rolname, rolsuper, current_setting('server_version') FROM pg_roles WHERE rolname = current_user;

-- name: backend
SELECT pg_backend_pid();

-- name: free_connections
-- How many more clients may connect, and how many may in all: the least that server, role and database allow.
SELECT min(most - used)::int, min(most)::int
  FROM (SELECT current_setting('max_connections')::int,
               current_setting('superuser_reserved_connections')::int
               + (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
         UNION ALL
        SELECT rolconnlimit, (SELECT count(*) FROM pg_stat_activity WHERE usename = rolname)
          FROM pg_roles WHERE rolname = current_user AND rolconnlimit >= 0 AND NOT rolsuper
         UNION ALL
        SELECT datconnlimit, (SELECT count(*) FROM pg_stat_activity a WHERE a.datname = d.datname)
          FROM pg_database d WHERE datname = current_database() AND datconnlimit >= 0
           AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
       ) AS limits (most, used);

-- name: create_database
CREATE DATABASE {} TEMPLATE {};

-- name: create_database_of
CREATE DATABASE {} TEMPLATE {} OWNER {};

-- name: who
-- As whom the session runs, whether that is a superuser, and whether there is a role to run migrations as.
SELECT current_user, rolsuper,
       EXISTS (SELECT FROM pg_roles WHERE rolname = 'postgres' AND NOT rolsuper AND rolname <> current_user)
  FROM pg_roles WHERE rolname = current_user;

-- name: drop_database
DROP DATABASE IF EXISTS {} WITH (FORCE);

-- name: drop_database_without_force
-- WITH (FORCE) would end an autovacuum worker too, which only a superuser may; DROP DATABASE sends one away by itself.
DROP DATABASE IF EXISTS {};

-- name: own_sessions_in
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE datname = %s AND usename = current_user AND pid <> pg_backend_pid();

-- name: databases_of_a_template
SELECT datname FROM pg_database WHERE starts_with(datname, %s);

-- name: use_roles
-- Runs that share a server share this lock; the last one to leave drops the roles that runs have created.
SELECT pg_advisory_lock_shared(hashtext('harness uses roles'));

-- name: leave_roles
SELECT pg_advisory_unlock_shared(hashtext('harness uses roles'));

-- name: alone_with_roles
-- An advisory lock is its database's, and roles are the server's: runs by way of other databases count too.
SELECT pg_try_advisory_lock(hashtext('harness uses roles'))
       AND NOT EXISTS (SELECT FROM pg_locks AS mine JOIN pg_locks AS other
                           USING (locktype, classid, objid, objsubid)
                        WHERE mine.locktype = 'advisory' AND mine.pid = pg_backend_pid() AND mine.mode = 'ExclusiveLock'
                          AND other.database <> mine.database);

-- name: available_extensions
SELECT ARRAY(SELECT name::text FROM pg_available_extensions), (SELECT setting FROM pg_config WHERE name = 'SHAREDIR');

-- name: let_log_in
ALTER ROLE {} LOGIN PASSWORD {};

-- name: objects
-- How many objects a database holds, and what was the last one: the same before and after where nothing was built.
SELECT (SELECT count(*) FROM pg_class), (SELECT max(oid) FROM pg_class), (SELECT count(*) FROM pg_proc),
       (SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables);

-- name: roles
SELECT rolname FROM pg_roles;

-- name: mark_role
COMMENT ON ROLE {} IS 'created by pg-concurrency-harness';

-- name: marked_roles
SELECT rolname FROM pg_roles WHERE shobj_description(oid, 'pg_authid') = 'created by pg-concurrency-harness';

-- name: create_login
CREATE ROLE {} LOGIN NOINHERIT PASSWORD {} IN ROLE anon, authenticated, service_role;

-- name: let_take
GRANT {role} TO {login};

-- name: let_use
GRANT USAGE ON SCHEMA {schema} TO {role};

-- name: track_functions
ALTER ROLE {} SET track_functions = 'all';

-- name: drop_login
DROP ROLE IF EXISTS {};

-- name: sessions_of
SELECT FROM pg_stat_activity WHERE usename = %s;

-- name: function_time
SELECT sum(calls)::bigint, sum(total_time)::float8 FROM pg_stat_user_functions WHERE funcname = %s;

-- name: tables_with_policies
-- Tables with row-level security, whether it holds for their owner too, and whether they were read or written in this database.
SELECT format('%I.%I', n.nspname, c.relname),
       c.relforcerowsecurity,
       coalesce(s.seq_scan, 0) + coalesce(s.idx_scan, 0) + s.n_tup_ins + s.n_tup_upd + s.n_tup_del > 0 AS touched
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_stat_user_tables s ON s.relid = c.oid
 WHERE c.relrowsecurity
 ORDER BY 1;

-- name: other_sessions
-- Whoever else is still connected here: what they counted is told when they end.
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend';

-- name: role_bypasses
SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user;

-- name: mark_database
COMMENT ON DATABASE {} IS {};

-- name: mark_login
COMMENT ON ROLE {} IS {};

-- name: marked
-- What runs of the harness have made and marked: kind, name, who made it.
SELECT kind, name, comment
  FROM (SELECT 1, 'database', datname::text, shobj_description(oid, 'pg_database') FROM pg_database
        UNION ALL
        SELECT 2, 'role', rolname::text, shobj_description(oid, 'pg_authid') FROM pg_roles
       ) AS made (place, kind, name, comment)
 WHERE starts_with(comment, %s)
 ORDER BY place, name;

-- name: drop_owned
DROP OWNED BY {};
