-- Stand-in for pg_tle, which holds nothing.
-- says: empty: nothing of it is there
-- schema: pgtle
SELECT;
