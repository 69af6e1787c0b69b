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
--
-- What is only to be done is done in an assignment: PERFORM would start the executor for it, which takes five times as
-- long.

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

--
-- In a relay (relay.py) a whole schedule is handed to the backends beforehand, and the turnstile speaks only where a call
-- comes to another step than was foreseen. Its script is a setting: how many turnstiles this backend had come to when it
-- began, what to tell, the gate to open at the end, and for each arrival the step that is foreseen, the gate of somebody
-- else to open, and the one to wait at. How often it has arrived is the server's own count of the calls of this
-- function, which no rollback sets back.
CREATE FUNCTION harness_schedules.arrivals() RETURNS bigint
LANGUAGE plpgsql
AS $$
BEGIN
    RETURN coalesce(pg_catalog.pg_stat_get_xact_function_calls(
                        'harness_schedules.turnstile(integer)'::pg_catalog.regprocedure), 0)
           OPERATOR(pg_catalog.-)
           pg_catalog.split_part(nullif(pg_catalog.current_setting('harness_schedules.script', true), ''), ' ', 1)
           ::pg_catalog.int8;
END;
$$;

CREATE FUNCTION harness_schedules.turnstile(step integer) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    done     boolean;
    script   text := pg_catalog.current_setting('harness_schedules.script', true);
    patience text;
    gate     integer;
    arrived  integer;
    turn     integer[];
BEGIN
    IF script OPERATOR(pg_catalog.<>) '' THEN
        arrived := coalesce(pg_catalog.pg_stat_get_xact_function_calls(
                       'harness_schedules.turnstile(integer)'::pg_catalog.regprocedure), 0)
                   OPERATOR(pg_catalog.-) pg_catalog.split_part(script, ' ', 1)::pg_catalog.int8;
        turn := nullif(pg_catalog.split_part(script, ' ', arrived OPERATOR(pg_catalog.+) 4), '')::integer[];
        IF pg_catalog.split_part(script, ' ', 2) OPERATOR(pg_catalog.=) 'measure' THEN
            RAISE INFO 'harness arrival % % %', arrived, step, harness_schedules.measured();
        ELSIF turn IS NULL OR turn[1] OPERATOR(pg_catalog.<>) step THEN
            RAISE INFO 'harness arrival % %', arrived, step;
        END IF;
        IF turn[2] OPERATOR(pg_catalog.<>) 0 AND NOT pg_catalog.pg_advisory_unlock({space}, turn[2]) THEN
            RAISE INFO 'harness lost';
        END IF;
        IF turn[3] OPERATOR(pg_catalog.<>) 0 THEN
            patience := pg_catalog.current_setting('lock_timeout');
            IF patience OPERATOR(pg_catalog.<>) '0' THEN
                done := pg_catalog.set_config('lock_timeout', '0', true) IS NULL;
            END IF;
            done := harness_schedules.await(turn[3]);
            IF patience OPERATOR(pg_catalog.<>) '0' THEN
                IF patience::pg_catalog.interval OPERATOR(pg_catalog.>) '100 ms' THEN
                    patience := '100ms';
                END IF;
                done := pg_catalog.set_config('lock_timeout', patience, true) IS NULL;
            END IF;
        END IF;
        RETURN false;
    END IF;
    gate := pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.*) 2;
    IF pg_catalog.pg_try_advisory_lock_shared({space}, gate) THEN
        done := pg_catalog.pg_advisory_unlock_shared({space}, gate);
        gate := gate OPERATOR(pg_catalog.+) 1;
    END IF;
    patience := pg_catalog.current_setting('lock_timeout');
    IF patience OPERATOR(pg_catalog.<>) '0' THEN
        done := pg_catalog.set_config('lock_timeout', '0', true) IS NULL;
    END IF;
    RAISE INFO 'harness turnstile % % %', step, patience, harness_schedules.measured();
    done := pg_catalog.pg_advisory_lock_shared({space}, gate) IS NULL;
    done := pg_catalog.pg_advisory_unlock_shared({space}, gate);
    IF patience OPERATOR(pg_catalog.<>) '0' THEN
        IF patience::pg_catalog.interval OPERATOR(pg_catalog.>) '100 ms' THEN
            patience := '100ms';
        END IF;
        done := pg_catalog.set_config('lock_timeout', patience, true) IS NULL;
    END IF;
    RETURN false;
END;
$$;

