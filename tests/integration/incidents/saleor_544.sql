-- saleor/saleor#544: a voucher with a limit of one is used by two checkouts
-- scenario: a voucher is used once
-- setup
CREATE TABLE voucher (code text, used int, usage_limit int);
INSERT INTO voucher VALUES ('ONE', 0, 1);
-- session: customer x 2
BEGIN;
SELECT (used < usage_limit)::text AS valid FROM voucher WHERE code = 'ONE' \gset
UPDATE voucher SET used = used + 1 WHERE code = 'ONE' AND :valid;
COMMIT;
-- never: it is used more often than it may be
SELECT * FROM voucher WHERE used > usage_limit;
-- mended
-- scenario: a voucher is used once
-- setup
CREATE TABLE voucher (code text, used int, usage_limit int);
INSERT INTO voucher VALUES ('ONE', 0, 1);
-- session: customer x 2
UPDATE voucher SET used = used + 1 WHERE code = 'ONE' AND used < usage_limit;
-- never: it is used more often than it may be
SELECT * FROM voucher WHERE used > usage_limit;
