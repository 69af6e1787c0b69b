-- name: may_replace
-- The server's own functions are the bootstrap superuser's.
SELECT rolsuper FROM pg_roles WHERE rolname = current_user;

-- name: functions
-- The body, where it is text, and the definition, with the defaults of parameters.
SELECT body, definition
  FROM (SELECT CASE WHEN l.lanname IN ('sql', 'plpgsql') THEN p.prosrc ELSE '' END,
               CASE WHEN p.prokind IN ('f', 'p') THEN pg_get_functiondef(p.oid) END
          FROM pg_proc AS p
          JOIN pg_namespace AS n ON n.oid = p.pronamespace
          JOIN pg_language AS l ON l.oid = p.prolang
         WHERE n.nspname !~ '^(pg_|information_schema$|harness_)') AS each (body, definition)
 WHERE definition ~* '\m(current_(date|time|timestamp)|localtime(stamp)?)\M|''(now|today|tomorrow|yesterday)''';

-- name: others
-- Statements that define again, as it is, what reads the clock by a keyword.
SELECT definition
  FROM (SELECT format('ALTER TABLE ONLY %s ALTER COLUMN %I SET DEFAULT %s',
                      d.adrelid::regclass, a.attname, pg_get_expr(d.adbin, d.adrelid)), c.relnamespace
          FROM pg_attrdef AS d
          JOIN pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum AND a.attgenerated = ''
          JOIN pg_class AS c ON c.oid = d.adrelid AND c.relkind IN ('r', 'p')
        UNION ALL
        SELECT format('ALTER DOMAIN %s SET DEFAULT %s', format_type(t.oid, NULL), t.typdefault), t.typnamespace
          FROM pg_type AS t WHERE t.typtype = 'd' AND t.typdefault IS NOT NULL
        UNION ALL
        SELECT format('ALTER POLICY %I ON %s', p.polname, p.polrelid::regclass)
               || coalesce(' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')', '')
               || coalesce(' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')', ''), c.relnamespace
          FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid
        UNION ALL
        SELECT format('CREATE OR REPLACE VIEW %s', c.oid::regclass)
               || coalesce(' WITH (' || array_to_string(c.reloptions, ', ') || ')', '')
               || format(' AS %s', pg_get_viewdef(c.oid)), c.relnamespace
          FROM pg_class AS c WHERE c.relkind = 'v') AS each (definition, schema)
  JOIN pg_namespace AS n ON n.oid = each.schema
 WHERE n.nspname !~ '^(pg_|information_schema$|harness_)'
   AND definition ~* '\m(current_(date|time|timestamp)|localtime(stamp)?)\M|''(now|today|tomorrow|yesterday)''';

-- name: left
-- What reads the clock by a keyword still.
SELECT what
  FROM (SELECT format('view %s', c.oid::regclass), pg_get_viewdef(c.oid), c.relnamespace
          FROM pg_class AS c WHERE c.relkind IN ('v', 'm')
        UNION ALL
        SELECT format('policy %s of %s', p.polname, p.polrelid::regclass),
               concat_ws(' ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)), c.relnamespace
          FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid
        UNION ALL
        SELECT format('default of %s', d.adrelid::regclass), pg_get_expr(d.adbin, d.adrelid), c.relnamespace
          FROM pg_attrdef AS d JOIN pg_class AS c ON c.oid = d.adrelid
        UNION ALL
        SELECT format('check %s of %s', k.conname, k.conrelid::regclass), pg_get_constraintdef(k.oid), k.connamespace
          FROM pg_constraint AS k WHERE k.contype = 'c' AND k.conrelid <> 0
        UNION ALL
        SELECT DISTINCT format('domain %s of %s', format_type(k.contypid, NULL), a.attrelid::regclass),
                        pg_get_constraintdef(k.oid), k.connamespace
          FROM pg_constraint AS k JOIN pg_attribute AS a ON a.atttypid = k.contypid WHERE k.contype = 'c'
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
