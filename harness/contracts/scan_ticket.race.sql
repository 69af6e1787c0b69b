-- scenario: ten scanners at one gate, and a ticket that lets exactly one person in

-- The contract of scan_ticket_atomic without Python: the same calls, claims and thresholds as in scan_ticket.py.

-- load: own scanner, qr
SELECT * FROM scan_ticket_atomic(
    p_ticket_id => :'key', p_scanned_by => :'client_id', p_device_id => :'client_id', p_scan_method => 'qr');

-- load: shared scanner, qr
SELECT * FROM scan_ticket_atomic(
    p_ticket_id => :'key', p_scanned_by => '00000000-0000-0000-0000-0000000000aa', p_device_id => :'client_id',
    p_scan_method => 'qr');

-- load: own scanner, manual
SELECT * FROM scan_ticket_atomic(
    p_ticket_id => :'key', p_scanned_by => :'client_id', p_device_id => :'client_id', p_scan_method => 'manual');

-- load: own scanner, nfc
SELECT * FROM scan_ticket_atomic(
    p_ticket_id => :'key', p_scanned_by => :'client_id', p_device_id => :'client_id', p_scan_method => 'nfc');

-- load: own scanner, no method
SELECT * FROM scan_ticket_atomic(
    p_ticket_id => :'key', p_scanned_by => :'client_id', p_device_id => :'client_id', p_scan_method => NULL);

-- keys:
SELECT harness.new_tickets(:count);

-- missing keys:
SELECT gen_random_uuid() FROM generate_series(1, :count);

-- applied: when success
-- refused: already_scanned when NOT success AND already_scanned
-- busy: when NOT success AND NOT already_scanned AND error_message ~* 'being processed|concurren|lock not available|could not obtain lock'
-- missing: not_found when NOT success AND NOT already_scanned AND error_message ILIKE '%not found%'

-- capacity: at most 1 applied per key

-- threshold: p(95)<200
-- threshold: errors rate<0.001
-- threshold: accepted count>0
-- threshold: checks rate>0.95

-- never: somebody is told another scanner than the one who was let in
SELECT told.key, told.client, told.answer ->> 'scanned_by' AS told, winner.arguments ->> 'p_scanned_by' AS winner
  FROM harness.operations AS told
  JOIN harness.operations AS winner ON winner.key = told.key AND winner.label = 'accepted' AND NOT winner.rolled_back
 WHERE told.label IN ('accepted', 'already_scanned') AND NOT told.rolled_back
   AND told.answer ->> 'scanned_by' <> winner.arguments ->> 'p_scanned_by';

-- never: a ticket that let somebody in has not exactly one successful scan in the log, or one that did not has any
SELECT ticket.key, count(log.ticket_id) AS successful_scans
  FROM (SELECT key,
               count(*) FILTER (WHERE label = 'accepted' AND NOT rolled_back) AS accepted,
               count(*) FILTER (WHERE effect = 'in doubt') AS in_doubt
          FROM harness.operations GROUP BY key) AS ticket
  LEFT JOIN scan_logs AS log ON log.scan_success AND log.ticket_id = ticket.key::uuid
 GROUP BY ticket.key, ticket.accepted, ticket.in_doubt
HAVING count(log.ticket_id) NOT BETWEEN least(ticket.accepted, 1) AND least(ticket.accepted + ticket.in_doubt, 1);

-- never: a ticket does not say what its log says
SELECT t.id, t.is_used, t.status, t.scanned_by, count(log.ticket_id) AS successful_scans
  FROM tickets AS t
  LEFT JOIN scan_logs AS log ON log.ticket_id = t.id AND log.scan_success
 GROUP BY t.id
HAVING t.is_used IS DISTINCT FROM (count(log.ticket_id) = 1)
    OR t.is_used IS DISTINCT FROM (t.status = 'used')
    OR bool_or(log.ticket_id IS NOT NULL AND log.scanned_by IS DISTINCT FROM t.scanned_by);

-- never: a ticket does not say what its winner was told: by whom, and when
SELECT t.id, t.scanned_by, t.scanned_at, o.answer
  FROM harness.operations AS o
  JOIN tickets AS t ON t.id = o.key::uuid
 WHERE o.label = 'accepted' AND NOT o.rolled_back
   AND (t.scanned_by::text <> o.answer ->> 'scanned_by' OR t.scanned_at <> (o.answer ->> 'scanned_at')::timestamptz);
