-- name: may_replace
-- The server's own functions are the bootstrap superuser's.
SELECT rolsuper FROM pg_roles WHERE rolname = current_user;

-- name: functions
-- Functions whose bodies are text, as they were created.
SELECT p.oid::regprocedure::text, p.prosrc, pg_get_functiondef(p.oid)
  FROM pg_proc AS p
  JOIN pg_namespace AS n ON n.oid = p.pronamespace
  JOIN pg_language AS l ON l.oid = p.prolang
 WHERE l.lanname IN ('sql', 'plpgsql') AND p.prokind IN ('f', 'p') AND p.prosrc <> ''
   AND p.prosrc ~* '\m(current_(date|time|timestamp)|localtime(stamp)?)\M'
   AND n.nspname !~ '^(pg_|information_schema$|harness_)';

-- name: defaults
SELECT format('%I.%I', n.nspname, c.relname), quote_ident(a.attname), pg_get_expr(d.adbin, d.adrelid)
  FROM pg_attrdef AS d
  JOIN pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum AND a.attgenerated = ''
  JOIN pg_class AS c ON c.oid = d.adrelid AND c.relkind IN ('r', 'p')
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE pg_get_expr(d.adbin, d.adrelid) ~* '\m(current_(date|time|timestamp)|localtime(stamp)?)\M'
   AND n.nspname !~ '^(pg_|information_schema$|harness_)';

-- name: left
-- What reads the clock by a keyword, and is not text that can be replaced.
SELECT what
  FROM (SELECT format('view %s', c.oid::regclass), pg_get_viewdef(c.oid), c.relnamespace
          FROM pg_class AS c WHERE c.relkind IN ('v', 'm')
        UNION ALL
        SELECT format('policy %s of %s', p.polname, p.polrelid::regclass),
               concat_ws(' ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)), c.relnamespace
          FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid
        UNION ALL
        SELECT format('check %s of %s', k.conname, k.conrelid::regclass), pg_get_constraintdef(k.oid), k.connamespace
          FROM pg_constraint AS k WHERE k.contype = 'c' AND k.conrelid <> 0
        UNION ALL
        SELECT format('trigger %s of %s', t.tgname, t.tgrelid::regclass), pg_get_triggerdef(t.oid), c.relnamespace
          FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal
        UNION ALL
        SELECT format('rule %s of %s', r.rulename, r.ev_class::regclass), pg_get_ruledef(r.oid), c.relnamespace
          FROM pg_rewrite AS r JOIN pg_class AS c ON c.oid = r.ev_class WHERE r.rulename <> '_RETURN') AS each (what, text, schema)
  JOIN pg_namespace AS n ON n.oid = each.schema
 WHERE n.nspname !~ '^(pg_|information_schema$|harness_)'
   AND text ~* '\m(current_(date|time|timestamp)|localtime(stamp)?)\M'
 ORDER BY what;

-- name: sql_bodies
-- Functions whose bodies are no text (BEGIN ATOMIC).
SELECT p.oid::regprocedure::text
  FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
 WHERE p.prosqlbody IS NOT NULL AND n.nspname !~ '^(pg_|information_schema$|harness_)'
   AND pg_get_function_sqlbody(p.oid) ~* '\m(current_(date|time|timestamp)|localtime(stamp)?)\M'
