-- What the rewriting has to know of a database, as one JSON value: functions, triggers, foreign keys, relations, and
-- what stands behind a relation (views for what they read, rules for what they write, partitioned and inherited tables
-- for their children, and back). A relation's name is given as the server quotes it, with its schema.

WITH users_own AS (
    SELECT n.oid, n.nspname
      FROM pg_namespace n
     WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'harness_schedules', 'pg_toast')
       AND n.nspname NOT LIKE 'pg_temp%' AND n.nspname NOT LIKE 'pg_toast_temp%'
), relations AS (
    SELECT c.oid, c.relname, n.nspname, c.relkind, format('%I.%I', n.nspname, c.relname) AS name
      FROM pg_class c
      JOIN users_own n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
), attached AS (
    -- What runs when a relation is written or read, beside its triggers: functions of constraints, defaults, policies,
    -- index expressions, rules and the conditions of triggers, and the sequences of its defaults.
    SELECT d.refclassid, d.refobjid,
           coalesce(k.conrelid, a.adrelid, o.polrelid, i.indrelid, r.ev_class, t.tgrelid) AS relation
      FROM pg_depend d
      LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
      LEFT JOIN pg_attrdef a ON d.classid = 'pg_attrdef'::regclass AND a.oid = d.objid
      LEFT JOIN pg_policy o ON d.classid = 'pg_policy'::regclass AND o.oid = d.objid
      LEFT JOIN pg_index i ON d.classid = 'pg_class'::regclass AND i.indexrelid = d.objid
      LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
      LEFT JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid AND t.tgfoid <> d.refobjid
     WHERE d.refclassid IN ('pg_proc'::regclass, 'pg_class'::regclass)
)
SELECT json_build_object(
    'functions', (
        SELECT coalesce(json_agg(json_build_object(
                   'oid', p.oid::bigint,
                   'name', p.proname,
                   'label', p.oid::regprocedure::text,
                   'language', l.lanname,
                   'volatile', p.provolatile = 'v',
                   'procedure', p.prokind = 'p',
                   'of_row', p.pronargs = 1 AND (SELECT typtype IN ('c', 'p') FROM pg_type t WHERE t.oid = p.proargtypes[0]),
                   'body', p.prosrc,
                   'definition', pg_get_functiondef(p.oid)) ORDER BY p.oid), '[]')
          FROM pg_proc p
          JOIN pg_language l ON l.oid = p.prolang
         WHERE p.pronamespace IN (SELECT oid FROM users_own) AND p.prokind IN ('f', 'p')),
    'triggers', (
        SELECT coalesce(json_agg(json_build_array(c.name, t.tgfoid::bigint, t.tgdeferrable)), '[]')
          FROM pg_trigger t
          JOIN relations c ON c.oid = t.tgrelid
         WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'),
    'event_triggers', (SELECT coalesce(json_agg(evtfoid::bigint), '[]') FROM pg_event_trigger WHERE evtenabled <> 'D'),
    'foreign_keys', (
        SELECT coalesce(json_agg(json_build_array(
                   child.name,
                   (SELECT json_agg(attname) FROM pg_attribute WHERE attrelid = k.conrelid AND attnum = ANY (k.conkey)),
                   parent.name,
                   (SELECT json_agg(attname) FROM pg_attribute WHERE attrelid = k.confrelid AND attnum = ANY (k.confkey)),
                   CASE WHEN k.confdeltype = 'c' THEN 'delete' WHEN k.confdeltype IN ('n', 'd') THEN 'update' END,
                   CASE WHEN k.confupdtype IN ('c', 'n', 'd') THEN 'update' END
               )), '[]')
          FROM pg_constraint k
          JOIN relations child ON child.oid = k.conrelid
          JOIN relations parent ON parent.oid = k.confrelid
         WHERE k.contype = 'f'),
    'deferrable', (
        SELECT coalesce(json_agg(json_build_array(child.name, parent.name)), '[]')
          FROM pg_constraint k
          JOIN relations child ON child.oid = k.conrelid
          LEFT JOIN relations parent ON parent.oid = k.confrelid
         WHERE k.condeferrable AND k.contype <> 't'),
    'relations', (
        SELECT coalesce(json_agg(json_build_array(oid::bigint, nspname, relname, name, relkind)), '[]') FROM relations),
    'indexes', (
        SELECT coalesce(json_agg(json_build_array(i.indexrelid::bigint, i.indrelid::bigint)), '[]')
          FROM pg_index i
          JOIN relations c ON c.oid = i.indrelid),
    'unique_keys', (
        SELECT coalesce(json_agg(json_build_array(c.name, (
                   SELECT json_agg(a.attname) FROM pg_attribute a
                    WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[: i.indnkeyatts - 1])))), '[]')
          FROM pg_index i
          JOIN relations c ON c.oid = i.indrelid
         WHERE i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL),
    'attached_functions', (
        SELECT coalesce(json_agg(DISTINCT jsonb_build_array(c.name, a.refobjid::bigint)), '[]')
          FROM attached a
          JOIN relations c ON c.oid = a.relation
         WHERE a.refclassid = 'pg_proc'::regclass),
    -- Tables whose policies look at other tables.
    'looking_policies', (
        SELECT coalesce(json_agg(DISTINCT c.name), '[]')
          FROM pg_policy o
          JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = o.oid
                          AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> o.polrelid
          JOIN relations c ON c.oid = o.polrelid),
    -- Functions that are called by what a text does not name as a function: an operator, a cast, a type, an aggregate, a
    -- domain's constraint, an operator class.
    'called_anywhere', (
        SELECT coalesce(json_agg(DISTINCT d.refobjid::bigint), '[]')
          FROM pg_depend d
          LEFT JOIN pg_proc caller ON d.classid = 'pg_proc'::regclass AND caller.oid = d.objid
          LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
         WHERE d.refclassid = 'pg_proc'::regclass
           AND CASE WHEN d.classid = 'pg_proc'::regclass THEN caller.prokind NOT IN ('f', 'p')
                    WHEN d.classid = 'pg_constraint'::regclass THEN k.conrelid = 0
                    ELSE d.classid NOT IN (
                        'pg_trigger'::regclass, 'pg_attrdef'::regclass, 'pg_policy'::regclass, 'pg_class'::regclass,
                        'pg_rewrite'::regclass, 'pg_event_trigger'::regclass) END),
    'function_calls', (
        SELECT coalesce(json_agg(DISTINCT jsonb_build_array(objid::bigint, refobjid::bigint)), '[]')
          FROM pg_depend
         WHERE classid = 'pg_proc'::regclass AND refclassid = 'pg_proc'::regclass),
    'attached_sequences', (
        SELECT coalesce(json_agg(DISTINCT jsonb_build_array(named, sequence)), '[]')
          FROM (
            SELECT c.name AS named, s.name AS sequence
              FROM attached a
              JOIN relations c ON c.oid = a.relation
              JOIN relations s ON s.oid = a.refobjid AND s.relkind = 'S'
             WHERE a.refclassid = 'pg_class'::regclass
            UNION
            SELECT c.name, s.name  -- identity columns
              FROM pg_depend d
              JOIN relations s ON s.oid = d.objid AND s.relkind = 'S'
              JOIN relations c ON c.oid = d.refobjid
             WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('i', 'a')
          ) AS pairs),
    'stand_ins', (
        SELECT coalesce(json_agg(json_build_array(named, meant)), '[]')
          FROM (
            SELECT view.name AS named, base.name AS meant
              FROM pg_rewrite r
              JOIN relations view ON view.oid = r.ev_class
              JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                              AND d.refclassid = 'pg_class'::regclass
              JOIN relations base ON base.oid = d.refobjid AND base.oid <> view.oid
            UNION
            SELECT parent.name, child.name
              FROM pg_inherits i
              JOIN relations parent ON parent.oid = i.inhparent
              JOIN relations child ON child.oid = i.inhrelid
            UNION
            SELECT child.name, parent.name
              FROM pg_inherits i
              JOIN relations parent ON parent.oid = i.inhparent
              JOIN relations child ON child.oid = i.inhrelid
          ) AS pairs)
)::text;
