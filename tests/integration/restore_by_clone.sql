-- What only a clone of the database puts back: a setup, and what a session changes then.

-- a new table

-- change
CREATE TABLE u (n int);

-- a changed table
CREATE TABLE t (id int PRIMARY KEY, n int);
INSERT INTO t SELECT g, g FROM generate_series(1, 5) AS g;
-- change
ALTER TABLE t ADD COLUMN m int;

-- a materialized view
CREATE TABLE t (id int PRIMARY KEY, n int);
INSERT INTO t SELECT g, g FROM generate_series(1, 5) AS g;
CREATE MATERIALIZED VIEW m AS SELECT sum(n) FROM t;
-- change
REFRESH MATERIALIZED VIEW m;

-- a large object

-- change
SELECT lo_create(0);

-- a function

-- change
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
