-- scenario: what is only passing is not seen (G1b)
-- An intermediate read.

-- setup
CREATE TABLE test (id int PRIMARY KEY, value int);
INSERT INTO test VALUES (1, 10), (2, 20);
CREATE TABLE seen (who text, what text, value int);

-- session: one
BEGIN;
UPDATE test SET value = 101 WHERE id = 1;
UPDATE test SET value = 11 WHERE id = 1;
COMMIT;

-- session: two
INSERT INTO seen SELECT 'two', 'first', value FROM test WHERE id = 1;
INSERT INTO seen SELECT 'two', 'again', value FROM test WHERE id = 1;

-- judge: queries only

-- never: a value on the way to another is seen
SELECT * FROM seen WHERE value = 101;
