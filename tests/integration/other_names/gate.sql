-- The shipped contract's function over tables of other names: entries and their journal, told by went_in; no status word.
CREATE TABLE entries (
    no uuid PRIMARY KEY DEFAULT gen_random_uuid(), state text NOT NULL DEFAULT 'sold', went_in boolean, went_at timestamptz, guard uuid
);
CREATE SCHEMA books;
CREATE TABLE books.journal (entry uuid NOT NULL REFERENCES entries, guard uuid, fine boolean NOT NULL);

CREATE FUNCTION scan_ticket_atomic(p_ticket_id uuid, p_scanned_by uuid, p_device_id text DEFAULT NULL, p_scan_method text DEFAULT 'qr')
RETURNS TABLE (success boolean, already_scanned boolean, scanned_at timestamptz, scanned_by uuid, error_message text)
LANGUAGE plpgsql AS $$
DECLARE
    v entries;
BEGIN
    SELECT * INTO v FROM entries WHERE no = p_ticket_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN QUERY SELECT false, false, NULL::timestamptz, NULL::uuid, 'entry not found';
    ELSIF v.went_in THEN
        RETURN QUERY SELECT false, true, v.went_at, v.guard, 'went in already';
    ELSE
        UPDATE entries SET went_in = true, state = 'inside', went_at = clock_timestamp(), guard = p_scanned_by WHERE no = p_ticket_id
        RETURNING * INTO v;
        INSERT INTO books.journal VALUES (p_ticket_id, p_scanned_by, true);
        RETURN QUERY SELECT true, false, v.went_at, v.guard, NULL::text;
    END IF;
END $$;

CREATE SCHEMA harness;
CREATE FUNCTION harness.new_tickets(count integer) RETURNS SETOF uuid LANGUAGE sql AS
'INSERT INTO entries SELECT FROM generate_series(1, count) RETURNING no';
