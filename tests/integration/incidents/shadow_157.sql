-- buggyblues/shadow#157: two purchases read one balance and write back the same
-- scenario: each purchase is paid for
-- setup
CREATE TABLE wallet (id int, balance int);
INSERT INTO wallet VALUES (1, 100);
-- session: purchase x 2
BEGIN;
SELECT balance AS had FROM wallet WHERE id = 1 \gset
UPDATE wallet SET balance = :had - 30 WHERE id = 1;
COMMIT;
-- mended
-- scenario: each purchase is paid for
-- setup
CREATE TABLE wallet (id int, balance int);
INSERT INTO wallet VALUES (1, 100);
-- session: purchase x 2
UPDATE wallet SET balance = balance - 30 WHERE id = 1 AND balance >= 30 RETURNING balance;
