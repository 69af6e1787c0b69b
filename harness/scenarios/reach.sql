-- name: functions
SELECT p.oid::bigint, n.nspname::text, p.proname::text, l.lanname::text,
       CASE WHEN l.lanname IN ('c', 'internal') THEN '' ELSE concat(p.prosrc, ' ', pg_get_function_sqlbody(p.oid)) END
  FROM pg_proc AS p
  JOIN pg_namespace AS n ON n.oid = p.pronamespace
  JOIN pg_language AS l ON l.oid = p.prolang
 WHERE n.nspname !~ '^(pg_|information_schema$|harness_)';

-- name: functions_13
-- The same for servers that have no SQL bodies.
SELECT p.oid::bigint, n.nspname::text, p.proname::text, l.lanname::text,
       CASE WHEN l.lanname IN ('c', 'internal') THEN '' ELSE p.prosrc END
  FROM pg_proc AS p
  JOIN pg_namespace AS n ON n.oid = p.pronamespace
  JOIN pg_language AS l ON l.oid = p.prolang
 WHERE n.nspname !~ '^(pg_|information_schema$|harness_)';

-- name: relations
-- Tables and views, with the texts that come with them: defaults, checks, policies, a view's query, rules.
SELECT n.nspname::text, c.relname::text, c.relkind::text,
       concat_ws(' ',
           CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
           (SELECT string_agg(pg_get_expr(d.adbin, d.adrelid), ' ') FROM pg_attrdef AS d WHERE d.adrelid = c.oid),
           (SELECT string_agg(pg_get_constraintdef(k.oid), ' ') FROM pg_constraint AS k
             WHERE k.conrelid = c.oid AND k.contype = 'c'),
           (SELECT string_agg(concat_ws(' ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)), ' ')
              FROM pg_policy AS p WHERE p.polrelid = c.oid),
           (SELECT string_agg(pg_get_ruledef(r.oid), ' ') FROM pg_rewrite AS r
             WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN')),
       ARRAY(SELECT t.tgfoid::bigint FROM pg_trigger AS t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
       ARRAY(SELECT ARRAY[fn.nspname::text, f.relname::text] FROM pg_constraint AS k
               JOIN pg_class AS f ON f.oid = k.conrelid JOIN pg_namespace AS fn ON fn.oid = f.relnamespace
              WHERE k.confrelid = c.oid AND k.contype = 'f'
                AND (k.confdeltype NOT IN ('a', 'r') OR k.confupdtype NOT IN ('a', 'r'))),
       ARRAY(SELECT ARRAY[cn.nspname::text, i.relname::text] FROM pg_inherits AS h
               JOIN pg_class AS i ON i.oid = h.inhrelid JOIN pg_namespace AS cn ON cn.oid = i.relnamespace
              WHERE h.inhparent = c.oid)
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^(pg_|information_schema$|harness_)';

-- name: sequence_columns
-- Which column takes its values from which sequence.
SELECT s.relname::text, sn.nspname::text, c.relname::text, a.attname::text
  FROM pg_depend AS d
  JOIN pg_class AS s ON s.oid = d.objid AND s.relkind = 'S' AND d.classid = 'pg_class'::regclass
  JOIN pg_namespace AS sn ON sn.oid = s.relnamespace
  JOIN pg_class AS c ON c.oid = d.refobjid
  JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
 WHERE d.deptype IN ('a', 'i') AND d.refobjsubid > 0
