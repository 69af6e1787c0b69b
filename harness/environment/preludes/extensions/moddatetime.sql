-- Stand-in for moddatetime, which only a superuser may create: the trigger sets the column that it names to now.
CREATE FUNCTION @extschema@.moddatetime() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_populate_record(NEW, jsonb_build_object(TG_ARGV[0], now()));
END;
$$;
