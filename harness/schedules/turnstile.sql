-- The turnstile: where a call of a rewritten function waits until the controller lets it go on.
--
-- Every backend has two gates, advisory locks with its process id in their key, and the controller holds exactly one of
-- them while the call runs. A call that arrives looks which gate is shut, says so, and waits there. To let it go, the
-- controller first shuts the other gate, then opens this one: so the next arrival is stopped whatever the timing, and
-- no state has to survive in the session, where the rollback of a block would undo it.
--
-- An INFO message reaches the client at once and whatever client_min_messages says. Names are qualified, since the
-- caller's search_path holds here. A lock_timeout of the caller must not end the wait at the gate; afterwards it is
-- restored, but to 100 ms at most: which of the other calls' steps it falls between matters, its length does not.

CREATE SCHEMA harness_schedules;
GRANT USAGE ON SCHEMA harness_schedules TO PUBLIC;

-- What this backend's transaction has touched so far: relation:scans:rows written, of each relation, then the locks held.
-- Absolute, so that nothing has to be kept: the controller takes the difference to what it was told before. Locks are
-- looked at only where some text was not read in full (locks.sql): they take four times as long as the counters.
CREATE FUNCTION harness_schedules.measured() RETURNS text
LANGUAGE plpgsql
AS $$
BEGIN
    RETURN pg_catalog.concat(
        (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', counted.relation, counted.scans, counted.written), ' ')
           FROM (SELECT relation,
                        pg_catalog.pg_stat_get_xact_numscans(relation) AS scans,
                        pg_catalog.pg_stat_get_xact_tuples_inserted(relation)
                        OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_xact_tuples_updated(relation)
                        OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_xact_tuples_deleted(relation) AS written
                   FROM pg_catalog.unnest({relations}::pg_catalog.oid[]) AS relation) AS counted
          WHERE counted.scans OPERATOR(pg_catalog.<>) 0 OR counted.written OPERATOR(pg_catalog.<>) 0),
        '|',
        {locks});
END;
$$;

CREATE FUNCTION harness_schedules.turnstile(step integer) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    gate     integer := pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.*) 2;
    patience text := pg_catalog.current_setting('lock_timeout');
BEGIN
    IF pg_catalog.pg_try_advisory_lock_shared({space}, gate) THEN
        PERFORM pg_catalog.pg_advisory_unlock_shared({space}, gate);
        gate := gate OPERATOR(pg_catalog.+) 1;
    END IF;
    IF patience OPERATOR(pg_catalog.<>) '0' THEN
        PERFORM pg_catalog.set_config('lock_timeout', '0', true);
    END IF;
    RAISE INFO 'harness turnstile % % %', step, patience, harness_schedules.measured();
    PERFORM pg_catalog.pg_advisory_lock_shared({space}, gate);
    PERFORM pg_catalog.pg_advisory_unlock_shared({space}, gate);
    IF patience OPERATOR(pg_catalog.<>) '0' THEN
        IF patience::pg_catalog.interval OPERATOR(pg_catalog.>) '100 ms' THEN
            patience := '100ms';
        END IF;
        PERFORM pg_catalog.set_config('lock_timeout', patience, true);
    END IF;
    RETURN false;
END;
$$;

-- Tells a text that is about to be executed, and gives it back as it is.
CREATE FUNCTION harness_schedules.dynamic(command text) RETURNS text
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE INFO 'harness text %', command;
    RETURN command;
END;
$$;

-- Reports that a handler was entered, and does not wait.
CREATE FUNCTION harness_schedules.caught(code text) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE INFO 'harness caught %', code;
    RETURN false;
END;
$$;
