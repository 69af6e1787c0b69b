-- The platform's own roles own what the prelude made. `postgres` is a member of theirs, and so may put policies and
-- triggers on those tables. Last, because who gives something away may not touch it any more.
DO $$
DECLARE
    v_object record;
BEGIN
    FOR v_object IN
        SELECT format('%s %s OWNER TO %I', kinds.kind, c.oid::regclass, owners.owner) AS change
          FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN (VALUES ('auth', 'supabase_auth_admin'), ('storage', 'supabase_storage_admin'),
                       ('realtime', 'supabase_realtime_admin'), ('supabase_functions', 'supabase_functions_admin'),
                       ('supabase_migrations', 'postgres')) AS owners (schema, owner) ON owners.schema = n.nspname
          JOIN (VALUES ('r', 'TABLE'), ('p', 'TABLE'), ('v', 'VIEW')) AS kinds (relkind, kind) ON kinds.relkind = c.relkind::text
         UNION ALL
        SELECT format('FUNCTION %s OWNER TO %I', p.oid::regprocedure, owners.owner)
          FROM pg_proc p
          JOIN pg_namespace n ON n.oid = p.pronamespace
          JOIN (VALUES ('auth', 'supabase_auth_admin'), ('storage', 'supabase_storage_admin'),
                       ('realtime', 'supabase_realtime_admin'), ('supabase_functions', 'supabase_functions_admin'),
                       ('graphql_public', 'postgres')) AS owners (schema, owner) ON owners.schema = n.nspname
         UNION ALL
        SELECT format('PUBLICATION %I OWNER TO postgres', pubname) FROM pg_publication
         UNION ALL
        SELECT format('SCHEMA %I OWNER TO %I', owners.schema, owners.owner)
          FROM (VALUES ('auth', 'supabase_auth_admin'), ('storage', 'supabase_storage_admin'),
                       ('realtime', 'supabase_realtime_admin'), ('supabase_functions', 'supabase_functions_admin'),
                       ('extensions', 'postgres'), ('supabase_migrations', 'postgres'), ('graphql_public', 'postgres'))
               AS owners (schema, owner)
    LOOP
        EXECUTE 'ALTER ' || v_object.change;
    END LOOP;
END;
$$;
