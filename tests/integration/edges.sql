CREATE TABLE people (id integer PRIMARY KEY, gifts integer NOT NULL DEFAULT 0);
INSERT INTO people SELECT generate_series(0, 9);
CREATE TABLE gifts (
    id       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    taken_by integer REFERENCES people,
    note     text
);
CREATE SEQUENCE last_taken MINVALUE -9223372036854775808;
CREATE SCHEMA harness;
CREATE FUNCTION harness.new_gifts(count integer) RETURNS SETOF uuid LANGUAGE sql
AS 'INSERT INTO gifts SELECT FROM generate_series(1, count) RETURNING id';
CREATE FUNCTION take(p_gift uuid, p_person integer, p_note text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE gifts SET taken_by = p_person, note = p_note WHERE id = p_gift AND taken_by IS NULL;
    RETURN FOUND;
END $$;
