-- Statements that give a clone of this database what CREATE DATABASE ... TEMPLATE does not copy: settings of the database,
-- settings of roles in it, privileges on it, its limit of connections. The clone's name goes to {}.
-- A list of names is stored as SET takes it; anything else is a string.
WITH db AS (
    SELECT oid, datacl, datconnlimit, datdba FROM pg_database WHERE datname = current_database()
), entry AS (
    SELECT s.setrole, split_part(e.text, '=', 1) AS name, substr(e.text, strpos(e.text, '=') + 1) AS value
      FROM pg_db_role_setting s JOIN db ON s.setdatabase = db.oid
     CROSS JOIN unnest(s.setconfig) AS e (text)
)
SELECT format(
           CASE WHEN entry.setrole = 0 THEN 'ALTER DATABASE {} SET ' ELSE 'ALTER ROLE %1$I IN DATABASE {} SET ' END
           || '%2$s = %3$s',
           role.rolname,
           (SELECT string_agg(quote_ident(part), '.') FROM unnest(string_to_array(entry.name, '.')) AS part),
           CASE WHEN lower(entry.name) IN ('search_path', 'temp_tablespaces', 'local_preload_libraries',
                    'session_preload_libraries') AND entry.value NOT IN ('', '""')
                THEN entry.value ELSE quote_literal(entry.value) END)
  FROM entry LEFT JOIN pg_roles role ON role.oid = entry.setrole
 UNION ALL
SELECT format('ALTER DATABASE {} CONNECTION LIMIT %s', datconnlimit) FROM db WHERE datconnlimit <> -1
 UNION ALL
SELECT 'REVOKE ALL ON DATABASE {} FROM PUBLIC' FROM db WHERE datacl IS NOT NULL
 UNION ALL
SELECT format('GRANT %s ON DATABASE {} TO %s%s', acl.privilege_type,
              CASE WHEN acl.grantee = 0 THEN 'PUBLIC' ELSE acl.grantee::regrole::text END,
              CASE WHEN acl.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
  FROM db CROSS JOIN aclexplode(db.datacl) AS acl
 WHERE acl.grantee <> db.datdba
