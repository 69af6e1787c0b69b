-- scenario: the last seat of a show goes to one person
-- Both find the same seat free, and both are told that it is theirs.

-- setup
CREATE TABLE seats (show text, seat int, taken_by text, PRIMARY KEY (show, seat));
INSERT INTO seats VALUES ('late', 1, NULL);
CREATE FUNCTION take_seat(p_show text, p_who text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    free int;
BEGIN
    SELECT seat INTO free FROM seats WHERE show = p_show AND taken_by IS NULL ORDER BY seat LIMIT 1;
    UPDATE seats SET taken_by = p_who WHERE show = p_show AND seat = free;
    RETURN free;
END $$;

-- session: ann
SELECT take_seat('late', :'session');

-- session: ben
SELECT take_seat('late', :'session');
