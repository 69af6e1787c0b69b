-- The test data of the original load test: one event, fifteen named tickets (ten GA, five VIP) and the race ticket.

INSERT INTO events (id, name, starts_at)
VALUES ('00000000-0000-0000-0000-000000000001', 'Load test night', '2030-01-01 22:00:00+00');

INSERT INTO tickets (id, event_id, ticket_type)
SELECT ('00000000-0000-0000-0001-' || lpad(n::text, 12, '0'))::uuid,
       '00000000-0000-0000-0000-000000000001',
       CASE WHEN n <= 10 THEN 'GA' ELSE 'VIP' END
  FROM generate_series(1, 15) AS n;

INSERT INTO tickets (id, event_id, ticket_type)
VALUES ('00000000-0000-0000-0001-000000000099', '00000000-0000-0000-0000-000000000001', 'GA');
