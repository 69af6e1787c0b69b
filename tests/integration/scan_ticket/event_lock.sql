-- Locks the event in place of the ticket: people with tickets of their own are turned away as busy.

CREATE OR REPLACE FUNCTION scan_ticket_atomic(
    p_ticket_id   uuid,
    p_scanned_by  uuid,
    p_device_id   text DEFAULT NULL,
    p_scan_method text DEFAULT 'qr'
)
RETURNS TABLE (
    success         boolean,
    already_scanned boolean,
    scanned_at      timestamptz,
    scanned_by      uuid,
    error_message   text
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    v_ticket tickets%ROWTYPE;
    v_now    timestamptz := clock_timestamp();
BEGIN
    PERFORM FROM events e
       JOIN tickets t ON t.event_id = e.id
      WHERE t.id = p_ticket_id
        FOR UPDATE OF e NOWAIT;
    PERFORM pg_sleep(0.001);  -- so that scanners are sure to meet

    SELECT * INTO v_ticket FROM tickets t WHERE t.id = p_ticket_id;

    IF NOT FOUND THEN
        RETURN QUERY SELECT false, false, NULL::timestamptz, NULL::uuid, 'Ticket not found'::text;
        RETURN;
    END IF;

    IF v_ticket.is_used THEN
        RETURN QUERY SELECT false, true, v_ticket.scanned_at, v_ticket.scanned_by, 'Ticket already scanned'::text;
        RETURN;
    END IF;

    IF v_ticket.status <> 'valid' THEN
        RETURN QUERY SELECT false, false, NULL::timestamptz, NULL::uuid, 'Ticket is not valid: ' || v_ticket.status;
        RETURN;
    END IF;

    UPDATE tickets t
       SET is_used = true, status = 'used', scanned_at = v_now, scanned_by = p_scanned_by, updated_at = v_now
     WHERE t.id = p_ticket_id AND NOT t.is_used;

    IF NOT FOUND THEN
        RETURN QUERY SELECT false, true, t.scanned_at, t.scanned_by, 'Ticket already scanned'::text
                       FROM tickets t WHERE t.id = p_ticket_id;
        RETURN;
    END IF;

    INSERT INTO scan_logs (ticket_id, scanned_by, scanned_at, scan_method, device_id, scan_success)
    VALUES (p_ticket_id, p_scanned_by, v_now, coalesce(p_scan_method, 'qr'), p_device_id, true);

    RETURN QUERY SELECT true, false, v_now, p_scanned_by, NULL::text;
EXCEPTION
    WHEN lock_not_available THEN
        RETURN QUERY SELECT false, false, NULL::timestamptz, NULL::uuid,
                            'Ticket is being processed by another scanner'::text;
    WHEN unique_violation THEN
        RETURN QUERY SELECT false, true, t.scanned_at, t.scanned_by, 'Ticket already scanned'::text
                       FROM tickets t WHERE t.id = p_ticket_id;
END;
$$;
