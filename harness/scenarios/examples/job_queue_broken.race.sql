-- scenario: each job is done by one worker
-- The subquery finds a job that somebody else is just taking; the UPDATE waits, and takes it again.

-- setup
CREATE TABLE jobs (id int PRIMARY KEY, worker text);
INSERT INTO jobs VALUES (1, NULL), (2, NULL);
CREATE FUNCTION claim(p_worker text) RETURNS int LANGUAGE sql AS $$
    UPDATE jobs SET worker = p_worker
     WHERE id = (SELECT id FROM jobs WHERE worker IS NULL ORDER BY id LIMIT 1)
    RETURNING id;
$$;

-- session: worker x 2
SELECT claim(:'session');
