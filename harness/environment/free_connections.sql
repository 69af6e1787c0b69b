-- How many more clients may connect, and how many may in all.
SELECT current_setting('max_connections')::int
       - current_setting('superuser_reserved_connections')::int
       - (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend') AS free,
       current_setting('max_connections')::int AS most
