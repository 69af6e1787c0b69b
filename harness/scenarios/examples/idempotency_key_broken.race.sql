-- scenario: a request that is sent twice is charged once
-- Neither request sees the other's row before it is committed.

-- setup
CREATE TABLE charges (id bigint GENERATED ALWAYS AS IDENTITY, key text NOT NULL, amount int NOT NULL);
CREATE FUNCTION charge(p_key text, p_amount int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM charges WHERE key = p_key) THEN
        RETURN 'seen before';
    END IF;
    INSERT INTO charges (key, amount) VALUES (p_key, p_amount);
    RETURN 'charged';
END $$;

-- session: request x 2
SELECT charge('order-17', 250);
