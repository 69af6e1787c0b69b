-- One desk goes to one person, asked for in every shape that a call can have. desk_taken is the one right way to take it;
-- what differs is how it is asked and how it answers.
CREATE SCHEMA office;
CREATE TYPE office.answer AS ENUM ('yours', 'gone');
CREATE DOMAIN office.floor AS smallint CHECK (VALUE BETWEEN 0 AND 40);
CREATE TYPE office.wish AS (floor office.floor, tags text[]);
CREATE EXTENSION citext;

CREATE TABLE desks (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), free boolean NOT NULL DEFAULT true, owner text);

CREATE FUNCTION desk_taken(p_desk uuid, p_owner text DEFAULT 'nobody') RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE desks SET free = false, owner = p_owner WHERE id = p_desk AND free;
    RETURN FOUND;
END $$;

CREATE FUNCTION bare(p_desk uuid) RETURNS boolean LANGUAGE sql AS 'SELECT desk_taken(p_desk)';

CREATE FUNCTION silent(p_desk uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT desk_taken(p_desk) THEN RAISE EXCEPTION 'desk % is gone', p_desk USING ERRCODE = 'P0404'; END IF;
END $$;

CREATE FUNCTION rows_of_table(p_desk uuid) RETURNS SETOF desks LANGUAGE sql AS
'UPDATE desks SET free = false WHERE id = p_desk AND free RETURNING *';

CREATE FUNCTION one_table(p_desk uuid, p_at timestamptz) RETURNS TABLE (ok boolean, at timestamptz) LANGUAGE sql AS
'SELECT desk_taken(p_desk), p_at';

CREATE FUNCTION outs(p_desk uuid, OUT ok boolean, OUT note text) LANGUAGE sql AS $$ SELECT desk_taken(p_desk), 'x' $$;

CREATE FUNCTION in_and_out(INOUT p_desk uuid, OUT ok boolean) LANGUAGE sql AS 'SELECT p_desk, desk_taken(p_desk)';

CREATE FUNCTION whole_row(p_desk uuid) RETURNS desks LANGUAGE sql AS
'UPDATE desks SET free = false WHERE id = p_desk AND free RETURNING *';

CREATE FUNCTION as_json(p_wish jsonb) RETURNS jsonb LANGUAGE sql AS
$$ SELECT jsonb_build_object('ok', desk_taken((p_wish ->> 'desk')::uuid), 'tags', p_wish -> 'tags') $$;

CREATE FUNCTION by_enum(p_desk uuid, p_hope office.answer) RETURNS office.answer LANGUAGE sql AS
$$ SELECT CASE WHEN desk_taken(p_desk) THEN p_hope ELSE 'gone' END $$;

CREATE FUNCTION arrays(p_desk uuid, p_n integer[], p_hopes office.answer[]) RETURNS TABLE (ok boolean, n integer[], hopes office.answer[])
LANGUAGE sql AS 'SELECT desk_taken(p_desk), p_n, p_hopes';

CREATE FUNCTION domains(p_desk uuid, p_floor office.floor) RETURNS TABLE (ok boolean, floor office.floor) LANGUAGE sql AS
'SELECT desk_taken(p_desk), p_floor';

CREATE FUNCTION ranges(p_desk uuid, p_when tstzrange, p_days datemultirange)
RETURNS TABLE (ok boolean, span tstzrange, days datemultirange) LANGUAGE sql AS 'SELECT desk_taken(p_desk), p_when, p_days';

CREATE FUNCTION odds(p_desk uuid, p_key bytea, p_for interval, p_word citext, p_cash money)
RETURNS TABLE (ok boolean, key bytea, lasts interval, word citext, cash money) LANGUAGE sql AS
'SELECT desk_taken(p_desk), p_key, p_for, p_word, p_cash';

CREATE FUNCTION composites(p_desk uuid, p_wish office.wish, p_more office.wish[]) RETURNS TABLE (ok boolean, wish office.wish, n integer)
LANGUAGE sql AS 'SELECT desk_taken(p_desk), p_wish, cardinality(p_more)';

CREATE FUNCTION hoped_for(VARIADIC p_hopes office.wish[]) RETURNS boolean LANGUAGE sql AS
'SELECT desk_taken((p_hopes[1]).tags[1]::uuid)';

CREATE FUNCTION unnamed(uuid, text) RETURNS boolean LANGUAGE sql AS 'SELECT desk_taken($1, $2)';

CREATE FUNCTION "mixedCase"("pDesk" uuid) RETURNS TABLE ("isOk" boolean) LANGUAGE sql AS 'SELECT desk_taken("pDesk")';

CREATE FUNCTION tagged(p_desk uuid, VARIADIC p_tags text[]) RETURNS TABLE (ok boolean, n integer) LANGUAGE sql AS
'SELECT desk_taken(p_desk), cardinality(p_tags)';

-- By name, and with the word VARIADIC, a call means both: only the second can be meant alone, by place.
CREATE FUNCTION labelled(p_desk uuid, VARIADIC p_tags text[]) RETURNS text LANGUAGE sql AS $$ SELECT CASE WHEN desk_taken(p_desk) THEN 'many' END $$;
CREATE FUNCTION labelled(p_desk uuid, p_tags text[], p_note text DEFAULT NULL) RETURNS text LANGUAGE sql AS
$$ SELECT CASE WHEN desk_taken(p_desk) THEN 'with a note' END $$;

CREATE FUNCTION overloaded(p_desk uuid, p_n integer) RETURNS text LANGUAGE sql AS $$ SELECT CASE WHEN desk_taken(p_desk) THEN 'a number' END $$;
CREATE FUNCTION overloaded(p_desk uuid, p_n text) RETURNS text LANGUAGE sql AS $$ SELECT CASE WHEN desk_taken(p_desk) THEN 'a text' END $$;

CREATE FUNCTION any_type(p_desk uuid, p_x anyelement) RETURNS TABLE (ok boolean, x anyelement) LANGUAGE sql AS
'SELECT desk_taken(p_desk), p_x';

CREATE FUNCTION office.elsewhere(p_desk uuid) RETURNS boolean LANGUAGE sql AS 'SELECT public.desk_taken(p_desk)';

CREATE FUNCTION a_record(p_desk uuid) RETURNS record LANGUAGE sql AS 'SELECT desk_taken(p_desk), 7';

CREATE PROCEDURE procedure(p_desk uuid, INOUT p_ok boolean DEFAULT NULL) LANGUAGE plpgsql AS
'BEGIN p_ok := desk_taken(p_desk); END';

CREATE PROCEDURE commits(p_desk uuid, INOUT p_ok boolean DEFAULT NULL) LANGUAGE plpgsql AS
'BEGIN COMMIT; p_ok := desk_taken(p_desk); COMMIT; END';

CREATE FUNCTION checked_first(p_desk uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF NOT (SELECT free FROM desks WHERE id = p_desk) THEN RETURN false; END IF;
    UPDATE desks SET free = false WHERE id = p_desk;
    RETURN true;
END $$;

CREATE SCHEMA harness;
CREATE FUNCTION harness.new_desks(count integer) RETURNS SETOF uuid LANGUAGE sql AS
'INSERT INTO desks SELECT FROM generate_series(1, count) RETURNING id';
CREATE FUNCTION harness.new_hopes(count integer) RETURNS SETOF office.wish[] LANGUAGE sql AS
$$ SELECT ARRAY[(3, ARRAY[id::text])::office.wish] FROM harness.new_desks(count) AS id $$;
CREATE FUNCTION harness.new_wishes(count integer) RETURNS SETOF jsonb LANGUAGE sql AS
$$ SELECT jsonb_build_object('desk', id, 'tags', '["a"]'::jsonb) FROM harness.new_desks(count) AS id $$;
