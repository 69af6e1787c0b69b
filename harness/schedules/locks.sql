-- A part of measured(): the locks that this backend holds on relations and on advisory keys other than the gates.
(SELECT pg_catalog.string_agg(
            CASE WHEN held.relation IS NULL
                 THEN pg_catalog.concat_ws(':', 'advisory', held.classid, held.objid, held.objsubid, held.mode)
                 ELSE pg_catalog.concat_ws(':', held.relation, held.mode) END, ' ')
   FROM pg_catalog.pg_lock_status() AS held
  WHERE held.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
    AND (held.relation OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
         OR (held.locktype OPERATOR(pg_catalog.=) 'advisory'
             AND held.classid OPERATOR(pg_catalog.<>) {space}::pg_catalog.oid)))
