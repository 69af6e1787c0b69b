-- name: functions
-- Functions of a name, with their parameters: names, types, and whether each has a default.
SELECT n.nspname::text,
       p.proname::text,
       p.prokind::text,
       coalesce(p.proargnames[1:p.pronargs], ARRAY[]::text[]),
       ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) AS t),
       p.pronargdefaults,
       p.proretset OR p.prorettype = 'record'::regtype
           OR EXISTS (SELECT FROM pg_type AS r WHERE r.oid = p.prorettype AND r.typtype = 'c')
  FROM pg_proc AS p
  JOIN pg_namespace AS n ON n.oid = p.pronamespace
 WHERE p.proname = %(name)s AND (%(schema)s::text IS NULL OR n.nspname = %(schema)s)
   AND n.nspname !~ '^(pg_|information_schema$)' AND p.prokind IN ('f', 'p')
 ORDER BY n.nspname, p.pronargs;

-- name: columns
-- Of some tables: the columns that an INSERT must name, with type, first value of an enum, and what they refer to.
SELECT n.nspname::text, c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), t.typtype::text,
       (SELECT e.enumlabel::text FROM pg_enum AS e WHERE e.enumtypid = a.atttypid ORDER BY e.enumsortorder LIMIT 1),
       (SELECT ARRAY[fn.nspname::text, f.relname::text, fa.attname::text]
          FROM pg_constraint AS k
          JOIN pg_class AS f ON f.oid = k.confrelid
          JOIN pg_namespace AS fn ON fn.oid = f.relnamespace
          JOIN pg_attribute AS fa ON fa.attrelid = f.oid
                                 AND fa.attnum = k.confkey[array_position(k.conkey, a.attnum)]
         WHERE k.conrelid = c.oid AND k.contype = 'f' AND a.attnum = ANY (k.conkey) LIMIT 1),
       (SELECT pg_get_constraintdef(k.oid) FROM pg_constraint AS k
         WHERE k.conrelid = c.oid AND k.contype = 'c' AND k.conkey = ARRAY[a.attnum] ORDER BY k.oid LIMIT 1)
  FROM pg_attribute AS a
  JOIN pg_class AS c ON c.oid = a.attrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_type AS t ON t.oid = a.atttypid
 WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
   AND c.relkind IN ('r', 'p') AND n.nspname !~ '^(pg_|information_schema$|harness_)'
 ORDER BY n.nspname, c.relname, a.attnum;

-- name: keys
-- The primary key's only column of each table.
SELECT n.nspname::text, c.relname::text, a.attname::text, format_type(a.atttypid, NULL)
  FROM pg_index AS i
  JOIN pg_class AS c ON c.oid = i.indrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
 WHERE i.indisprimary AND i.indnatts = 1 AND n.nspname !~ '^(pg_|information_schema$|harness_)';

-- name: authenticated
-- The role that an API's users have, where it is there.
SELECT 1 FROM pg_roles WHERE rolname = 'authenticated'
