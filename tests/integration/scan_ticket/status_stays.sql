-- Lets people in, and leaves the ticket's status as it was.

ALTER TABLE tickets DROP CONSTRAINT tickets_used_is_whole;

CREATE FUNCTION status_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.status := OLD.status;
    RETURN NEW;
END $$;

CREATE TRIGGER status_stays BEFORE UPDATE ON tickets FOR EACH ROW EXECUTE FUNCTION status_stays();
