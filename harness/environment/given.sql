-- name: lock_given
-- One run at a time; who dies lets go of it.
SELECT pg_try_advisory_lock(hashtext('harness uses this database'));

-- name: given_rights
-- What the role may do: create in the database, own it, create in a schema (NULL: there is none of that name).
SELECT current_user,
       has_database_privilege(current_database(), 'CREATE'),
       (SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database()),
       (SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = %s);

-- name: given_outside
-- What a role may change beside one schema: schemas to create in, tables to write to.
SELECT 'create in the schema ' || nspname FROM pg_namespace
 WHERE nspname NOT LIKE 'pg\_%%' AND nspname NOT IN ('information_schema', %(schema)s) AND has_schema_privilege(oid, 'CREATE')
 UNION ALL
SELECT 'write to the table ' || c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'f') AND n.nspname NOT IN ('information_schema', 'pg_catalog', %(schema)s)
   AND n.nspname NOT LIKE 'pg\_%%' AND has_schema_privilege(n.oid, 'USAGE')
   AND has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
 LIMIT 3;

-- name: given_mark
SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = 'harness_mark'
 UNION ALL
SELECT obj_description(c.oid, 'pg_class') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = 'harness_mark';

-- name: given_objects
-- What is there that PostgreSQL itself has not and no extension brought, as DROP names it: in what order it is dropped,
-- whether a database that has it is taken for one in use, what it is. `%(schema)s`: of one schema alone.
WITH object (place, uses, class, id, namespace) AS (
    SELECT 1, true, 'pg_event_trigger'::regclass, oid, NULL::oid FROM pg_event_trigger
    UNION ALL SELECT 1, true, 'pg_publication'::regclass, oid, NULL FROM pg_publication
    UNION ALL SELECT 2, false, 'pg_namespace'::regclass, oid, NULL FROM pg_namespace
    UNION ALL SELECT 3, false, 'pg_extension'::regclass, oid, NULL FROM pg_extension
    UNION ALL SELECT 3, false, 'pg_foreign_data_wrapper'::regclass, oid, NULL FROM pg_foreign_data_wrapper
    UNION ALL SELECT 4, false, 'pg_foreign_server'::regclass, oid, NULL FROM pg_foreign_server
    UNION ALL SELECT 4, false, 'pg_language'::regclass, oid, NULL FROM pg_language
    UNION ALL SELECT 4, true, 'pg_cast'::regclass, oid, NULL FROM pg_cast
    UNION ALL SELECT 4, true, 'pg_largeobject'::regclass, oid, NULL FROM pg_largeobject_metadata
    UNION ALL SELECT 5, true, 'pg_class'::regclass, oid, relnamespace FROM pg_class
               WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c')
    UNION ALL SELECT 6, true, 'pg_type'::regclass, oid, typnamespace FROM pg_type
    UNION ALL SELECT 6, true, 'pg_proc'::regclass, oid, pronamespace FROM pg_proc
    UNION ALL SELECT 6, true, 'pg_operator'::regclass, oid, oprnamespace FROM pg_operator
    UNION ALL SELECT 6, true, 'pg_opclass'::regclass, oid, opcnamespace FROM pg_opclass
    UNION ALL SELECT 7, true, 'pg_opfamily'::regclass, oid, opfnamespace FROM pg_opfamily
    UNION ALL SELECT 7, true, 'pg_collation'::regclass, oid, collnamespace FROM pg_collation
    UNION ALL SELECT 7, true, 'pg_conversion'::regclass, oid, connamespace FROM pg_conversion
    UNION ALL SELECT 7, true, 'pg_ts_config'::regclass, oid, cfgnamespace FROM pg_ts_config
    UNION ALL SELECT 8, true, 'pg_ts_dict'::regclass, oid, dictnamespace FROM pg_ts_dict
    UNION ALL SELECT 9, true, 'pg_ts_parser'::regclass, oid, prsnamespace FROM pg_ts_parser
    UNION ALL SELECT 9, true, 'pg_ts_template'::regclass, oid, tmplnamespace FROM pg_ts_template
), named AS (
    SELECT object.place, object.uses, object.id, object.namespace, identified.type, identified.identity
      FROM object CROSS JOIN pg_identify_object(object.class, object.id, 0) AS identified
     WHERE object.id >= 16384
       AND NOT EXISTS (SELECT FROM pg_depend d
                        WHERE d.classid = object.class AND d.objid = object.id AND d.deptype IN ('e', 'i', 'a'))
)
SELECT place,
       uses AND coalesce(n.nspname, '') NOT IN ('harness_mark'),
       CASE WHEN type IN ('function', 'procedure', 'aggregate') THEN 'routine'
            WHEN type IN ('composite type', 'domain') THEN 'type'
            WHEN type = 'foreign-data wrapper' THEN 'foreign data wrapper'
            ELSE type END,
       identity
  FROM named LEFT JOIN pg_namespace n ON n.oid = named.namespace
 WHERE identity !~ '^(pg_toast|pg_temp|information_schema)' AND coalesce(n.nspname, '') !~ '^(pg_toast|pg_temp)'
   AND (%(schema)s::text IS NULL AND identity <> 'harness_mark' OR n.nspname = %(schema)s::text)
   AND NOT (type IN ('table', 'type') AND identity ~ '\mharness_mark$')
 ORDER BY 1, 3, 4;

