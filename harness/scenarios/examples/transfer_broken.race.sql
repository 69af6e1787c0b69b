-- scenario: money that is sent arrives, and nobody sends what they do not have
-- A balance that was read before is written back, and two rows are locked in any order.

-- setup
CREATE TABLE wallets (owner text PRIMARY KEY, balance int NOT NULL);
INSERT INTO wallets VALUES ('ann', 100), ('ben', 100);
CREATE FUNCTION send(p_from text, p_to text, p_amount int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    has int;
BEGIN
    SELECT balance INTO has FROM wallets WHERE owner = p_from;
    IF has < p_amount THEN
        RETURN 'not enough';
    END IF;
    UPDATE wallets SET balance = has - p_amount WHERE owner = p_from;
    UPDATE wallets SET balance = balance + p_amount WHERE owner = p_to;
    RETURN 'sent';
END $$;

-- session: ann
SELECT send('ann', 'ben', 80);

-- session: ben
SELECT send('ben', 'ann', 30);

-- always: no money comes or goes
SELECT sum(balance) = 200 FROM wallets;
