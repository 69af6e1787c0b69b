-- Drop the roles that supabase_roles.sql created. A role that something still depends on is left to whoever uses it.
DO $$
DECLARE
    v_role text;
BEGIN
    FOR v_role IN
        SELECT rolname FROM pg_roles WHERE shobj_description(oid, 'pg_authid') = 'created by pg-concurrency-harness'
         ORDER BY rolname = 'authenticator' DESC
    LOOP
        BEGIN
            EXECUTE format('DROP ROLE %I', v_role);
        EXCEPTION WHEN dependent_objects_still_exist OR undefined_object THEN
            NULL;
        END;
    END LOOP;
END;
$$;
