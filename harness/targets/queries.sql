-- name: call
-- The call as an application makes it; overlap.sql is the same between two readings of the server's clock.
SELECT {columns} FROM {call} AS g;

-- name: type_oids
SELECT t.name::regtype::oid FROM unnest(%s::text[]) WITH ORDINALITY AS t (name, place) ORDER BY t.place;

-- name: functions
-- Every function and procedure with the name asked for that the search path reaches: its parameters and its answer's columns, as
-- lines of "name type", and the parameters' type oids.
SELECT p.oid::regprocedure::text AS signature,
       n.nspname AS schema,
       p.provolatile::text AS volatility,
       p.prokind = 'p' AS procedure,
       coalesce(
           (SELECT array_agg(coalesce(nullif(p.proargnames[a.place], ''), '$' || a.place) || ' ' || format_type(a.type, NULL)
                             ORDER BY a.place)
              FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) WITH ORDINALITY AS a (type, place)
             WHERE coalesce(p.proargmodes[a.place]::text, 'i') IN ('i', 'b', 'v')),
           '{}') AS parameters,
       coalesce(
           (SELECT array_agg(p.proargnames[a.place] || ' ' || format_type(a.type, NULL) ORDER BY a.place)
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
   AND (n.nspname = %(schema)s OR (%(schema)s IS NULL AND n.nspname = ANY (current_schemas(false))))
   AND p.prokind IN ('f', 'p')
 ORDER BY p.oid;
