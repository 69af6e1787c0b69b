-- One guarded UPDATE does it all: whoever comes second waits for the row, and then does not match any more.
CREATE FUNCTION scan_ticket_atomic(
    p_ticket_id uuid, p_scanned_by uuid, p_device_id text DEFAULT NULL, p_scan_method text DEFAULT 'qr'
)
RETURNS TABLE (success boolean, already_scanned boolean, scanned_at timestamptz, scanned_by uuid, error_message text)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    v_at timestamptz := clock_timestamp();
BEGIN
    UPDATE tickets t
       SET is_used = true, status = 'used', scanned_at = v_at, scanned_by = p_scanned_by, updated_at = v_at
     WHERE t.id = p_ticket_id AND NOT t.is_used;
    IF FOUND THEN
        INSERT INTO scan_logs (ticket_id, scanned_by, scanned_at, scan_method, device_id, scan_success)
        VALUES (p_ticket_id, p_scanned_by, v_at, p_scan_method, p_device_id, true);
        RETURN QUERY SELECT true, false, v_at, p_scanned_by, NULL::text;
        RETURN;
    END IF;
    RETURN QUERY SELECT false, true, t.scanned_at, t.scanned_by, 'Ticket already scanned'::text
                   FROM tickets t WHERE t.id = p_ticket_id;
    IF NOT FOUND THEN
        RETURN QUERY SELECT false, false, NULL::timestamptz, NULL::uuid, 'Ticket not found'::text;
    END IF;
END;
$$;
