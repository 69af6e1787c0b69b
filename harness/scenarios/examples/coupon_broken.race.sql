-- scenario: a coupon is used as often as it may be, and no more
-- The check and the UPDATE are two statements; between them somebody else redeems.

-- setup
CREATE TABLE coupons (code text PRIMARY KEY, uses_left int NOT NULL);
INSERT INTO coupons VALUES ('LAST', 1);
CREATE FUNCTION redeem(p_code text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT uses_left FROM coupons WHERE code = p_code) < 1 THEN
        RETURN 'used up';
    END IF;
    UPDATE coupons SET uses_left = uses_left - 1 WHERE code = p_code;
    RETURN 'redeemed';
END $$;

-- session: customer x 2
SELECT redeem('LAST');

-- never: a coupon is used more often than it may be
SELECT * FROM coupons WHERE uses_left < 0;
