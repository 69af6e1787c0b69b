-- scenario: what is rolled back was never seen (G1a)
-- An aborted read.

-- setup
CREATE TABLE test (id int PRIMARY KEY, value int);
INSERT INTO test VALUES (1, 10), (2, 20);
CREATE TABLE seen (who text, what text, value int);

-- session: one
BEGIN;
UPDATE test SET value = 101 WHERE id = 1;
ROLLBACK;

-- session: two
INSERT INTO seen SELECT 'two', 'first', value FROM test WHERE id = 1;
INSERT INTO seen SELECT 'two', 'again', value FROM test WHERE id = 1;

-- judge: queries only

-- never: a value that was rolled back is seen
SELECT * FROM seen WHERE value = 101;
