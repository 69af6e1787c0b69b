-- name: others
-- Whoever else is connected to this database: what he did is counted when he is gone.
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid();

-- name: tables
SELECT relid::bigint FROM pg_stat_all_tables
 WHERE coalesce(seq_scan, 0) + coalesce(idx_scan, 0) + n_tup_ins + n_tup_upd + n_tup_del > 0
   AND schemaname !~ '^(pg_|information_schema$|harness_)';

-- name: functions
SELECT funcid::bigint FROM pg_stat_user_functions WHERE calls > 0 AND schemaname !~ '^harness_';

-- name: objects
-- Everything that a migration may have made and that has a name: its catalogue, identity, name, language and body.
SELECT 'pg_class', c.oid::bigint, c.relname::text, c.relkind::text, ''
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^(pg_|information_schema$|harness_)'
UNION ALL
SELECT 'pg_type', t.oid::bigint, t.typname::text, '', ''
  FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace
 WHERE n.nspname !~ '^(pg_|information_schema$|harness_)'
UNION ALL
SELECT 'pg_proc', p.oid::bigint, p.proname::text, l.lanname::text,
       CASE WHEN l.lanname IN ('c', 'internal') THEN '' ELSE coalesce(p.prosrc, '') END
  FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace JOIN pg_language AS l ON l.oid = p.prolang
 WHERE n.nspname !~ '^(pg_|information_schema$|harness_)';

-- name: leads
-- Which object leads to which, as the server keeps account of it: a table to the functions of its triggers, checks,
-- defaults, policies and rules, to its types and sequences and to whom it inherits from; a view, a function with a body
-- in SQL, an aggregate to what is in it. A foreign key leads nowhere: the other table is scanned, or it does not matter.
WITH part (class, id, of_class, of_id) AS (
    SELECT 'pg_rewrite'::regclass::oid, oid, 'pg_class'::regclass::oid, ev_class FROM pg_rewrite
    UNION ALL SELECT 'pg_policy'::regclass::oid, oid, 'pg_class'::regclass::oid, polrelid FROM pg_policy
    UNION ALL SELECT 'pg_trigger'::regclass::oid, oid, 'pg_class'::regclass::oid, tgrelid FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT 'pg_attrdef'::regclass::oid, oid, 'pg_class'::regclass::oid, adrelid FROM pg_attrdef
    UNION ALL SELECT 'pg_constraint'::regclass::oid, oid, 'pg_class'::regclass::oid, conrelid
                FROM pg_constraint WHERE conrelid <> 0 AND contype <> 'f'
    UNION ALL SELECT 'pg_constraint'::regclass::oid, oid, 'pg_type'::regclass::oid, contypid FROM pg_constraint WHERE contypid <> 0
    UNION ALL SELECT 'pg_class'::regclass::oid, indexrelid, 'pg_class'::regclass::oid, indrelid FROM pg_index
)
SELECT coalesce(p.of_class, d.classid)::regclass::text, coalesce(p.of_id, d.objid)::bigint,
       d.refclassid::regclass::text, d.refobjid::bigint
  FROM pg_depend AS d
  LEFT JOIN part AS p ON p.class = d.classid AND p.id = d.objid
 WHERE d.refobjid >= 16384
   AND (d.classid IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_type'::regclass) OR p.class IS NOT NULL)
   AND (d.refclassid IN ('pg_proc'::regclass, 'pg_type'::regclass)
        OR d.refclassid = 'pg_class'::regclass
           AND (d.classid IN ('pg_proc'::regclass, 'pg_rewrite'::regclass, 'pg_policy'::regclass)
                OR (SELECT relkind IN ('v', 'm', 'S') FROM pg_class WHERE oid = d.refobjid)))
UNION ALL
SELECT 'pg_class', inhrelid::bigint, 'pg_class', inhparent::bigint FROM pg_inherits
UNION ALL
SELECT 'pg_class', d.refobjid::bigint, 'pg_class', d.objid::bigint
  FROM pg_depend AS d JOIN pg_class AS s ON s.oid = d.objid AND s.relkind = 'S'
 WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
UNION ALL
SELECT 'pg_type', oid::bigint, 'pg_type', typelem::bigint FROM pg_type WHERE typelem >= 16384;

-- name: unnamed
-- Functions that are called without their names: those of operators, casts and operator classes.
SELECT DISTINCT refobjid::bigint FROM pg_depend
 WHERE refclassid = 'pg_proc'::regclass AND refobjid >= 16384
   AND classid IN ('pg_operator'::regclass, 'pg_cast'::regclass, 'pg_amproc'::regclass);
