-- scenario: what is sold is taken from the stock
-- The application reads, computes and writes back: one of two sales is lost.

-- setup
CREATE TABLE stock (item text PRIMARY KEY, n int NOT NULL);
INSERT INTO stock VALUES ('lamp', 10);


-- session: shop
BEGIN;
SELECT n AS had FROM stock WHERE item = 'lamp' \gset
UPDATE stock SET n = :had - 3 WHERE item = 'lamp';
COMMIT;

-- session: website
BEGIN;
SELECT n AS had FROM stock WHERE item = 'lamp' \gset
UPDATE stock SET n = :had - 2 WHERE item = 'lamp';
COMMIT;
