-- name: keep_operations
-- Those of all schedules, put aside while an invariant is asked of some: once.
CREATE UNLOGGED TABLE IF NOT EXISTS harness.all_operations AS TABLE harness.operations;

-- name: known_operations
INSERT INTO harness.operations SELECT * FROM harness.all_operations WHERE phase = ANY (%s);
