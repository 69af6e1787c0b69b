-- procrastinate-org/procrastinate#103: two fetches get two jobs that share a lock
-- scenario: jobs of one lock do not run at once
-- setup
CREATE TABLE jobs (id int PRIMARY KEY, lock text, status text);
INSERT INTO jobs VALUES (1, 'yay', 'todo'), (2, 'yay', 'todo');
-- session: worker x 2
UPDATE jobs SET status = 'doing' WHERE id = (
    SELECT id FROM jobs AS j WHERE status = 'todo'
       AND NOT EXISTS (SELECT FROM jobs WHERE lock = j.lock AND status = 'doing')
     ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id;
-- never: two of a lock are being done
SELECT lock FROM jobs WHERE status = 'doing' GROUP BY lock HAVING count(*) > 1;
-- mended
-- scenario: jobs of one lock do not run at once
-- setup
CREATE TABLE jobs (id int PRIMARY KEY, lock text, status text);
INSERT INTO jobs VALUES (1, 'yay', 'todo'), (2, 'yay', 'todo');
-- session: worker x 2
BEGIN;
SELECT pg_advisory_xact_lock(7);
UPDATE jobs SET status = 'doing' WHERE id = (
    SELECT id FROM jobs AS j WHERE status = 'todo'
       AND NOT EXISTS (SELECT FROM jobs WHERE lock = j.lock AND status = 'doing')
     ORDER BY id LIMIT 1) RETURNING id;
COMMIT;
