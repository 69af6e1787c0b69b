-- Stand-in for pg_hashids: reversible, and not the ids of the real one.
-- says: ids are not those of the real one
CREATE FUNCTION id_encode(number bigint, salt text DEFAULT '', min_length integer DEFAULT 0, alphabet text DEFAULT '') RETURNS text
LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT lpad(to_hex(number), min_length, '0') $$;
CREATE FUNCTION id_decode_once(id text, salt text DEFAULT '', min_length integer DEFAULT 0, alphabet text DEFAULT '') RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT ('x' || lpad(id, 16, '0'))::bit(64)::bigint $$;
CREATE FUNCTION id_decode(id text, salt text DEFAULT '', min_length integer DEFAULT 0, alphabet text DEFAULT '') RETURNS bigint[]
LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT ARRAY[@extschema@.id_decode_once(id)] $$;
