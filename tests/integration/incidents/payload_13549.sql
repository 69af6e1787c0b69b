-- payloadcms/payload#13549: a job is found with processing false, and marked in a second statement
-- scenario: a job is claimed once
-- setup
CREATE TABLE job (id int PRIMARY KEY, processing boolean);
CREATE TABLE run (job int, worker text);
INSERT INTO job VALUES (1, false);
-- session: cron x 2
BEGIN;
INSERT INTO run SELECT id, :'session' FROM job WHERE NOT processing;
UPDATE job SET processing = true WHERE id = 1;
COMMIT;
-- never: it is run twice
SELECT job FROM run GROUP BY job HAVING count(*) > 1;
-- mended
-- scenario: a job is claimed once
-- setup
CREATE TABLE job (id int PRIMARY KEY, processing boolean);
CREATE TABLE run (job int, worker text);
INSERT INTO job VALUES (1, false);
-- session: cron x 2
WITH claimed AS (UPDATE job SET processing = true WHERE NOT processing RETURNING id)
INSERT INTO run SELECT id, :'session' FROM claimed;
-- never: it is run twice
SELECT job FROM run GROUP BY job HAVING count(*) > 1;
