-- The unique index that decides includes the scanner, so two scanners both get in.

DROP INDEX scan_logs_one_success_per_ticket;

CREATE UNIQUE INDEX ON scan_logs (ticket_id, scanned_by) WHERE scan_success;

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
    IF EXISTS (SELECT FROM tickets t WHERE t.id = p_ticket_id AND t.is_used) THEN
        RETURN QUERY SELECT false, true, t.scanned_at, t.scanned_by, 'Ticket already scanned'::text
                       FROM tickets t WHERE t.id = p_ticket_id;
        RETURN;
    END IF;
    INSERT INTO scan_logs (ticket_id, scanned_by, scanned_at, scan_method, device_id, scan_success)
    VALUES (p_ticket_id, p_scanned_by, v_now, coalesce(p_scan_method, 'qr'), p_device_id, true);
    UPDATE tickets SET is_used = true, status = 'used', scanned_at = v_now, scanned_by = p_scanned_by
     WHERE id = p_ticket_id;
    RETURN QUERY SELECT true, false, v_now, p_scanned_by, NULL::text;
EXCEPTION
    WHEN unique_violation THEN
        RETURN QUERY SELECT false, true, t.scanned_at, t.scanned_by, 'Ticket already scanned'::text
                       FROM tickets t WHERE t.id = p_ticket_id;
END;
$$;
