-- Whoever scans, the same one is written down and told: consistent, and wrong for everybody.
CREATE OR REPLACE FUNCTION scan_ticket_atomic(
    p_ticket_id   uuid,
    p_scanned_by  uuid,
    p_device_id   text DEFAULT NULL,
    p_scan_method text DEFAULT 'qr'
)
RETURNS TABLE (success boolean, already_scanned boolean, scanned_at timestamptz, scanned_by uuid, error_message text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_gate constant uuid := '00000000-0000-0000-0000-0000000000ff';
    v_ticket tickets%ROWTYPE;
BEGIN
    SELECT * INTO v_ticket FROM tickets t WHERE t.id = p_ticket_id FOR UPDATE;
    IF v_ticket.is_used THEN
        RETURN QUERY SELECT false, true, v_ticket.scanned_at, v_ticket.scanned_by, 'Ticket already scanned'::text;
        RETURN;
    END IF;
    UPDATE tickets t SET is_used = true, status = 'used', scanned_at = now(), scanned_by = v_gate
     WHERE t.id = p_ticket_id;
    INSERT INTO scan_logs (ticket_id, scanned_by, scanned_at, scan_method, device_id, scan_success)
    VALUES (p_ticket_id, v_gate, now(), coalesce(p_scan_method, 'qr'), p_device_id, true);
    RETURN QUERY SELECT true, false, now(), v_gate, NULL::text;
END $$;
