-- A project's own schema: more columns than the contract knows of, names of its own beside them.
CREATE TABLE venues (
    id   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL
);

CREATE TABLE tickets (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    event_id    uuid NOT NULL,
    venue_id    uuid NOT NULL REFERENCES venues (id),
    ticket_type text NOT NULL,
    price_cents integer NOT NULL CHECK (price_cents >= 0),
    status      text NOT NULL DEFAULT 'valid',
    is_used     boolean NOT NULL DEFAULT false,
    scanned_at  timestamptz,
    scanned_by  uuid,
    updated_at  timestamptz
);

CREATE TABLE scan_logs (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    ticket_id    uuid NOT NULL REFERENCES tickets (id),
    scanned_by   uuid,
    scanned_at   timestamptz NOT NULL DEFAULT now(),
    scan_method  text,
    device_id    text,
    scan_success boolean NOT NULL
);
