-- name: analyze_operations
ANALYZE harness.operations (key, label);

-- name: call
-- The call as an application makes it; overlap.sql is the same between two readings of the server's clock.
SELECT {columns} FROM {call} AS g {names};

-- name: bare_call
-- What a function answers with, as its caller sees the columns.
SELECT * FROM {call} AS {names};

-- name: started
-- Before a call that cannot stand in overlap.sql's query: the clock, and who else was in progress.
SELECT clock_timestamp(), pg_current_snapshot();

-- name: ended
-- After such a call, in its transaction.
SELECT clock_timestamp(), pg_current_xact_id_if_assigned();

-- name: types
-- Types by oid: what a domain is made of, an array's elements, a composite type's attributes.
SELECT t.oid::bigint,
       format_type(t.oid, NULL),
       nullif(t.typbasetype, 0)::bigint AS base,
       CASE WHEN t.typcategory = 'A' AND t.typelem <> 0 THEN t.typelem::bigint END AS element,
       coalesce((SELECT json_agg(json_build_array(a.attname, a.atttypid::bigint) ORDER BY a.attnum)
                   FROM pg_attribute a
                  WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped), '[]') AS attributes
  FROM pg_type t
 WHERE t.oid = ANY (%s::bigint[]);

-- name: type_named
SELECT to_regtype(%s)::oid::bigint;

-- name: functions
-- Every function and procedure with the name asked for that the search path reaches, the schema that comes first in it before
-- the others: its parameters (name, mode, type's oid, type), and, as lines of "name type", those it takes and its answer's columns.
SELECT p.oid::bigint,
       p.oid::regprocedure::text AS signature,
       n.nspname AS schema,
       p.prokind = 'p' AS procedure,
       p.proretset AS set,
       (SELECT coalesce(json_agg(json_build_array(nullif(p.proargnames[a.place], ''),
                                                  coalesce(p.proargmodes[a.place]::text, 'i'),
                                                  a.type::bigint,
                                                  format_type(a.type, NULL)) ORDER BY a.place), '[]')
          FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) WITH ORDINALITY AS a (type, place)) AS arguments,
       p.pronargdefaults::integer AS defaults,
       format_type(p.prorettype, NULL) AS returns,
       coalesce(
           (SELECT array_agg(coalesce(p.proargnames[a.place], 'column' || a.place) || ' ' || format_type(a.type, NULL)
                             ORDER BY a.place)
              FROM unnest(p.proallargtypes) WITH ORDINALITY AS a (type, place)
             WHERE p.proargmodes[a.place]::text IN ('t', 'o', 'b')),
           (SELECT array_agg(c.attname || ' ' || format_type(c.atttypid, c.atttypmod) ORDER BY c.attnum)
              FROM pg_type t
              JOIN pg_attribute c ON c.attrelid = t.typrelid AND c.attnum > 0 AND NOT c.attisdropped
             WHERE t.oid = p.prorettype AND t.typtype = 'c'),
           ARRAY[p.proname || ' ' || format_type(p.prorettype, NULL)]) AS columns
  FROM pg_proc p
  JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE p.proname = %(name)s
   AND (n.nspname = %(schema)s OR (%(schema)s::text IS NULL AND n.nspname = ANY (current_schemas(false))))
   AND p.prokind IN ('f', 'p')
 ORDER BY array_position(current_schemas(false), n.nspname), p.oid;

-- name: unusual_settings
-- What the calls' transactions run with that is not as PostgreSQL has it by itself, and changes what they do.
SELECT name || ' = ' || setting || coalesce(' ' || unit, '')
  FROM pg_settings
 WHERE (name, setting) NOT IN (('transaction_isolation', 'read committed'), ('transaction_read_only', 'off'),
                               ('lock_timeout', '0'), ('statement_timeout', '0'), ('transaction_timeout', '0'),
                               ('session_replication_role', 'origin'), ('row_security', 'on'))
   AND name IN ('transaction_isolation', 'transaction_read_only', 'lock_timeout', 'statement_timeout',
                'transaction_timeout', 'session_replication_role', 'row_security')
 ORDER BY name;

-- name: conditions
-- For each answer its place, and whether each condition of the file is true of it.
SELECT answer.harness_place{conditions}
  FROM (VALUES {rows}) AS answer (harness_place{names})
 ORDER BY answer.harness_place;
