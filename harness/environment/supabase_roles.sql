-- The roles of Supabase, those that are missing: migrations and dumps name them.
-- Roles belong to the whole server, so each one created here carries a comment by which it is dropped at the end.
-- https://supabase.com/docs/guides/database/postgres/roles
DO $$
DECLARE
    v_super   CONSTANT boolean := (SELECT rolsuper FROM pg_roles WHERE rolname = current_user);
    v_made    text[] := '{}';
    v_role    record;
    v_group   text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('harness creates roles'));
    FOR v_role IN
        SELECT * FROM (VALUES
            -- name, what any role that may create roles can give, what only a superuser can give
            ('anon', 'INHERIT', ''),
            ('authenticated', 'INHERIT', ''),
            ('service_role', 'INHERIT', 'BYPASSRLS'),
            ('authenticator', 'NOINHERIT', ''),
            ('supabase_admin', 'CREATEROLE CREATEDB', 'BYPASSRLS REPLICATION'),
            ('supabase_auth_admin', 'NOINHERIT CREATEROLE', ''),
            ('supabase_storage_admin', 'NOINHERIT CREATEROLE', ''),
            ('supabase_realtime_admin', 'NOINHERIT', ''),
            ('supabase_functions_admin', 'NOINHERIT CREATEROLE', ''),
            ('supabase_replication_admin', '', 'REPLICATION'),
            ('supabase_read_only_user', '', 'BYPASSRLS'),
            ('supabase_etl_admin', '', 'REPLICATION'),
            ('dashboard_user', 'CREATEDB CREATEROLE', 'REPLICATION'),
            ('pgbouncer', '', ''),
            ('pgsodium_keyiduser', '', ''),
            ('pgsodium_keyholder', '', ''),
            ('pgsodium_keymaker', '', ''),
            ('postgres', 'CREATEDB CREATEROLE', 'BYPASSRLS REPLICATION')
        ) AS roles (name, anybody, superuser)
    LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = v_role.name);
        BEGIN
            IF v_super THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN %s %s', v_role.name, v_role.anybody, v_role.superuser);
            ELSE
                EXECUTE format('CREATE ROLE %I NOLOGIN %s', v_role.name, CASE WHEN v_role.anybody LIKE '%INHERIT%' THEN
                    split_part(v_role.anybody, ' ', 1) ELSE '' END);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            CONTINUE; -- by a run in another database, which this one's lock does not hold up
        END;
        EXECUTE format('COMMENT ON ROLE %I IS %L', v_role.name, 'created by pg-concurrency-harness');
        IF NOT v_super THEN
            -- Who makes a role without being a superuser is no member of it, and could give it nothing.
            EXECUTE format('GRANT %I TO %I', v_role.name, current_user);
        END IF;
        v_made := v_made || v_role.name;
    END LOOP;

    -- The API's roles are cut off early, as there. SET ROLE alone does not apply a role's settings.
    IF 'anon' = ANY (v_made) THEN
        ALTER ROLE anon SET statement_timeout = '3s';
    END IF;
    IF 'authenticated' = ANY (v_made) THEN
        ALTER ROLE authenticated SET statement_timeout = '8s';
    END IF;
    IF 'authenticator' = ANY (v_made) THEN
        ALTER ROLE authenticator SET statement_timeout = '8s';
        ALTER ROLE authenticator SET lock_timeout = '8s';
        GRANT anon, authenticated, service_role TO authenticator;
    END IF;
    IF 'postgres' = ANY (v_made) THEN
        FOREACH v_group IN ARRAY ARRAY['anon', 'authenticated', 'service_role', 'authenticator', 'supabase_auth_admin',
            'supabase_storage_admin', 'supabase_realtime_admin', 'supabase_functions_admin', 'dashboard_user',
            'pgsodium_keyiduser', 'pgsodium_keyholder', 'pgsodium_keymaker', 'supabase_read_only_user',
            'supabase_replication_admin', 'supabase_etl_admin', 'pgbouncer']
        LOOP
            EXECUTE format('GRANT %I TO postgres WITH ADMIN OPTION', v_group);
        END LOOP;
        IF v_super THEN
            GRANT pg_monitor, pg_read_all_data, pg_signal_backend TO postgres WITH ADMIN OPTION;
        END IF;
    END IF;
END;
$$;
