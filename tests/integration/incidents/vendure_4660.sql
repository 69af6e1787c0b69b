-- vendurehq/vendure#4660: usage is counted from completed orders, and checkouts complete together
-- scenario: a coupon is on one completed order
-- setup
CREATE TABLE orders (id int PRIMARY KEY, coupon text, active boolean);
CREATE TABLE promotion (coupon text PRIMARY KEY);
INSERT INTO promotion VALUES ('C');
INSERT INTO orders VALUES (1, 'C', true), (2, 'C', true);
-- session: checkout x 2
UPDATE orders SET active = false WHERE id = :number
   AND NOT EXISTS (SELECT FROM orders WHERE coupon = 'C' AND NOT active);
-- mended
-- scenario: a coupon is on one completed order
-- setup
CREATE TABLE orders (id int PRIMARY KEY, coupon text, active boolean);
CREATE TABLE promotion (coupon text PRIMARY KEY);
INSERT INTO promotion VALUES ('C');
INSERT INTO orders VALUES (1, 'C', true), (2, 'C', true);
-- session: checkout x 2
BEGIN;
SELECT coupon FROM promotion WHERE coupon = 'C' FOR UPDATE;
UPDATE orders SET active = false WHERE id = :number
   AND NOT EXISTS (SELECT FROM orders WHERE coupon = 'C' AND NOT active);
COMMIT;
