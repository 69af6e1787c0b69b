-- name: null_by_default
-- The parameters of a function that are NULL where a call leaves them out: for these it says what NULL means.
SELECT name
  FROM pg_catalog.pg_proc AS p,
       pg_catalog.unnest(p.proargnames) WITH ORDINALITY AS parameter (name, number)
 WHERE p.oid = %(routine)s
   AND NOT p.proisstrict
   AND pg_catalog.pg_get_function_arg_default(p.oid, number::integer) ~* '^null(::.*)?$';
