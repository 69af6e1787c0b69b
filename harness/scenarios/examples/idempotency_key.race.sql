-- scenario: a request that is sent twice is charged once
-- A unique key decides, and the second waits for the first.

-- setup
CREATE TABLE charges (id bigint GENERATED ALWAYS AS IDENTITY, key text NOT NULL, amount int NOT NULL);
ALTER TABLE charges ADD UNIQUE (key);
CREATE FUNCTION charge(p_key text, p_amount int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO charges (key, amount) VALUES (p_key, p_amount) ON CONFLICT (key) DO NOTHING;
    RETURN CASE WHEN FOUND THEN 'charged' ELSE 'seen before' END;
END $$;

-- session: request x 2
SELECT charge('order-17', 250);