-- name: given_extensions
-- Extensions, and where each is.
SELECT quote_ident(extname), quote_ident(nspname) FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace;

-- name: given_owners
-- Whose each schema is.
SELECT quote_ident(nspname), nspowner::regrole::text FROM pg_namespace
 WHERE nspname NOT LIKE 'pg\_%' AND nspname NOT IN ('information_schema', 'harness_mark');

-- name: given_privileges
-- Who may do what in each schema, and in the database, which is {}.
SELECT acl.privilege_type || ' ON ' || has.what,
       CASE WHEN acl.grantee = 0 THEN 'PUBLIC' ELSE acl.grantee::regrole::text END,
       CASE WHEN acl.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
  FROM (SELECT 'SCHEMA ' || quote_ident(nspname), coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace
         WHERE nspname NOT LIKE 'pg\_%' AND nspname NOT IN ('information_schema', 'harness_mark')
         UNION ALL
        SELECT 'DATABASE {}', coalesce(datacl, acldefault('d', datdba)) FROM pg_database WHERE datname = current_database()
       ) AS has (what, acl)
 CROSS JOIN aclexplode(has.acl) AS acl;

-- name: given_default_rights
-- Default privileges, each with what it would be if nobody had said anything.
WITH entry AS (
    SELECT defaclrole, defaclnamespace, defaclobjtype, defaclacl AS now,
           CASE WHEN defaclnamespace = 0
                THEN acldefault(CASE defaclobjtype WHEN 'S' THEN 's' ELSE defaclobjtype END, defaclrole)
                END AS plain
      FROM pg_default_acl
), rights AS (
    SELECT entry.*, 'now' AS of, acl.* FROM entry CROSS JOIN aclexplode(entry.now) AS acl
    UNION ALL
    SELECT entry.*, 'plain', acl.* FROM entry CROSS JOIN aclexplode(entry.plain) AS acl
)
SELECT rights.of,
       format('ALTER DEFAULT PRIVILEGES FOR ROLE %s%s', rights.defaclrole::regrole,
              CASE WHEN rights.defaclnamespace <> 0 THEN ' IN SCHEMA ' || rights.defaclnamespace::regnamespace END),
       format('%s ON %s', rights.privilege_type,
              CASE rights.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS'
                   WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END),
       CASE WHEN rights.grantee = 0 THEN 'PUBLIC' ELSE rights.grantee::regrole::text END,
       CASE WHEN rights.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
  FROM rights;

-- name: given_sessions
-- End what runs of ours have left open here.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = %s;
