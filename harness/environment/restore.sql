-- name: tables
-- Tables with rows of their own, with what is needed to copy them and to put them back.
SELECT c.oid::bigint,
       n.nspname::text,
       c.relname::text,
       ARRAY(SELECT a.attname::text FROM pg_attribute AS a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
       ARRAY(SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END::bigint
               FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
       ARRAY(SELECT a.attname::text FROM pg_attribute AS a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
              ORDER BY a.attnum),
       (SELECT ARRAY(SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
                       JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum ORDER BY k.place)
          FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary),
       ARRAY(SELECT ARRAY[t.tgname::text, t.tgenabled::text] FROM pg_trigger AS t
              WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled IN ('A', 'R') ORDER BY t.tgname),
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence IN ('p', 'u')
   AND n.nspname !~ '^(pg_|information_schema$|harness_)'
 ORDER BY n.nspname, c.relname;

-- name: sequences
SELECT n.nspname::text, c.relname::text, s.seqincrement, s.seqmax
  FROM pg_sequence AS s
  JOIN pg_class AS c ON c.oid = s.seqrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relpersistence IN ('p', 'u') AND n.nspname !~ '^(pg_|information_schema$|harness_)'
 ORDER BY n.nspname, c.relname;

-- name: fingerprint
-- TRUNCATE gives a table another file too; its rows can be put back all the same, so tables count by what they are.
SELECT (SELECT sum(hashtext(concat_ws(' ', c.oid, c.relname, c.relnatts, c.relkind, c.relhasindex,
                                      CASE WHEN c.relkind = 'm' THEN c.relfilenode END))::bigint)
          FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname !~ '^(pg_|information_schema$|harness_)'),
       (SELECT count(*) FROM pg_largeobject_metadata),
       (SELECT sum(xmin::text::bigint) FROM pg_proc WHERE oid >= 16384),
       (SELECT sum(hashtext(concat_ws(' ', oid, tgname, tgenabled))::bigint) FROM pg_trigger WHERE NOT tgisinternal)
