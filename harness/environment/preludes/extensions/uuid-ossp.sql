-- Stand-in for uuid-ossp: the same functions. A version 1 value holds the time and a random node, no machine's address.
-- sha1: uuid_ossp_sha1
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
CREATE FUNCTION uuid_generate_v5(namespace uuid, name text) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT encode(set_byte(set_byte(h.hash, 6, get_byte(h.hash, 6) & 15 | 80), 8, get_byte(h.hash, 8) & 63 | 128), 'hex')::uuid
      FROM (SELECT substring(@extschema@.uuid_ossp_sha1(uuid_send(namespace) || convert_to(name, 'UTF8')) FROM 1 FOR 16) AS hash) AS h
$$;
