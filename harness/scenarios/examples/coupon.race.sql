-- scenario: a coupon is used as often as it may be, and no more
-- The check stands in the UPDATE's own WHERE.

-- setup
CREATE TABLE coupons (code text PRIMARY KEY, uses_left int NOT NULL);
INSERT INTO coupons VALUES ('LAST', 1);
CREATE FUNCTION redeem(p_code text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    UPDATE coupons SET uses_left = uses_left - 1 WHERE code = p_code AND uses_left > 0;
    RETURN CASE WHEN FOUND THEN 'redeemed' ELSE 'used up' END;
END $$;

-- session: customer x 2
SELECT redeem('LAST');

-- never: a coupon is used more often than it may be
SELECT * FROM coupons WHERE uses_left < 0;
