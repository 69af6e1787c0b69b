-- Reads the stock, then writes what it worked out: two buyers who read the same stock both get the last piece.
CREATE OR REPLACE FUNCTION take_stock(p_item uuid, p_quantity integer, p_buyer uuid)
RETURNS TABLE (taken boolean, remaining integer, reason text)
LANGUAGE plpgsql
AS $$
DECLARE
    v_stock integer;
BEGIN
    SELECT stock INTO v_stock FROM items WHERE id = p_item;
    IF NOT FOUND THEN
        RETURN QUERY SELECT false, NULL::integer, 'no such item'::text;
    ELSIF v_stock < p_quantity THEN
        RETURN QUERY SELECT false, NULL::integer, 'sold out'::text;
    ELSE
        UPDATE items SET stock = v_stock - p_quantity WHERE id = p_item;
        INSERT INTO sales (item_id, buyer, quantity) VALUES (p_item, p_buyer, p_quantity);
        RETURN QUERY SELECT true, v_stock - p_quantity, NULL::text;
    END IF;
END;
$$;
