-- Taking is one guarded statement: the row lock queues the buyers, the guard looks at what the one before left.
CREATE FUNCTION take_stock(p_item uuid, p_quantity integer, p_buyer uuid)
RETURNS TABLE (taken boolean, remaining integer, reason text)
LANGUAGE plpgsql
AS $$
DECLARE
    v_left integer;
BEGIN
    UPDATE items SET stock = stock - p_quantity WHERE id = p_item AND stock >= p_quantity RETURNING stock INTO v_left;
    IF FOUND THEN
        INSERT INTO sales (item_id, buyer, quantity) VALUES (p_item, p_buyer, p_quantity);
        RETURN QUERY SELECT true, v_left, NULL::text;
    ELSIF EXISTS (SELECT FROM items WHERE id = p_item) THEN
        RETURN QUERY SELECT false, NULL::integer, 'sold out'::text;
    ELSE
        RETURN QUERY SELECT false, NULL::integer, 'no such item'::text;
    END IF;
END;
$$;
