-- scenario: two transactions do not each see the other (G1c)
-- Circular information flow.

-- setup
CREATE TABLE test (id int PRIMARY KEY, value int);
INSERT INTO test VALUES (1, 10), (2, 20);
CREATE TABLE seen (who text, what text, value int);

-- session: one
BEGIN;
UPDATE test SET value = 11 WHERE id = 1;
INSERT INTO seen SELECT 'one', 'the other', value FROM test WHERE id = 2;
COMMIT;

-- session: two
BEGIN;
UPDATE test SET value = 22 WHERE id = 2;
INSERT INTO seen SELECT 'two', 'the other', value FROM test WHERE id = 1;
COMMIT;

-- judge: queries only

-- never: each sees what the other wrote
SELECT * FROM seen AS a, seen AS b WHERE a.who = 'one' AND a.value = 22 AND b.who = 'two' AND b.value = 11;
