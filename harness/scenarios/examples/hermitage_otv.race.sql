-- scenario: a transaction that was seen does not vanish again (OTV)
-- An observed transaction vanishes.

-- setup
CREATE TABLE test (id int PRIMARY KEY, value int);
INSERT INTO test VALUES (1, 10), (2, 20);
CREATE TABLE seen (who text, what text, value int);

-- session: one
UPDATE test SET value = CASE id WHEN 1 THEN 11 ELSE 19 END;

-- session: two
UPDATE test SET value = CASE id WHEN 1 THEN 12 ELSE 18 END;

-- session: reader
INSERT INTO seen SELECT 'reader', 'first row', value FROM test WHERE id = 1;
INSERT INTO seen SELECT 'reader', 'second row', value FROM test WHERE id = 2;

-- judge: queries only

-- never: the second writer is seen, and then what it had overwritten
SELECT * FROM seen AS a, seen AS b, test AS last
 WHERE a.what = 'first row' AND b.what = 'second row' AND last.id = 2
   AND ((a.value = 12 AND b.value = 19 AND last.value = 18) OR (a.value = 11 AND b.value = 18 AND last.value = 19));
