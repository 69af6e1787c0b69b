-- The API roles as Supabase has them, where they are missing: migrations written for Supabase grant rights to them.
-- Roles belong to the whole server, so each one created here carries a comment by which it is dropped at the end.
-- https://supabase.com/docs/guides/database/postgres/roles
DO $$
DECLARE
    v_role text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('harness creates roles'));
    FOREACH v_role IN ARRAY ARRAY['anon', 'authenticated', 'service_role', 'authenticator'] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = v_role);
        EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', v_role);
        EXECUTE format('COMMENT ON ROLE %I IS %L', v_role, 'created by pg-concurrency-harness');
        IF v_role = 'service_role' AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
            -- Only a superuser may give this one away.
            ALTER ROLE service_role BYPASSRLS;
        END IF;
        IF v_role = 'authenticator' THEN
            GRANT anon, authenticated, service_role TO authenticator;
        END IF;
    END LOOP;
END;
$$;
