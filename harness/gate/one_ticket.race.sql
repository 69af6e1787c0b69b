-- scenario: ten scanners, one ticket: one person gets in

-- setup
CREATE TABLE gate_ticket AS SELECT ticket FROM harness.new_tickets(1) AS ticket;

-- session: scanner x 10
SELECT success, already_scanned, error_message
  FROM scan_ticket_atomic((SELECT ticket FROM gate_ticket), ('00000000-0000-0000-0000-' || lpad(:'number', 12, '0'))::uuid);

-- busy: another scanner is at it when NOT success AND NOT already_scanned AND error_message ~* 'process|concurrent|lock'

-- never: more than one scan of the ticket was let in
SELECT ticket_id FROM scan_logs WHERE scan_success GROUP BY ticket_id HAVING count(*) > 1;
