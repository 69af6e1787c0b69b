-- The tables of the gate: an event, its tickets, and one log row for every scan that was decided.

CREATE TABLE events (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name       text NOT NULL,
    starts_at  timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tickets (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    event_id    uuid NOT NULL REFERENCES events (id) ON DELETE CASCADE,
    ticket_type text NOT NULL CHECK (ticket_type IN ('GA', 'VIP')),
    status      text NOT NULL DEFAULT 'valid' CHECK (status IN ('valid', 'used', 'cancelled')),
    is_used     boolean NOT NULL DEFAULT false,
    scanned_at  timestamptz,
    scanned_by  uuid,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    -- A used ticket says when and by whom; an unused one cannot.
    CONSTRAINT tickets_used_is_whole CHECK (
        is_used = (status = 'used')
        AND is_used = (scanned_at IS NOT NULL)
        AND is_used = (scanned_by IS NOT NULL)
    )
);

CREATE INDEX tickets_event_id_idx ON tickets (event_id);

CREATE TABLE scan_logs (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ticket_id    uuid NOT NULL REFERENCES tickets (id) ON DELETE CASCADE,
    scanned_by   uuid NOT NULL,
    scanned_at   timestamptz NOT NULL DEFAULT now(),
    scan_method  text NOT NULL DEFAULT 'qr' CHECK (scan_method IN ('qr', 'manual', 'nfc')),
    device_id    text,
    scan_success boolean NOT NULL
);
