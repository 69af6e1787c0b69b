-- Fresh items with five pieces each.
CREATE SCHEMA harness;

CREATE FUNCTION harness.new_items(count integer) RETURNS SETOF uuid
LANGUAGE sql
AS $$
    INSERT INTO public.items (stock) SELECT 5 FROM generate_series(1, count) RETURNING id;
$$;
