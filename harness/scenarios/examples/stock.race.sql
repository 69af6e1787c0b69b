-- scenario: what is sold is taken from the stock
-- The database computes from the row that it changes.

-- setup
CREATE TABLE stock (item text PRIMARY KEY, n int NOT NULL);
INSERT INTO stock VALUES ('lamp', 10);


-- session: shop
UPDATE stock SET n = n - 3 WHERE item = 'lamp' AND n >= 3;

-- session: website
UPDATE stock SET n = n - 2 WHERE item = 'lamp' AND n >= 2;
