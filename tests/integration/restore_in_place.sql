-- What is put back in place: a setup, and what a session changes then.

-- rows
CREATE TABLE t (id int PRIMARY KEY, n int);
INSERT INTO t SELECT g, g FROM generate_series(1, 5) AS g;
-- change
UPDATE t SET n = 0 WHERE id = 1;
DELETE FROM t WHERE id = 2;
INSERT INTO t VALUES (9, 9);

-- a thousand rows and more
CREATE TABLE t (id int PRIMARY KEY, n int, j json);
INSERT INTO t SELECT g, g, '[]' FROM generate_series(1, 1005) AS g;
-- change
UPDATE t SET n = 0 WHERE id = 1;
DELETE FROM t WHERE id = 2;

-- many rows, by difference
CREATE TABLE t (id int PRIMARY KEY, n int, j json);
INSERT INTO t SELECT g, g, '[]' FROM generate_series(1, 5005) AS g;
-- change
UPDATE t SET n = 0 WHERE id = 1;
DELETE FROM t WHERE id = 2;
INSERT INTO t VALUES (0, 1);

-- truncate
CREATE TABLE t (id int PRIMARY KEY, n int);
INSERT INTO t SELECT g, g FROM generate_series(1, 5) AS g;
-- change
TRUNCATE t;

-- a serial column
CREATE TABLE t (id serial, n int);
INSERT INTO t (n) VALUES (1);
-- change
INSERT INTO t (n) VALUES (2), (3);

-- an identity column, always
CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, n int);
INSERT INTO t (n) VALUES (1);
-- change
DELETE FROM t;
INSERT INTO t (n) VALUES (2);

-- a cached sequence
CREATE SEQUENCE s_seq CACHE 20;
-- change
SELECT nextval('s_seq');

-- a sequence that was never used
CREATE SEQUENCE s_seq;
-- change
SELECT nextval('s_seq'), nextval('s_seq');

-- a generated column
CREATE TABLE t (n int, twice int GENERATED ALWAYS AS (n * 2) STORED);
INSERT INTO t VALUES (1);
-- change
UPDATE t SET n = 5;

-- a dropped column
CREATE TABLE t (a int, b int, c int);
ALTER TABLE t DROP COLUMN b;
INSERT INTO t VALUES (1, 2);
-- change
UPDATE t SET c = 5;

-- partitions
CREATE TABLE t (id int, n int) PARTITION BY RANGE (id);
CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20);
INSERT INTO t VALUES (1, 1), (11, 1);
-- change
UPDATE t SET id = id + 10 WHERE id = 1;
DELETE FROM t WHERE id = 11 AND n = 1;

-- inheritance
CREATE TABLE t (n int);
CREATE TABLE u () INHERITS (t);
INSERT INTO t VALUES (1);
INSERT INTO u VALUES (2);
-- change
UPDATE t SET n = n + 1;

-- a circle of foreign keys
CREATE TABLE a (id int PRIMARY KEY, b int);
CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a);
INSERT INTO a VALUES (1, 1);
INSERT INTO b VALUES (1, 1);
ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b;
-- change
ALTER TABLE a DISABLE TRIGGER ALL;
DELETE FROM a;
ALTER TABLE a ENABLE TRIGGER ALL;

-- a cascade
CREATE TABLE a (id int PRIMARY KEY);
CREATE TABLE b (a int REFERENCES a ON DELETE CASCADE);
INSERT INTO a VALUES (1);
INSERT INTO b VALUES (1);
-- change
DELETE FROM a;

-- triggers that log
CREATE TABLE t (id int PRIMARY KEY, n int);
INSERT INTO t SELECT g, g FROM generate_series(1, 5) AS g;
CREATE TABLE log (x text);
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (TG_OP);
RETURN NULL;
END';
CREATE TRIGGER a AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION f();
-- change
UPDATE t SET n = 7;

-- triggers that fire in replica mode
CREATE TABLE t (id int PRIMARY KEY, n int);
INSERT INTO t SELECT g, g FROM generate_series(1, 5) AS g;
CREATE TABLE log (x text);
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (TG_OP);
RETURN NULL;
END';
CREATE TRIGGER a AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION f();
CREATE TRIGGER r AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION f();
ALTER TABLE t ENABLE ALWAYS TRIGGER a;
ALTER TABLE t ENABLE REPLICA TRIGGER r;
-- change
UPDATE t SET n = 7;

-- row-level security, forced
CREATE TABLE t (id int PRIMARY KEY, n int);
INSERT INTO t SELECT g, g FROM generate_series(1, 5) AS g;ALTER TABLE t ENABLE ROW LEVEL SECURITY;
ALTER TABLE t FORCE ROW LEVEL SECURITY;
-- change
UPDATE t SET n = 7;

-- types of all kinds
CREATE TYPE mood AS ENUM ('ok', 'no');
CREATE TYPE pair AS (a int, b text);
CREATE TABLE t (m mood, p pair, j json, f float8, b bytea, a text[], r int4range);
INSERT INTO t VALUES ('ok', '(1,"x, y")', '{"a": 1}', 0.1, '\x00ff', '{a,"b c",NULL}', '[1,3)');
-- change
UPDATE t SET m = 'no', f = f + 0.2;

-- odd names
CREATE TABLE "Order Items" ("select" int PRIMARY KEY, "a""b" text);
INSERT INTO "Order Items" VALUES (1, 'x');
-- change
UPDATE "Order Items" SET "a""b" = 'y';
