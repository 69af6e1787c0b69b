-- What must be true of tickets and their logs after any run of scan_ticket_atomic. Each query returns the rows that
-- violate it. harness.operations holds the run's calls (see harness/targets/operations.sql). Names in :"..." are options of
-- the contract: --contract-option used=was_scanned says that a used ticket is told by the column was_scanned.

-- name: one_log_per_accepted
-- claim: Every accepted call left exactly one successful log row for its ticket.
SELECT DISTINCT o.key AS ticket_id, coalesce(l.successful_logs, 0) AS successful_logs
  FROM harness.operations o
  LEFT JOIN (SELECT :"log_ticket" AS ticket, count(*) AS successful_logs
               FROM :"logs"
              WHERE :"log_success"
              GROUP BY 1) l ON l.ticket = o.key::uuid
 WHERE o.label = 'accepted' AND NOT o.rolled_back AND l.successful_logs IS DISTINCT FROM 1;

-- name: no_log_without_accepted
-- claim: No ticket has a successful log row unless a call on it was accepted (or is in doubt).
SELECT l.*
  FROM :"logs" l
 WHERE l.:"log_success"
   AND EXISTS (SELECT FROM harness.operations o WHERE o.key = l.:"log_ticket"::text)
   AND NOT EXISTS (SELECT
                     FROM harness.operations o
                    WHERE o.key = l.:"log_ticket"::text
                      AND (o.effect = 'in doubt' OR (o.label = 'accepted' AND NOT o.rolled_back)));

-- name: ticket_agrees_with_log
-- claim: A called ticket is used exactly when it has one successful log row, and both name the same scanner.
SELECT t.:"ticket" AS ticket_id, t.:"used" AS used, t.:"scanned_by" AS scanned_by, count(l.:"log_ticket") AS successful_logs
  FROM :"tickets" t
  LEFT JOIN :"logs" l ON l.:"log_ticket" = t.:"ticket" AND l.:"log_success"
 WHERE EXISTS (SELECT FROM harness.operations o WHERE o.key = t.:"ticket"::text)
 GROUP BY t.:"ticket", t.:"used", t.:"scanned_by"
HAVING coalesce(t.:"used", false) <> (count(l.:"log_ticket") = 1)
    OR count(l.:"log_ticket") > 1
    OR (count(l.:"log_ticket") = 1 AND t.:"scanned_by" IS DISTINCT FROM (array_agg(l.:"log_scanner"))[1]);

-- name: ticket_agrees_with_winner
-- claim: The ticket row is used and says of the scan what its winner was told: by whom and when.
SELECT t.:"ticket" AS ticket_id, t.:"used" AS used, t.:"scanned_by" AS scanned_by, t.:"scanned_at" AS scanned_at,
       o.answer ->> 'scanned_by' AS told_scanned_by, o.answer ->> 'scanned_at' AS told_scanned_at
  FROM harness.operations o
  JOIN :"tickets" t ON t.:"ticket" = o.key::uuid
 WHERE o.label = 'accepted' AND NOT o.rolled_back
   AND (NOT coalesce(t.:"used", false)
        OR t.:"scanned_by" IS DISTINCT FROM coalesce(o.answer ->> 'scanned_by', o.arguments ->> 'p_scanned_by')::uuid
        OR t.:"scanned_at" IS DISTINCT FROM coalesce((o.answer ->> 'scanned_at')::timestamptz, t.:"scanned_at"));

-- name: status_agrees_with_use
-- claim: A used ticket's status differs from that of a ticket not used, and is the same for all that were used here.
WITH called AS (
    SELECT t.:"ticket" AS ticket_id, t.:"status" AS status
      FROM :"tickets" t
     WHERE coalesce(t.:"used", false)
       AND EXISTS (SELECT FROM harness.operations o WHERE o.key = t.:"ticket"::text)
), others AS MATERIALIZED ( -- else it is read again for every ticket: IS NOT DISTINCT FROM cannot be hashed
    SELECT DISTINCT t.:"status" AS status FROM :"tickets" t WHERE NOT coalesce(t.:"used", false)
)
SELECT called.ticket_id, called.status
  FROM called
 WHERE EXISTS (SELECT FROM others WHERE others.status IS NOT DISTINCT FROM called.status)
    OR called.status IS DISTINCT FROM (SELECT mode() WITHIN GROUP (ORDER BY status) FROM called);
