-- scenario: each job is done by one worker
-- A job that somebody else is taking is skipped.

-- setup
CREATE TABLE jobs (id int PRIMARY KEY, worker text);
INSERT INTO jobs VALUES (1, NULL), (2, NULL);
CREATE FUNCTION claim(p_worker text) RETURNS int LANGUAGE sql AS $$
    UPDATE jobs SET worker = p_worker
     WHERE id = (SELECT id FROM jobs WHERE worker IS NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id;
$$;

-- session: worker x 2
SELECT claim(:'session');
