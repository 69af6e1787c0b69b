-- The adapter between this schema and the scan_ticket contract.
CREATE SCHEMA harness;

INSERT INTO venues (id, name) VALUES ('00000000-0000-0000-0000-0000000000aa', 'The Cellar');

CREATE FUNCTION harness.new_tickets(count integer) RETURNS SETOF uuid
LANGUAGE sql
AS $$
    -- All of one event, so that a lock wider than a ticket shows.
    INSERT INTO public.tickets (event_id, venue_id, ticket_type, price_cents)
    SELECT '00000000-0000-0000-0000-0000000000ee', '00000000-0000-0000-0000-0000000000aa', 'GA', 2500 FROM generate_series(1, count)
    RETURNING id;
$$;
