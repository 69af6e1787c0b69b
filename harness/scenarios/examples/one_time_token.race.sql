-- scenario: a token that is good for one login lets one person in
-- One statement checks and marks; the second finds it marked.

-- setup
CREATE TABLE tokens (token text PRIMARY KEY, person text NOT NULL, used boolean NOT NULL DEFAULT false);
INSERT INTO tokens VALUES ('abc', 'ann');
CREATE FUNCTION log_in(p_token text) RETURNS text LANGUAGE sql AS $$
    UPDATE tokens SET used = true WHERE token = p_token AND NOT used RETURNING person;
$$;

-- session: browser
SELECT log_in('abc');

-- session: thief
SELECT log_in('abc');
