-- shopperlabs/shopper#510: the order is made before the discount is counted, which is not looked at
-- scenario: no order has a discount that is used up
-- setup
CREATE TABLE discount (used int, usage_limit int);
CREATE TABLE orders (customer text, discounted boolean);
INSERT INTO discount VALUES (0, 1);
-- session: customer x 2
BEGIN;
INSERT INTO orders SELECT :'session', used < usage_limit FROM discount;
UPDATE discount SET used = used + 1 WHERE used < usage_limit;
COMMIT;
-- never: more orders are discounted than may be
SELECT FROM orders HAVING count(*) FILTER (WHERE discounted) > 1;
-- mended
-- scenario: no order has a discount that is used up
-- setup
CREATE TABLE discount (used int, usage_limit int);
CREATE TABLE orders (customer text, discounted boolean);
INSERT INTO discount VALUES (0, 1);
-- session: customer x 2
WITH counted AS (UPDATE discount SET used = used + 1 WHERE used < usage_limit RETURNING used)
INSERT INTO orders SELECT :'session', EXISTS (SELECT FROM counted);
-- never: more orders are discounted than may be
SELECT FROM orders HAVING count(*) FILTER (WHERE discounted) > 1;
