-- calcom/cal.diy#13397: availability is looked up, then the booking is inserted
-- scenario: one booking for a slot
-- setup
CREATE TABLE booking (id serial, host int, slot timestamptz, guest text);
-- session: guest x 2
BEGIN;
SELECT (count(*) = 0)::text AS free FROM booking WHERE host = 1 AND slot = '2030-01-01' \gset
INSERT INTO booking (host, slot, guest) SELECT 1, '2030-01-01', :'session' WHERE :free;
COMMIT;
-- never: two have the slot
SELECT slot FROM booking GROUP BY host, slot HAVING count(*) > 1;
-- mended
-- scenario: one booking for a slot
-- setup
CREATE TABLE booking (id serial, host int, slot timestamptz, guest text, UNIQUE (host, slot));
-- session: guest x 2
INSERT INTO booking (host, slot, guest) VALUES (1, '2030-01-01', :'session') ON CONFLICT DO NOTHING;
-- never: two have the slot
SELECT slot FROM booking GROUP BY host, slot HAVING count(*) > 1;
