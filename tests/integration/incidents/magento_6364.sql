-- magento/magento2#6364: a cart rule with one use per coupon is applied by two orders placed at once
-- scenario: one order has the rule
-- setup
CREATE TABLE rule (id int, uses_per_coupon int);
CREATE TABLE usage (rule int, customer text);
INSERT INTO rule VALUES (1, 1);
-- session: customer x 2
INSERT INTO usage SELECT id, :'session' FROM rule
 WHERE uses_per_coupon > (SELECT count(*) FROM usage WHERE rule = 1);
-- never: it is used twice
SELECT rule FROM usage GROUP BY rule HAVING count(*) > 1;
-- mended
-- scenario: one order has the rule
-- setup
CREATE TABLE rule (id int, uses_per_coupon int);
CREATE TABLE usage (rule int, customer text);
INSERT INTO rule VALUES (1, 1);
-- session: customer x 2
BEGIN;
SELECT uses_per_coupon FROM rule WHERE id = 1 FOR UPDATE;
INSERT INTO usage SELECT id, :'session' FROM rule
 WHERE uses_per_coupon > (SELECT count(*) FROM usage WHERE rule = 1);
COMMIT;
-- never: it is used twice
SELECT rule FROM usage GROUP BY rule HAVING count(*) > 1;
