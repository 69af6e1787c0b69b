-- name: extension
SELECT extversion FROM pg_extension WHERE extname = %s;

-- name: hand_over
-- What a DO block, or an IMPORT FOREIGN SCHEMA, made while the superuser ran it belongs to whom the migrations run as, as if he had made it.
DO $$
DECLARE
    v_object record;
BEGIN
    FOR v_object IN
        SELECT format('%s %s', CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
                               WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, c.oid::regclass) AS what
          FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relowner = current_user::regrole AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
           AND c.oid >= 16384 AND n.nspname NOT LIKE 'pg\_%'
           AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('e', 'a', 'i') AND d.classid = 'pg_class'::regclass)
         UNION ALL
        SELECT format('ROUTINE %s', p.oid::regprocedure)
          FROM pg_proc p
         WHERE p.proowner = current_user::regrole AND p.oid >= 16384
           AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass)
         UNION ALL
        SELECT format('TYPE %s', t.oid::regtype)
          FROM pg_type t
         WHERE t.typowner = current_user::regrole AND t.typtype IN ('e', 'd') AND t.oid >= 16384
           AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = t.oid AND d.deptype = 'e' AND d.classid = 'pg_type'::regclass)
    LOOP
        EXECUTE format('ALTER %s OWNER TO postgres', v_object.what);
    END LOOP;
END;
$$;
