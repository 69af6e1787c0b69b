-- scenario: a team always has an admin
-- All members are locked, in one order, before they are counted.

-- setup
CREATE TABLE members (name text PRIMARY KEY, admin boolean NOT NULL);
INSERT INTO members VALUES ('ann', true), ('ben', true);
CREATE FUNCTION resign(p_name text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM members ORDER BY name FOR UPDATE;
    IF (SELECT count(*) FROM members WHERE admin) < 2 THEN
        RETURN false;
    END IF;
    UPDATE members SET admin = false WHERE name = p_name;
    RETURN true;
END $$;

-- session: ann
SELECT resign('ann');

-- session: ben
SELECT resign('ben');

-- always: somebody is admin
SELECT bool_or(admin) FROM members;
