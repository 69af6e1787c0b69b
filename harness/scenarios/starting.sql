-- name: functions
-- Functions of a name, with their parameters: names, types, and whether each has a default.
SELECT n.nspname::text,
       p.proname::text,
       p.prokind::text,
       coalesce(p.proargnames[1:p.pronargs], ARRAY[]::text[]),
       ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) AS t),
       p.pronargdefaults,
       p.proretset OR p.prorettype = 'record'::regtype
           OR EXISTS (SELECT FROM pg_type AS r WHERE r.oid = p.prorettype AND r.typtype = 'c'),
       p.prorettype = 'trigger'::regtype,
       ARRAY(SELECT pg_get_triggerdef(t.oid) FROM pg_trigger AS t WHERE t.tgfoid = p.oid AND NOT t.tgisinternal
              ORDER BY t.oid)
  FROM pg_proc AS p
  JOIN pg_namespace AS n ON n.oid = p.pronamespace
 WHERE p.proname = %(name)s AND (%(schema)s::text IS NULL OR n.nspname = %(schema)s)
   AND n.nspname !~ '^(pg_|information_schema$)' AND p.prokind IN ('f', 'p')
 ORDER BY n.nspname, p.pronargs;

-- name: type_names
-- Types as the server spells them; NULL for one that is not there.
SELECT ARRAY(SELECT format_type(to_regtype(each), NULL) FROM unnest(%s::text[]) WITH ORDINALITY AS t (each, place)
              ORDER BY place);

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
;

-- name: shapes
-- Of every table: its columns (name, type, whether a check is about it, whether only the server gives it a value), its unique
-- keys, and what single columns refer to (column, schema, table, column).
SELECT n.nspname::text, c.relname::text,
       (SELECT json_agg(json_build_array(a.attname, format_type(a.atttypid, a.atttypmod),
                        EXISTS (SELECT FROM pg_constraint AS k
                                 WHERE k.conrelid = c.oid AND k.contype = 'c' AND a.attnum = ANY (k.conkey)),
                        a.attidentity = 'a', pg_get_serial_sequence(c.oid::regclass::text, a.attname)) ORDER BY a.attnum)
          FROM pg_attribute AS a
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
       (SELECT json_agg(ARRAY(SELECT a.attname::text
                                FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (number, place)
                                JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.number
                               WHERE k.place <= i.indnkeyatts ORDER BY k.place) ORDER BY NOT i.indisprimary)
          FROM pg_index AS i
         WHERE i.indrelid = c.oid AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL),
       (SELECT json_agg(json_build_array(a.attname, fn.nspname, f.relname, fa.attname))
          FROM pg_constraint AS k
          JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
          JOIN pg_class AS f ON f.oid = k.confrelid
          JOIN pg_namespace AS fn ON fn.oid = f.relnamespace
          JOIN pg_attribute AS fa ON fa.attrelid = k.confrelid AND fa.attnum = k.confkey[1]
         WHERE k.conrelid = c.oid AND k.contype = 'f' AND cardinality(k.conkey) = 1)
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname !~ '^(pg_|information_schema$|harness_)'
 ORDER BY n.nspname = 'public' DESC, n.nspname, c.relname;

-- name: bodies
-- The functions of a project: name, language, names of their parameters, and the body, as text or as a whole definition.
SELECT p.proname::text, l.lanname::text, coalesce(p.proargnames, ARRAY[]::text[]), p.prosrc,
       CASE WHEN l.lanname = 'plpgsql' THEN pg_get_functiondef(p.oid) END
  FROM pg_proc AS p
  JOIN pg_namespace AS n ON n.oid = p.pronamespace
  JOIN pg_language AS l ON l.oid = p.prolang
 WHERE n.nspname !~ '^(pg_|information_schema$|harness_)' AND p.prokind IN ('f', 'p');

-- name: time_zones
SELECT name FROM pg_timezone_names WHERE name LIKE '%/%';

-- name: words
-- Text in which a word may stand that the schema itself knows: bodies, checks, defaults, policies, enums.
SELECT p.prosrc FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
 WHERE n.nspname !~ '^(pg_|information_schema$)'
UNION ALL
SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c'
UNION ALL
SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef
UNION ALL
SELECT concat_ws(' ', pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) FROM pg_policy
UNION ALL
SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indpred IS NOT NULL OR indexprs IS NOT NULL
UNION ALL
SELECT '''' || enumlabel || '''' FROM pg_enum
UNION ALL
SELECT quote_literal(rolname) FROM pg_roles
UNION ALL
SELECT quote_literal(nspname) FROM pg_namespace
UNION ALL
SELECT quote_literal(cfgname) FROM pg_ts_config
UNION ALL
SELECT quote_literal(c.relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname !~ '^(pg_|information_schema$)'
