-- scenario: what meets a condition stays the same for a transaction (PMP)
-- Predicate-many-preceders: a phantom.

-- setup
CREATE TABLE test (id int PRIMARY KEY, value int);
INSERT INTO test VALUES (1, 10), (2, 20);
CREATE TABLE seen (who text, what text, value int);

-- session: one
BEGIN;
INSERT INTO seen SELECT 'one', 'before', count(*) FROM test WHERE value = 30;
INSERT INTO seen SELECT 'one', 'after', count(*) FROM test WHERE value % 3 = 0;
COMMIT;

-- session: two
INSERT INTO test VALUES (3, 30);

-- judge: queries only

-- never: the row is there the second time, and was not the first
SELECT * FROM seen AS a, seen AS b WHERE a.what = 'before' AND a.value = 0 AND b.what = 'after' AND b.value = 1;
