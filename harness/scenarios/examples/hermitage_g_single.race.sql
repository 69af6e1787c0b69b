-- scenario: a transaction sees one state of the data (G-single)
-- Read skew.

-- setup
CREATE TABLE test (id int PRIMARY KEY, value int);
INSERT INTO test VALUES (1, 10), (2, 20);
CREATE TABLE seen (who text, what text, value int);

-- session: reader
BEGIN;
INSERT INTO seen SELECT 'reader', 'first row', value FROM test WHERE id = 1;
INSERT INTO seen SELECT 'reader', 'second row', value FROM test WHERE id = 2;
COMMIT;

-- session: writer
BEGIN;
UPDATE test SET value = 12 WHERE id = 1;
UPDATE test SET value = 18 WHERE id = 2;
COMMIT;

-- judge: queries only

-- never: one row is seen as before and the other as after
SELECT * FROM seen AS a, seen AS b WHERE a.what = 'first row' AND a.value = 10 AND b.what = 'second row' AND b.value = 18;
