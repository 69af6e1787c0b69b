-- Stand-in for pgjwt: HS256, HS384 and HS512, with a key as text.
-- requires: pgcrypto
CREATE FUNCTION url_encode(data bytea) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT translate(encode(data, 'base64'), E'+/=\n', '-_')
$$;
CREATE FUNCTION url_decode(data text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT decode(rpad(translate(data, '-_', '+/'), (length(data) + 3) / 4 * 4, '='), 'base64')
$$;
CREATE FUNCTION algorithm_sign(signables text, secret text, algorithm text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT @extschema@.url_encode(@extschema@.hmac(signables, secret, 'sha' || substring(algorithm FROM 3)))
$$;
CREATE FUNCTION sign(payload json, secret text, algorithm text DEFAULT 'HS256') RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT s.signables || '.' || @extschema@.algorithm_sign(s.signables, secret, algorithm)
      FROM (SELECT @extschema@.url_encode(convert_to('{"alg":"' || algorithm || '","typ":"JWT"}', 'UTF8')) || '.'
                || @extschema@.url_encode(convert_to(payload::text, 'UTF8')) AS signables) AS s
$$;
CREATE FUNCTION verify(token text, secret text, algorithm text DEFAULT 'HS256')
RETURNS TABLE (header json, payload json, valid boolean) LANGUAGE sql IMMUTABLE AS $$
    SELECT convert_from(@extschema@.url_decode(r[1]), 'UTF8')::json, convert_from(@extschema@.url_decode(r[2]), 'UTF8')::json,
           r[3] = @extschema@.algorithm_sign(r[1] || '.' || r[2], secret, algorithm)
      FROM regexp_split_to_array(token, '[.]') AS r
$$;
