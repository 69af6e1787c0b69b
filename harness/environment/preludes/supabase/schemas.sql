-- The platform's schemas. Each belongs to a role of the platform, of which `postgres` is a member.
-- https://supabase.com/docs/guides/database/postgres/roles
CREATE SCHEMA extensions;
CREATE SCHEMA auth;
CREATE SCHEMA storage;
CREATE SCHEMA realtime;
CREATE SCHEMA _realtime;
CREATE SCHEMA vault;
CREATE SCHEMA graphql;
CREATE SCHEMA graphql_public;
CREATE SCHEMA pgbouncer;
CREATE SCHEMA supabase_functions;
CREATE SCHEMA supabase_migrations;

GRANT ALL ON SCHEMA extensions, auth, storage, realtime, vault, graphql, graphql_public, supabase_functions,
    supabase_migrations TO postgres WITH GRANT OPTION;
GRANT USAGE ON SCHEMA public, extensions, auth, storage, realtime, graphql_public, supabase_functions
    TO anon, authenticated, service_role;
GRANT ALL ON SCHEMA auth TO supabase_auth_admin;
GRANT ALL ON SCHEMA storage TO supabase_storage_admin;
GRANT ALL ON SCHEMA realtime TO supabase_realtime_admin;
GRANT ALL ON SCHEMA supabase_functions TO supabase_functions_admin;
GRANT ALL ON SCHEMA public, extensions TO supabase_auth_admin, supabase_storage_admin, dashboard_user, postgres;

CREATE TABLE supabase_migrations.schema_migrations (version text PRIMARY KEY, statements text[], name text);
GRANT ALL ON supabase_migrations.schema_migrations TO postgres;
