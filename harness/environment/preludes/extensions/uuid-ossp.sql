-- Stand-in for uuid-ossp: the same functions. A version 1 value holds the time and a random node, no machine's address.
CREATE FUNCTION uuid_nil() RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT '00000000-0000-0000-0000-000000000000'::uuid $$;
CREATE FUNCTION uuid_ns_dns() RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT '6ba7b810-9dad-11d1-80b4-00c04fd430c8'::uuid $$;
CREATE FUNCTION uuid_ns_url() RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT '6ba7b811-9dad-11d1-80b4-00c04fd430c8'::uuid $$;
CREATE FUNCTION uuid_ns_oid() RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT '6ba7b812-9dad-11d1-80b4-00c04fd430c8'::uuid $$;
CREATE FUNCTION uuid_ns_x500() RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT '6ba7b814-9dad-11d1-80b4-00c04fd430c8'::uuid $$;
CREATE FUNCTION uuid_generate_v4() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$ SELECT pg_catalog.gen_random_uuid() $$;
CREATE FUNCTION uuid_generate_v1() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT encode(
        substring(t.stamp FROM 5 FOR 4) || substring(t.stamp FROM 3 FOR 2)
        || set_byte(substring(t.stamp FROM 1 FOR 2), 0, get_byte(t.stamp, 0) & 15 | 16)
        || set_byte(substring(t.node FROM 1 FOR 2), 0, get_byte(t.node, 0) & 63 | 128)
        || set_byte(substring(t.node FROM 11 FOR 6), 0, get_byte(t.node, 10) | 1), 'hex')::uuid
      FROM (SELECT int8send((extract(epoch FROM clock_timestamp()) * 10000000)::bigint + 122192928000000000) AS stamp,
                   uuid_send(pg_catalog.gen_random_uuid()) AS node) AS t
$$;
CREATE FUNCTION uuid_generate_v1mc() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$ SELECT @extschema@.uuid_generate_v1() $$;
CREATE FUNCTION uuid_generate_v3(namespace uuid, name text) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT encode(set_byte(set_byte(h.hash, 6, get_byte(h.hash, 6) & 15 | 48), 8, get_byte(h.hash, 8) & 63 | 128), 'hex')::uuid
      FROM (SELECT decode(md5(uuid_send(namespace) || convert_to(name, 'UTF8')), 'hex') AS hash) AS h
$$;
CREATE FUNCTION uuid_ossp_sha1(data bytea) RETURNS bytea LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    c_mask CONSTANT bigint := 4294967295;
    h bigint[] := ARRAY[1732584193, 4023233417, 2562383102, 271733878, 3285377520];
    w bigint[];
    a bigint; b bigint; c bigint; d bigint; e bigint; f bigint; k bigint; t bigint;
    m bytea := data || '\x80'::bytea;
    v_block integer;
    i integer;
BEGIN
    m := m || decode(repeat('00', (120 - length(m) % 64) % 64), 'hex') || int8send(length(data)::bigint * 8);
    FOR v_block IN 0 .. length(m) / 64 - 1 LOOP
        FOR i IN 0 .. 15 LOOP
            w[i] := (get_byte(m, v_block * 64 + i * 4)::bigint << 24) | (get_byte(m, v_block * 64 + i * 4 + 1) << 16)
                | (get_byte(m, v_block * 64 + i * 4 + 2) << 8) | get_byte(m, v_block * 64 + i * 4 + 3);
        END LOOP;
        FOR i IN 16 .. 79 LOOP
            t := w[i - 3] # w[i - 8] # w[i - 14] # w[i - 16];
            w[i] := ((t << 1) | (t >> 31)) & c_mask;
        END LOOP;
        a := h[1]; b := h[2]; c := h[3]; d := h[4]; e := h[5];
        FOR i IN 0 .. 79 LOOP
            IF i < 20 THEN
                f := (b & c) | ((c_mask # b) & d); k := 1518500249;
            ELSIF i < 40 THEN
                f := b # c # d; k := 1859775393;
            ELSIF i < 60 THEN
                f := (b & c) | (b & d) | (c & d); k := 2400959708;
            ELSE
                f := b # c # d; k := 3395469782;
            END IF;
            t := ((((a << 5) | (a >> 27)) & c_mask) + f + e + k + w[i]) & c_mask;
            e := d; d := c; c := ((b << 30) | (b >> 2)) & c_mask; b := a; a := t;
        END LOOP;
        h[1] := (h[1] + a) & c_mask; h[2] := (h[2] + b) & c_mask; h[3] := (h[3] + c) & c_mask;
        h[4] := (h[4] + d) & c_mask; h[5] := (h[5] + e) & c_mask;
    END LOOP;
    RETURN substring(int8send(h[1]) FROM 5) || substring(int8send(h[2]) FROM 5) || substring(int8send(h[3]) FROM 5)
        || substring(int8send(h[4]) FROM 5) || substring(int8send(h[5]) FROM 5);
END;
$$;
CREATE FUNCTION uuid_generate_v5(namespace uuid, name text) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT encode(set_byte(set_byte(h.hash, 6, get_byte(h.hash, 6) & 15 | 80), 8, get_byte(h.hash, 8) & 63 | 128), 'hex')::uuid
      FROM (SELECT substring(@extschema@.uuid_ossp_sha1(uuid_send(namespace) || convert_to(name, 'UTF8')) FROM 1 FOR 16) AS hash) AS h
$$;
