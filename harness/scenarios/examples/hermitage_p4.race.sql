-- scenario: no update is lost (P4)
-- Both compute from the value that they read.

-- setup
CREATE TABLE test (id int PRIMARY KEY, value int);
INSERT INTO test VALUES (1, 10), (2, 20);
CREATE TABLE seen (who text, what text, value int);

-- session: one
BEGIN;
SELECT value AS had FROM test WHERE id = 1 \gset
UPDATE test SET value = :had + 1 WHERE id = 1;
INSERT INTO seen VALUES ('one', 'done', 1);
COMMIT;

-- session: two
BEGIN;
SELECT value AS had FROM test WHERE id = 1 \gset
UPDATE test SET value = :had + 1 WHERE id = 1;
INSERT INTO seen VALUES ('two', 'done', 1);
COMMIT;

-- judge: queries only

-- never: there are more updates than the value shows
SELECT * FROM test WHERE id = 1 AND value <> 10 + (SELECT count(*) FROM seen);
