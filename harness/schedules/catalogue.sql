-- What the rewriting has to know of a database, as one JSON value: functions, triggers, foreign keys, and the relations
-- that stand for others (views for what they read, partitioned and inherited tables for their children, and back).

WITH users_own AS (
    SELECT n.oid
      FROM pg_namespace n
     WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'harness_schedules')
)
SELECT json_build_object(
    'functions', (
        SELECT coalesce(json_agg(json_build_object(
                   'oid', p.oid::bigint,
                   'name', p.proname,
                   'label', p.oid::regprocedure::text,
                   'language', l.lanname,
                   'volatile', p.provolatile = 'v',
                   'body', p.prosrc,
                   'definition', pg_get_functiondef(p.oid)) ORDER BY p.oid), '[]')
          FROM pg_proc p
          JOIN pg_language l ON l.oid = p.prolang
         WHERE p.pronamespace IN (SELECT oid FROM users_own) AND p.prokind IN ('f', 'p')),
    'triggers', (
        SELECT coalesce(json_agg(json_build_array(c.relname, t.tgfoid::bigint)), '[]')
          FROM pg_trigger t
          JOIN pg_class c ON c.oid = t.tgrelid
         WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'),
    'foreign_keys', (
        SELECT coalesce(json_agg(json_build_array(
                   child.relname,
                   (SELECT json_agg(attname) FROM pg_attribute WHERE attrelid = k.conrelid AND attnum = ANY (k.conkey)),
                   parent.relname,
                   (SELECT json_agg(attname) FROM pg_attribute WHERE attrelid = k.confrelid AND attnum = ANY (k.confkey))
               )), '[]')
          FROM pg_constraint k
          JOIN pg_class child ON child.oid = k.conrelid
          JOIN pg_class parent ON parent.oid = k.confrelid
         WHERE k.contype = 'f'),
    'deferred', EXISTS (SELECT FROM pg_constraint WHERE condeferrable)
             OR EXISTS (SELECT FROM pg_trigger WHERE NOT tgisinternal AND tgdeferrable),
    'stand_ins', (
        SELECT coalesce(json_agg(json_build_array(named, meant)), '[]')
          FROM (
            SELECT view.relname AS named, base.relname AS meant
              FROM pg_rewrite r
              JOIN pg_class view ON view.oid = r.ev_class AND view.relnamespace IN (SELECT oid FROM users_own)
              JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                              AND d.refclassid = 'pg_class'::regclass
              JOIN pg_class base ON base.oid = d.refobjid AND base.oid <> view.oid
            UNION
            SELECT parent.relname, child.relname
              FROM pg_inherits i
              JOIN pg_class parent ON parent.oid = i.inhparent AND parent.relkind IN ('r', 'p')
              JOIN pg_class child ON child.oid = i.inhrelid
            UNION
            SELECT child.relname, parent.relname
              FROM pg_inherits i
              JOIN pg_class parent ON parent.oid = i.inhparent AND parent.relkind IN ('r', 'p')
              JOIN pg_class child ON child.oid = i.inhrelid
          ) AS pairs)
)::text;
