-- SHA-1 (FIPS 180-4) for stand-ins that need it, each under a name of its own: extensions share no objects.
CREATE FUNCTION {name}(data bytea) RETURNS bytea LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
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
