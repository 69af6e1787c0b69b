-- scenario: a token that is good for one login lets one person in
-- It is read, and only then marked as used.

-- setup
CREATE TABLE tokens (token text PRIMARY KEY, person text NOT NULL, used boolean NOT NULL DEFAULT false);
INSERT INTO tokens VALUES ('abc', 'ann');
CREATE FUNCTION log_in(p_token text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    who text;
BEGIN
    SELECT person INTO who FROM tokens WHERE token = p_token AND NOT used;
    UPDATE tokens SET used = true WHERE token = p_token;
    RETURN who;
END $$;

-- session: browser
SELECT log_in('abc');

-- session: thief
SELECT log_in('abc');
