-- name: search_path
-- As a new session has it: an ALTER DATABASE before this may have changed it, and a pooler's session is older than that.
-- What the DSN says goes before either.
SELECT set_config('search_path', substr(entry, length('search_path=') + 1), false)
  FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase CROSS JOIN unnest(s.setconfig) AS entry
 WHERE d.datname = current_database() AND s.setrole = 0 AND starts_with(entry, 'search_path=')
   AND (SELECT source FROM pg_settings WHERE name = 'search_path') <> 'client';
