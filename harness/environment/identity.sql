-- What taking a role means in this database, one row: whether the session may take it, whether row-level policies pass it
-- by, and its own settings, which SET ROLE alone does not apply (those for this database beat those for all; manual,
-- "ALTER ROLE"). A setting that this session may not make is marked.
WITH own AS (
    SELECT DISTINCT ON (lower(split_part(entry.text, '=', 1)))
           split_part(entry.text, '=', 1) AS name,
           substr(entry.text, strpos(entry.text, '=') + 1) AS value
      FROM pg_db_role_setting AS stored
      JOIN pg_roles AS role ON role.oid = stored.setrole
     CROSS JOIN LATERAL unnest(stored.setconfig) AS entry (text)
     WHERE role.rolname = %(role)s
       AND stored.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
     ORDER BY lower(split_part(entry.text, '=', 1)), stored.setdatabase DESC
)
SELECT pg_has_role(role.oid, CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)
           AS may_be_taken,
       role.rolsuper OR role.rolbypassrls AS bypasses_policies,
       (SELECT coalesce(json_agg(json_build_array(
                   own.name,
                   own.value,
                   coalesce(known.context = 'user' OR (known.context = 'superuser' AND session.rolsuper), true)) ORDER BY own.name), '[]')
          FROM own
          LEFT JOIN pg_settings AS known ON lower(known.name) = lower(own.name)
         CROSS JOIN (SELECT rolsuper FROM pg_roles WHERE rolname = session_user) AS session
         WHERE lower(own.name) NOT IN ('role', 'session_authorization')) AS settings
  FROM pg_roles AS role
 WHERE role.rolname = %(role)s
