-- scenario: a decision is not made on rows that somebody else changes (G2-item)
-- Write skew.

-- setup
CREATE TABLE test (id int PRIMARY KEY, value int);
INSERT INTO test VALUES (1, 10), (2, 20);
CREATE TABLE seen (who text, what text, value int);

-- session: one
BEGIN;
INSERT INTO seen SELECT 'one', 'sum', sum(value) FROM test;
UPDATE test SET value = 11 WHERE id = 1;
COMMIT;

-- session: two
BEGIN;
INSERT INTO seen SELECT 'two', 'sum', sum(value) FROM test;
UPDATE test SET value = 21 WHERE id = 2;
COMMIT;

-- judge: queries only

-- never: both saw the data as it was before either
SELECT * FROM seen AS a, seen AS b WHERE a.who = 'one' AND b.who = 'two' AND a.value = 30 AND b.value = 30;
