-- A locker is claimed by whoever comes first, and only the policies say so: the function itself looks at nothing.
CREATE SCHEMA auth;
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS
$$ SELECT (nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub')::uuid $$;
GRANT USAGE ON SCHEMA auth TO authenticated;

CREATE TABLE lockers (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), holder uuid, turns integer NOT NULL DEFAULT 0);
ALTER TABLE lockers ENABLE ROW LEVEL SECURITY;
CREATE POLICY see ON lockers FOR SELECT TO authenticated USING (true);
CREATE POLICY claim ON lockers FOR UPDATE TO authenticated USING (holder IS NULL) WITH CHECK (holder = auth.uid());
GRANT SELECT, UPDATE ON lockers TO authenticated;

CREATE FUNCTION claim_locker(p_locker uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE lockers SET holder = auth.uid(), turns = turns + 1 WHERE id = p_locker;
    RETURN FOUND;
END $$;

-- Reads, then writes what it read: right at serializable with retries, and nowhere else.
CREATE FUNCTION claim_by_hand(p_locker uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT holder FROM lockers WHERE id = p_locker) IS NOT NULL THEN RETURN false; END IF;
    UPDATE lockers SET holder = gen_random_uuid(), turns = turns + 1 WHERE id = p_locker;
    RETURN true;
END $$;

CREATE FUNCTION settings_seen(p_locker uuid) RETURNS text LANGUAGE sql AS
$$ SELECT concat_ws(' ', current_user, auth.uid(), current_setting('transaction_isolation'), current_setting('lock_timeout')) $$;

CREATE SCHEMA harness;
CREATE FUNCTION harness.new_lockers(count integer) RETURNS SETOF uuid LANGUAGE sql AS
'INSERT INTO lockers SELECT FROM generate_series(1, count) RETURNING id';
