-- The call between two readings of the server's clock. OFFSET 0 and the reference to b.started keep the planner from
-- calling the function first: the reading before it is an input of the subquery that calls it.
SELECT f.*, b.started
  FROM (SELECT clock_timestamp() AS started OFFSET 0) AS b
 CROSS JOIN LATERAL (
       SELECT {columns}, clock_timestamp() AS ended FROM {call} AS g WHERE b.started IS NOT NULL OFFSET 0
 ) AS f
