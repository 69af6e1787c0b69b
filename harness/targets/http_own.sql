-- What the harness adds to a scratch database for PostgREST to call, where SQL would send a statement of its own:
-- the function as overlap.sql times it, and a pause of known length.
CREATE SCHEMA IF NOT EXISTS harness;

CREATE OR REPLACE FUNCTION harness.{overlap}({parameters}) RETURNS TABLE (
    harness_row boolean, {columns}, harness_ended timestamptz, harness_transaction xid8, harness_started timestamptz, harness_seen pg_snapshot
) LANGUAGE sql AS {body};

CREATE OR REPLACE FUNCTION harness.pause(seconds float8) RETURNS boolean
LANGUAGE sql AS 'SELECT pg_sleep(seconds) IS NOT NULL';
