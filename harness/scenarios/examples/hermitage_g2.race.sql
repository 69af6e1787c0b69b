-- scenario: a decision is not made on rows that are not there yet (G2)
-- An anti-dependency cycle over a condition.

-- setup
CREATE TABLE test (id int PRIMARY KEY, value int);
INSERT INTO test VALUES (1, 10), (2, 20);
CREATE TABLE seen (who text, what text, value int);

-- session: one
BEGIN;
INSERT INTO seen SELECT 'one', 'count', count(*) FROM test WHERE value % 3 = 0;
INSERT INTO test VALUES (3, 30);
COMMIT;

-- session: two
BEGIN;
INSERT INTO seen SELECT 'two', 'count', count(*) FROM test WHERE value % 3 = 0;
INSERT INTO test VALUES (4, 42);
COMMIT;

-- judge: queries only

-- never: both saw none, and both added one
SELECT * FROM seen AS a, seen AS b WHERE a.who = 'one' AND b.who = 'two' AND a.value = 0 AND b.value = 0;
