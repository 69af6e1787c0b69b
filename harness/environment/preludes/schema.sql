-- Where an extension's schema is not there yet, it is made; one that a migration made is taken.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = '{schema}') THEN
        CREATE SCHEMA {schema};
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'postgres') AND current_user <> 'postgres' THEN
        GRANT ALL ON SCHEMA {schema} TO postgres WITH GRANT OPTION;
        ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT ALL ON TABLES TO postgres WITH GRANT OPTION;
        ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT ALL ON SEQUENCES TO postgres WITH GRANT OPTION;
        ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT ALL ON ROUTINES TO postgres WITH GRANT OPTION;
    END IF;
    GRANT USAGE ON SCHEMA {schema} TO PUBLIC;
END;
$$;
