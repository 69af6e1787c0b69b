-- The shipped function with a lock too many: every second scanner takes the ticket and its event in the other order.
ALTER FUNCTION scan_ticket_atomic(uuid, uuid, text, text) RENAME TO scan_whole;

CREATE FUNCTION scan_ticket_atomic(
    p_ticket_id uuid, p_scanned_by uuid, p_device_id text DEFAULT NULL, p_scan_method text DEFAULT 'qr')
RETURNS TABLE (
    success boolean, already_scanned boolean, scanned_at timestamptz, scanned_by uuid, error_message text)
LANGUAGE plpgsql
AS $$
DECLARE
    v_event uuid := (SELECT event_id FROM tickets WHERE id = p_ticket_id);
BEGIN
    IF hashtext(p_scanned_by::text) % 2 = 0 THEN
        PERFORM FROM tickets WHERE id = p_ticket_id FOR UPDATE;
        PERFORM FROM events WHERE id = v_event FOR UPDATE;
    ELSE
        PERFORM FROM events WHERE id = v_event FOR UPDATE;
        PERFORM FROM tickets WHERE id = p_ticket_id FOR UPDATE;
    END IF;
    RETURN QUERY SELECT * FROM scan_whole(p_ticket_id, p_scanned_by, p_device_id, p_scan_method);
END;
$$;

DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''10ms''', current_database());
END;
$$;