-- Waits at a gate of a relay. While it does it does not look for deadlocks, which everybody does who waits for anything
-- else: on a busy machine most waits are longer than a millisecond. As its owner, since a role that the call has taken
-- on may not set that; connections.py sets it, where the owner may.
CREATE FUNCTION harness_schedules.await(gate integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
AS $$
DECLARE
    done boolean;
BEGIN
    done := pg_catalog.pg_advisory_lock_shared({space}, gate) IS NULL;
    done := pg_catalog.pg_advisory_unlock_shared({space}, gate);
    RETURN false;
END;
$$;

-- Shuts gates that this backend is to open in a relay.
CREATE FUNCTION harness_schedules.shut(gates integer[]) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    done boolean;
    gate integer;
BEGIN
    FOREACH gate IN ARRAY gates LOOP
        done := pg_catalog.pg_advisory_lock({space}, gate) IS NULL;
    END LOOP;
END;
$$;

-- Begins a relay: its script, gates of an earlier one that are to be shut again, and the gate to wait at. A session that
-- has not left the relay before this one does nothing in it: what follows in its pipeline is left out with the error.
CREATE FUNCTION harness_schedules.enter(script text, gates integer[], awaited integer) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    done boolean;
    gate integer;
BEGIN
    IF pg_catalog.current_setting('harness_schedules.script', true) OPERATOR(pg_catalog.<>) '' THEN
        RAISE EXCEPTION 'harness: the relay before is not left';
    END IF;
    done := pg_catalog.set_config('harness_schedules.script', pg_catalog.concat(
        coalesce(pg_catalog.pg_stat_get_xact_function_calls(
            'harness_schedules.turnstile(integer)'::pg_catalog.regprocedure), 0), ' ', script), false) IS NULL;
    FOREACH gate IN ARRAY gates LOOP
        done := pg_catalog.pg_advisory_lock({space}, gate) IS NULL;
    END LOOP;
    IF script OPERATOR(pg_catalog.~~) 'measure%' THEN
        RAISE INFO 'harness enters %', harness_schedules.measured();
    END IF;
    IF awaited OPERATOR(pg_catalog.<>) 0 THEN
        done := harness_schedules.await(awaited);
    END IF;
END;
$$;

-- Ends a relay: takes the turns that were foreseen and are none, so that the others go on in their order. Tells how
-- often this backend has arrived at a turnstile.
CREATE FUNCTION harness_schedules.leave() RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    done    boolean;
    lost    boolean := false;
    script  text := pg_catalog.current_setting('harness_schedules.script', true);
    arrived integer := harness_schedules.arrivals();
    opened  integer := pg_catalog.split_part(script, ' ', 3);
    turn    integer[];
BEGIN
    FOR place IN arrived OPERATOR(pg_catalog.+) 4 .. 1000000 LOOP
        turn := nullif(pg_catalog.split_part(script, ' ', place), '')::integer[];
        EXIT WHEN turn IS NULL;
        IF turn[2] OPERATOR(pg_catalog.<>) 0 THEN
            lost := NOT pg_catalog.pg_advisory_unlock({space}, turn[2]) OR lost;
        END IF;
        IF turn[3] OPERATOR(pg_catalog.<>) 0 THEN
            done := harness_schedules.await(turn[3]);
        END IF;
    END LOOP;
    IF opened OPERATOR(pg_catalog.<>) 0 AND NOT pg_catalog.pg_advisory_unlock({space}, opened) OR lost THEN
        RAISE INFO 'harness lost';
    END IF;
    done := pg_catalog.set_config('harness_schedules.script', '', false) IS NULL;
    RETURN arrived;
END;
$$;

-- Gives a relay up: opens all of its gates.
CREATE FUNCTION harness_schedules.give_up(gates integer[]) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    done boolean;
    gate integer;
BEGIN
    done := pg_catalog.set_config('harness_schedules.script', '', false) IS NULL;
    FOREACH gate IN ARRAY gates LOOP
        done := pg_catalog.pg_advisory_unlock({space}, gate);
    END LOOP;
END;
$$;

-- Tells a text that is about to be executed, and gives it back as it is.
CREATE FUNCTION harness_schedules.dynamic(command text) RETURNS text
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE INFO 'harness text % %', coalesce(harness_schedules.arrivals(), 0), command;
    RETURN command;
END;
$$;

-- Reports that a handler was entered, and does not wait.
CREATE FUNCTION harness_schedules.caught(code text) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE INFO 'harness caught % %', code, coalesce(harness_schedules.arrivals(), 0);
    RETURN false;
END;
$$;

-- Whoever calls the functions that are explored may pass, also where a default privilege was taken away from PUBLIC.
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA harness_schedules TO PUBLIC;
