-- scenario: a customer's two accounts together are never below zero
-- At serializable one of the two is told so, and is tried again.

-- setup
CREATE TABLE checking (customer text PRIMARY KEY, balance int NOT NULL);
CREATE TABLE savings (customer text PRIMARY KEY, balance int NOT NULL);
INSERT INTO checking VALUES ('ann', 50);
INSERT INTO savings VALUES ('ann', 50);


-- isolation: serializable
-- retry: 40001 up to 10

-- session: card
UPDATE checking SET balance = balance - 80
 WHERE customer = 'ann' AND balance + (SELECT balance FROM savings WHERE customer = 'ann') >= 80;

-- session: counter
UPDATE savings SET balance = balance - 80
 WHERE customer = 'ann' AND balance + (SELECT balance FROM checking WHERE customer = 'ann') >= 80;

-- never: the two together are below zero
SELECT * FROM checking JOIN savings USING (customer) WHERE checking.balance + savings.balance < 0;
