-- Stand-in for pgcrypto. Digests and HMACs are the real ones; crypt, gen_salt and the encryption functions keep their
-- promises towards each other (what crypt wrote, crypt accepts; what was encrypted is decrypted) and are not compatible
-- with values from anywhere else: each begins with the word stand-in, and protects nothing.
-- says: digest and hmac are as real ones; a value of crypt, gen_salt or encrypt begins with "stand-in" and protects nothing
-- sha1: pgcrypto_sha1
CREATE FUNCTION digest(data bytea, type text) RETURNS bytea LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    CASE lower(type)
        WHEN 'md5' THEN RETURN decode(md5(data), 'hex');
        WHEN 'sha1' THEN RETURN @extschema@.pgcrypto_sha1(data);
        WHEN 'sha224' THEN RETURN sha224(data);
        WHEN 'sha256' THEN RETURN sha256(data);
        WHEN 'sha384' THEN RETURN sha384(data);
        WHEN 'sha512' THEN RETURN sha512(data);
        ELSE RAISE EXCEPTION 'Cannot use "%": No such hash algorithm', type USING ERRCODE = '22023';
    END CASE;
END;
$$;
CREATE FUNCTION digest(data text, type text) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT @extschema@.digest(convert_to(data, 'UTF8'), type)
$$;
CREATE FUNCTION hmac(data bytea, key bytea, type text) RETURNS bytea LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    v_size  CONSTANT integer := CASE WHEN lower(type) IN ('sha384', 'sha512') THEN 128 ELSE 64 END;
    v_key   bytea := CASE WHEN length(key) > v_size THEN @extschema@.digest(key, type) ELSE key END;
    v_inner bytea;
    v_outer bytea;
BEGIN
    v_key := v_key || decode(repeat('00', v_size - length(v_key)), 'hex');
    v_inner := v_key;
    v_outer := v_key;
    FOR i IN 0 .. v_size - 1 LOOP
        v_inner := set_byte(v_inner, i, get_byte(v_key, i) # 54);
        v_outer := set_byte(v_outer, i, get_byte(v_key, i) # 92);
    END LOOP;
    RETURN @extschema@.digest(v_outer || @extschema@.digest(v_inner || data, type), type);
END;
$$;
CREATE FUNCTION hmac(data text, key text, type text) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT @extschema@.hmac(convert_to(data, 'UTF8'), convert_to(key, 'UTF8'), type)
$$;
CREATE FUNCTION gen_random_bytes(count integer) RETURNS bytea LANGUAGE plpgsql VOLATILE STRICT PARALLEL SAFE AS $$
DECLARE
    v_bytes bytea := '';
BEGIN
    IF count NOT BETWEEN 1 AND 1024 THEN
        RAISE EXCEPTION 'Length not in range' USING ERRCODE = '22023';
    END IF;
    WHILE length(v_bytes) < count LOOP
        v_bytes := v_bytes || sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
    END LOOP;
    RETURN substring(v_bytes FROM 1 FOR count);
END;
$$;
CREATE FUNCTION gen_random_uuid() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$ SELECT pg_catalog.gen_random_uuid() $$;
CREATE FUNCTION gen_salt(type text) RETURNS text LANGUAGE sql VOLATILE STRICT AS $$
    SELECT 'stand-in$' || encode(@extschema@.gen_random_bytes(11), 'hex')
$$;
CREATE FUNCTION gen_salt(type text, iter_count integer) RETURNS text LANGUAGE sql VOLATILE STRICT AS $$
    SELECT @extschema@.gen_salt(type)
$$;
CREATE FUNCTION crypt(password text, salt text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT 'stand-in$' || salted.word || '$' || encode(sha256(convert_to(salted.word || password, 'UTF8')), 'hex')
      FROM (SELECT CASE WHEN salt LIKE 'stand-in$%' THEN split_part(salt, '$', 2) ELSE md5(salt) END AS word) AS salted
$$;
CREATE FUNCTION encrypt(data bytea, key bytea, type text) RETURNS bytea LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    v_stream bytea := '';
    v_result bytea := data;
BEGIN
    FOR i IN 0 .. length(data) - 1 LOOP
        IF i % 32 = 0 THEN
            v_stream := sha256(key || int4send(i));
        END IF;
        v_result := set_byte(v_result, i, get_byte(data, i) # get_byte(v_stream, i % 32));
    END LOOP;
    RETURN convert_to('stand-in', 'UTF8') || v_result;
END;
$$;
CREATE FUNCTION decrypt(data bytea, key bytea, type text) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT substring(@extschema@.encrypt(substring(data FROM 9), key, type) FROM 9)
$$;
CREATE FUNCTION encrypt_iv(data bytea, key bytea, iv bytea, type text) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT
PARALLEL SAFE AS $$ SELECT @extschema@.encrypt(data, key || iv, type) $$;
CREATE FUNCTION decrypt_iv(data bytea, key bytea, iv bytea, type text) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT
PARALLEL SAFE AS $$ SELECT @extschema@.decrypt(data, key || iv, type) $$;
CREATE FUNCTION pgp_sym_encrypt(data text, psw text, options text DEFAULT '') RETURNS bytea LANGUAGE sql VOLATILE STRICT
PARALLEL SAFE AS $$ SELECT @extschema@.encrypt(convert_to(data, 'UTF8'), convert_to(psw, 'UTF8'), 'aes') $$;
CREATE FUNCTION pgp_sym_decrypt(msg bytea, psw text, options text DEFAULT '') RETURNS text LANGUAGE plpgsql IMMUTABLE
STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN convert_from(@extschema@.decrypt(msg, convert_to(psw, 'UTF8'), 'aes'), 'UTF8');
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
    RAISE EXCEPTION 'Wrong key or corrupt data' USING ERRCODE = '39000';
END;
$$;
CREATE FUNCTION pgp_sym_encrypt_bytea(data bytea, psw text, options text DEFAULT '') RETURNS bytea LANGUAGE sql VOLATILE
STRICT PARALLEL SAFE AS $$ SELECT @extschema@.encrypt(data, convert_to(psw, 'UTF8'), 'aes') $$;
CREATE FUNCTION pgp_sym_decrypt_bytea(msg bytea, psw text, options text DEFAULT '') RETURNS bytea LANGUAGE sql IMMUTABLE
STRICT PARALLEL SAFE AS $$ SELECT @extschema@.decrypt(msg, convert_to(psw, 'UTF8'), 'aes') $$;
CREATE FUNCTION armor(data bytea) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT encode(data, 'base64') $$;
CREATE FUNCTION dearmor(data text) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT decode(data, 'base64') $$;
