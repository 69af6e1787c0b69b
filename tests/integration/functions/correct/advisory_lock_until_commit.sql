-- A transaction-level advisory lock on the ticket, held until the commit.

DROP INDEX scan_logs_one_success_per_ticket;

CREATE OR REPLACE FUNCTION scan_ticket_atomic(
    p_ticket_id uuid, p_scanned_by uuid, p_device_id text DEFAULT NULL, p_scan_method text DEFAULT 'qr'
)
RETURNS TABLE (success boolean, already_scanned boolean, scanned_at timestamptz, scanned_by uuid, error_message text)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    v_ticket tickets%ROWTYPE;
    v_now    timestamptz := clock_timestamp();
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(p_ticket_id::text, 0));
    SELECT * INTO v_ticket FROM tickets WHERE id = p_ticket_id;
    IF v_ticket.is_used THEN
        RETURN QUERY SELECT false, true, v_ticket.scanned_at, v_ticket.scanned_by, 'Ticket already scanned'::text;
        RETURN;
    END IF;
    UPDATE tickets SET is_used = true, status = 'used', scanned_at = v_now, scanned_by = p_scanned_by
     WHERE id = p_ticket_id;
    INSERT INTO scan_logs (ticket_id, scanned_by, scanned_at, scan_method, device_id, scan_success)
    VALUES (p_ticket_id, p_scanned_by, v_now, coalesce(p_scan_method, 'qr'), p_device_id, true);
    RETURN QUERY SELECT true, false, v_now, p_scanned_by, NULL::text;
END;
$$;
