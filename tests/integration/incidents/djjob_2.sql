-- seatgeek/djjob#2: two workers select a job, then both lock it, and it runs twice
-- scenario: a job is run by one worker
-- setup
CREATE TABLE jobs (id int PRIMARY KEY, locked_by text);
INSERT INTO jobs VALUES (1, NULL);
-- session: worker x 2
BEGIN;
SELECT id FROM jobs WHERE locked_by IS NULL \gset
UPDATE jobs SET locked_by = :'session' WHERE id = :id RETURNING id;
COMMIT;
-- mended
-- scenario: a job is run by one worker
-- setup
CREATE TABLE jobs (id int PRIMARY KEY, locked_by text);
INSERT INTO jobs VALUES (1, NULL);
-- session: worker x 2
UPDATE jobs SET locked_by = :'session' WHERE id = 1 AND locked_by IS NULL RETURNING id;
