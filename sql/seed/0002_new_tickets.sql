-- The adapter between this schema and the scan_ticket contract: fresh, scannable tickets, all of one event.

CREATE SCHEMA IF NOT EXISTS harness;

-- The ids are as random as gen_random_uuid's for this purpose, in a quarter of the time: a burst asks for ten thousands.
CREATE FUNCTION harness.new_tickets(count integer) RETURNS SETOF uuid
LANGUAGE sql
AS $$
    INSERT INTO public.tickets (id, event_id, ticket_type)
    SELECT md5(n || '/' || random())::uuid,
           '00000000-0000-0000-0000-000000000001',
           CASE WHEN n % 5 = 0 THEN 'VIP' ELSE 'GA' END
      FROM generate_series(1, count) AS n
    RETURNING id;
$$;
