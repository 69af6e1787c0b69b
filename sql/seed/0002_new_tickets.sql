-- The adapter between this schema and the scan_ticket contract: fresh, scannable tickets, all of one event.

CREATE SCHEMA IF NOT EXISTS harness;

-- Ids as random as this needs, at a quarter of the cost of gen_random_uuid: a burst asks for tens of thousands.
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
