-- What must be true of tickets and scan_logs after any run of scan_ticket_atomic. Each query returns the rows that
-- violate it. harness.operations holds the run's calls (see harness/targets/operations.sql).

-- name: one_log_per_accepted
-- claim: Every accepted call left exactly one successful scan_logs row for its ticket.
SELECT DISTINCT o.key AS ticket_id, coalesce(l.successful_logs, 0) AS successful_logs
  FROM harness.operations o
  LEFT JOIN (SELECT ticket_id, count(*) AS successful_logs
               FROM public.scan_logs
              WHERE scan_success
              GROUP BY ticket_id) l ON l.ticket_id = o.key::uuid
 WHERE o.label = 'accepted' AND NOT o.rolled_back AND l.successful_logs IS DISTINCT FROM 1;

-- name: no_log_without_accepted
-- claim: No ticket has a successful scan_logs row unless a call on it was accepted (or is in doubt).
SELECT l.ticket_id, l.id AS scan_log_id, l.scanned_by
  FROM public.scan_logs l
 WHERE l.scan_success
   AND EXISTS (SELECT FROM harness.operations o WHERE o.key = l.ticket_id::text)
   AND NOT EXISTS (SELECT
                     FROM harness.operations o
                    WHERE o.key = l.ticket_id::text
                      AND (o.effect = 'in doubt' OR (o.label = 'accepted' AND NOT o.rolled_back)));

-- name: ticket_agrees_with_log
-- claim: A called ticket is used (is_used, status 'used') exactly when it has one successful scan_logs row, and both name the same scanner.
SELECT t.id AS ticket_id, t.status, t.is_used, t.scanned_by, count(l.id) AS successful_logs
  FROM public.tickets t
  LEFT JOIN public.scan_logs l ON l.ticket_id = t.id AND l.scan_success
 WHERE EXISTS (SELECT FROM harness.operations o WHERE o.key = t.id::text)
 GROUP BY t.id
HAVING t.is_used <> (count(l.id) = 1)
    OR count(l.id) > 1
    OR t.is_used <> (t.status = 'used')
    OR (count(l.id) = 1 AND t.scanned_by IS DISTINCT FROM (array_agg(l.scanned_by))[1]);

-- name: ticket_agrees_with_winner
-- claim: The ticket row is used (is_used, status 'used') and says of the scan what its winner was told: by whom and when.
SELECT t.id AS ticket_id, t.status, t.is_used, t.scanned_by, t.scanned_at,
       o.answer ->> 'scanned_by' AS told_scanned_by, o.answer ->> 'scanned_at' AS told_scanned_at
  FROM harness.operations o
  JOIN public.tickets t ON t.id = o.key::uuid
 WHERE o.label = 'accepted' AND NOT o.rolled_back
   AND (NOT t.is_used
        OR t.status <> 'used'
        OR t.scanned_by IS DISTINCT FROM coalesce(o.answer ->> 'scanned_by', o.arguments ->> 'p_scanned_by')::uuid
        OR t.scanned_at IS DISTINCT FROM coalesce((o.answer ->> 'scanned_at')::timestamptz, t.scanned_at));
