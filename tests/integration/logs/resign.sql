CREATE TABLE members (name text PRIMARY KEY, admin boolean NOT NULL);
CREATE FUNCTION resign(p_name text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM members WHERE admin) < 2 THEN
        RETURN false;
    END IF;
    UPDATE members SET admin = false WHERE name = p_name;
    RETURN true;
END $$;
