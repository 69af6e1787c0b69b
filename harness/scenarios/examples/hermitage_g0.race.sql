-- scenario: writes of two transactions are not mixed (G0)
-- Each writes both rows; afterwards both rows must be of one of them.

-- setup
CREATE TABLE test (id int PRIMARY KEY, value int);
INSERT INTO test VALUES (1, 10), (2, 20);
CREATE TABLE seen (who text, what text, value int);

-- session: one
BEGIN;
UPDATE test SET value = 11 WHERE id = 1;
UPDATE test SET value = 21 WHERE id = 2;
COMMIT;

-- session: two
BEGIN;
UPDATE test SET value = 12 WHERE id = 1;
UPDATE test SET value = 22 WHERE id = 2;
COMMIT;

-- judge: queries only

-- never: the rows are of different transactions
SELECT * FROM test AS a, test AS b WHERE a.id = 1 AND b.id = 2 AND a.value % 10 <> b.value % 10;
