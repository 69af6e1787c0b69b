-- Stand-in for Supabase's wrappers: foreign data wrappers, servers and foreign tables can be made, and none can be read: a
-- handler answers with an error, as its pseudo-type's input does.
-- says: foreign tables can be made; reading one is an error
DO $standin$
DECLARE
    v_name text;
BEGIN
    FOREACH v_name IN ARRAY ARRAY['airtable', 'auth0', 'big_query', 'click_house', 'cognito', 'duckdb', 'firebase', 'hello_world',
                                  'iceberg', 'logflare', 'mssql', 'redis', 's3', 's3vectors', 'stripe', 'wasm'] LOOP
        EXECUTE format('CREATE FUNCTION %I() RETURNS fdw_handler LANGUAGE internal STRICT AS ''fdw_handler_in''', v_name || '_fdw_handler');
        EXECUTE format('CREATE FUNCTION %I(options text[], catalog oid) RETURNS void LANGUAGE plpgsql AS ''BEGIN END''', v_name || '_fdw_validator');
    END LOOP;
END;
$standin$;
