-- Stand-in for pg_graphql: every query is answered with an error.
-- schema: graphql
-- says: every query is answered with an error
CREATE FUNCTION graphql.resolve(
    query text, variables jsonb DEFAULT '{}', "operationName" text DEFAULT NULL, extensions jsonb DEFAULT NULL
) RETURNS jsonb LANGUAGE sql AS $$ SELECT '{"errors": [{"message": "pg_graphql is a stand-in here"}]}'::jsonb $$;
CREATE FUNCTION graphql.get_schema_version() RETURNS integer LANGUAGE sql AS $$ SELECT 1 $$;
CREATE FUNCTION graphql.increment_schema_version() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN NULL; END; $$;
