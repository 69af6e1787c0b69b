-- scenario: nobody tries more often than they may
-- Counting rows locks none of them, and not those to come.

-- setup
CREATE TABLE accounts (name text PRIMARY KEY, tries int NOT NULL DEFAULT 0);
CREATE TABLE attempts (name text NOT NULL);
INSERT INTO accounts VALUES ('ann');
INSERT INTO attempts VALUES ('ann'), ('ann');
UPDATE accounts SET tries = 2;
CREATE FUNCTION attempt(p_name text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM attempts WHERE name = p_name) >= 3 THEN
        RETURN false;
    END IF;
    INSERT INTO attempts VALUES (p_name);
    RETURN true;
END $$;

-- session: bot x 2
SELECT attempt('ann');

-- never: more than three attempts
SELECT name FROM attempts GROUP BY name HAVING count(*) > 3;
