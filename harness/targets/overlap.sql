-- The call between two readings of the server's clock, with its transaction's id and its snapshot of who else was in
-- progress. OFFSET 0 and the reference to b.harness_started keep the planner from calling the function first: the
-- reading before it is an input of the subquery that calls it, and the one after it is taken of what that gave.
-- harness_row is null where the call gave no row.
SELECT {found}, clock_timestamp() AS harness_ended, pg_current_xact_id_if_assigned() AS harness_transaction,
       b.harness_started, b.harness_seen
  FROM (SELECT clock_timestamp() AS harness_started, pg_current_snapshot() AS harness_seen OFFSET 0) AS b
  LEFT JOIN LATERAL (
       SELECT true AS harness_row, {columns}
         FROM {call} AS g {names} WHERE b.harness_started IS NOT NULL OFFSET 0
 ) AS f ON true
