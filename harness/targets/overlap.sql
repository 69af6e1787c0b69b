-- The call between two readings of the server's clock, with its transaction's id and its snapshot of who else was in
-- progress. OFFSET 0 and the reference to b.harness_started keep the planner from calling the function first: the
-- reading before it is an input of the subquery that calls it.
SELECT f.*, b.harness_started, b.harness_seen
  FROM (SELECT clock_timestamp() AS harness_started, pg_current_snapshot() AS harness_seen OFFSET 0) AS b
 CROSS JOIN LATERAL (
       SELECT {columns}, clock_timestamp() AS harness_ended, pg_current_xact_id_if_assigned() AS harness_transaction
         FROM {call} AS g WHERE b.harness_started IS NOT NULL OFFSET 0
 ) AS f
