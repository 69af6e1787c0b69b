-- Stand-in for vector (pgvector): a value is its text, and distances are computed from it. No access method: an index by
-- hnsw or ivfflat is left out. Declared dimensions are checked where a value is stored or cast, not by COPY.
-- says: values are texts and compared as such; distances are computed in SQL, no index by hnsw or ivfflat is there
DO $standin$
DECLARE
    v_type text;
BEGIN
    FOREACH v_type IN ARRAY ARRAY['vector', 'halfvec', 'sparsevec'] LOOP
        EXECUTE replace($sql$
CREATE TYPE {t};
CREATE FUNCTION {t}_in(cstring) RETURNS {t} LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'textin';
CREATE FUNCTION {t}_out({t}) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'textout';
CREATE FUNCTION {t}_recv(internal) RETURNS {t} LANGUAGE internal STABLE STRICT PARALLEL SAFE AS 'textrecv';
CREATE FUNCTION {t}_send({t}) RETURNS bytea LANGUAGE internal STABLE STRICT PARALLEL SAFE AS 'textsend';
CREATE FUNCTION {t}_typmod_in(cstring[]) RETURNS integer LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'varchartypmodin';
CREATE FUNCTION {t}_typmod_out(integer) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'varchartypmodout';
CREATE TYPE {t} (INPUT = {t}_in, OUTPUT = {t}_out, RECEIVE = {t}_recv, SEND = {t}_send, TYPMOD_IN = {t}_typmod_in,
    TYPMOD_OUT = {t}_typmod_out, LIKE = text, CATEGORY = 'U');
CREATE FUNCTION {t}_eq({t}, {t}) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'byteaeq';
CREATE FUNCTION {t}_ne({t}, {t}) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'byteane';
CREATE FUNCTION {t}_lt({t}, {t}) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'bytealt';
CREATE FUNCTION {t}_le({t}, {t}) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'byteale';
CREATE FUNCTION {t}_gt({t}, {t}) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'byteagt';
CREATE FUNCTION {t}_ge({t}, {t}) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'byteage';
CREATE FUNCTION {t}_cmp({t}, {t}) RETURNS integer LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'byteacmp';
CREATE OPERATOR = (LEFTARG = {t}, RIGHTARG = {t}, FUNCTION = {t}_eq, COMMUTATOR = =, NEGATOR = <>, MERGES);
CREATE OPERATOR <> (LEFTARG = {t}, RIGHTARG = {t}, FUNCTION = {t}_ne, COMMUTATOR = <>, NEGATOR = =);
CREATE OPERATOR < (LEFTARG = {t}, RIGHTARG = {t}, FUNCTION = {t}_lt, COMMUTATOR = >);
CREATE OPERATOR <= (LEFTARG = {t}, RIGHTARG = {t}, FUNCTION = {t}_le, COMMUTATOR = >=);
CREATE OPERATOR > (LEFTARG = {t}, RIGHTARG = {t}, FUNCTION = {t}_gt, COMMUTATOR = <);
CREATE OPERATOR >= (LEFTARG = {t}, RIGHTARG = {t}, FUNCTION = {t}_ge, COMMUTATOR = <=);
CREATE OPERATOR CLASS {t}_ops DEFAULT FOR TYPE {t} USING btree AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 {t}_cmp({t}, {t});
$sql$, '{t}', v_type);
    END LOOP;

    FOREACH v_type IN ARRAY ARRAY['vector', 'halfvec'] LOOP
        EXECUTE replace($sql$
CREATE FUNCTION {t}_to_float8({t}) RETURNS double precision[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT string_to_array(btrim($1::text, '[] '), ',')::double precision[]
$$;
CREATE FUNCTION vector_dims({t}) RETURNS integer LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT cardinality(@extschema@.{t}_to_float8($1))
$$;
-- varchar's modifier is four more than the number that was written.
CREATE FUNCTION {t}({t}, integer, boolean) RETURNS {t} LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF @extschema@.vector_dims($1) <> $2 - 4 THEN
        RAISE EXCEPTION 'expected % dimensions, not %', $2 - 4, @extschema@.vector_dims($1) USING ERRCODE = '22000';
    END IF;
    RETURN $1;
END;
$$;
CREATE CAST ({t} AS {t}) WITH FUNCTION {t}({t}, integer, boolean) AS IMPLICIT;
CREATE FUNCTION array_to_{t}(double precision[]) RETURNS {t} LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT ('[' || array_to_string($1, ',') || ']')::@extschema@.{t}
$$;
CREATE FUNCTION array_to_{t}(real[]) RETURNS {t} LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT ('[' || array_to_string($1, ',') || ']')::@extschema@.{t}
$$;
CREATE FUNCTION array_to_{t}(integer[]) RETURNS {t} LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT ('[' || array_to_string($1, ',') || ']')::@extschema@.{t}
$$;
CREATE FUNCTION array_to_{t}(numeric[]) RETURNS {t} LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT ('[' || array_to_string($1, ',') || ']')::@extschema@.{t}
$$;
CREATE FUNCTION {t}_to_float4({t}) RETURNS real[] LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT @extschema@.{t}_to_float8($1)::real[]
$$;
CREATE CAST (double precision[] AS {t}) WITH FUNCTION array_to_{t}(double precision[]) AS ASSIGNMENT;
CREATE CAST (real[] AS {t}) WITH FUNCTION array_to_{t}(real[]) AS ASSIGNMENT;
CREATE CAST (integer[] AS {t}) WITH FUNCTION array_to_{t}(integer[]) AS ASSIGNMENT;
CREATE CAST (numeric[] AS {t}) WITH FUNCTION array_to_{t}(numeric[]) AS ASSIGNMENT;
CREATE CAST ({t} AS real[]) WITH FUNCTION {t}_to_float4({t}) AS ASSIGNMENT;
CREATE FUNCTION inner_product({t}, {t}) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT sum(a * b) FROM unnest(@extschema@.{t}_to_float8($1), @extschema@.{t}_to_float8($2)) AS u(a, b)
$$;
CREATE FUNCTION l2_distance({t}, {t}) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT sqrt(sum((a - b) ^ 2)) FROM unnest(@extschema@.{t}_to_float8($1), @extschema@.{t}_to_float8($2)) AS u(a, b)
$$;
CREATE FUNCTION l1_distance({t}, {t}) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT sum(abs(a - b)) FROM unnest(@extschema@.{t}_to_float8($1), @extschema@.{t}_to_float8($2)) AS u(a, b)
$$;
CREATE FUNCTION l2_norm({t}) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT sqrt(@extschema@.inner_product($1, $1))
$$;
CREATE FUNCTION vector_norm({t}) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT sqrt(@extschema@.inner_product($1, $1))
$$;
CREATE FUNCTION cosine_distance({t}, {t}) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN @extschema@.l2_norm($1) = 0 OR @extschema@.l2_norm($2) = 0 THEN 'NaN'
        ELSE 1 - @extschema@.inner_product($1, $2) / (@extschema@.l2_norm($1) * @extschema@.l2_norm($2)) END
$$;
CREATE FUNCTION {t}_negative_inner_product({t}, {t}) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT -@extschema@.inner_product($1, $2)
$$;
CREATE FUNCTION l2_normalize({t}) RETURNS {t} LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT ('[' || string_agg((a / coalesce(nullif(@extschema@.l2_norm($1), 0), 1))::real::text, ',' ORDER BY i) || ']')::@extschema@.{t}
    FROM unnest(@extschema@.{t}_to_float8($1)) WITH ORDINALITY AS u(a, i)
$$;
CREATE FUNCTION subvector({t}, integer, integer) RETURNS {t} LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT (@extschema@.{t}_to_float8($1))[$2 : $2 + $3 - 1]::@extschema@.{t}
$$;
CREATE FUNCTION binary_quantize({t}) RETURNS bit varying LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT string_agg(CASE WHEN a > 0 THEN '1' ELSE '0' END, '' ORDER BY i)::bit varying
    FROM unnest(@extschema@.{t}_to_float8($1)) WITH ORDINALITY AS u(a, i)
$$;
CREATE FUNCTION {t}_add({t}, {t}) RETURNS {t} LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT array_agg((a + b)::real ORDER BY i)::@extschema@.{t}
    FROM unnest(@extschema@.{t}_to_float8($1), @extschema@.{t}_to_float8($2)) WITH ORDINALITY AS u(a, b, i)
$$;
CREATE FUNCTION {t}_sub({t}, {t}) RETURNS {t} LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT array_agg((a - b)::real ORDER BY i)::@extschema@.{t}
    FROM unnest(@extschema@.{t}_to_float8($1), @extschema@.{t}_to_float8($2)) WITH ORDINALITY AS u(a, b, i)
$$;
CREATE FUNCTION {t}_mul({t}, {t}) RETURNS {t} LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT array_agg((a * b)::real ORDER BY i)::@extschema@.{t}
    FROM unnest(@extschema@.{t}_to_float8($1), @extschema@.{t}_to_float8($2)) WITH ORDINALITY AS u(a, b, i)
$$;
CREATE FUNCTION {t}_avg({t}[]) RETURNS {t} LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT array_agg(mean ORDER BY i)::@extschema@.{t} FROM (
        SELECT avg(a)::real AS mean, i FROM unnest($1) AS v, unnest(@extschema@.{t}_to_float8(v)) WITH ORDINALITY AS u(a, i)
        GROUP BY i
    ) AS means
$$;
CREATE AGGREGATE sum({t}) (SFUNC = {t}_add, STYPE = {t});
CREATE AGGREGATE avg({t}) (SFUNC = array_append, STYPE = {t}[], FINALFUNC = {t}_avg);
CREATE OPERATOR <-> (LEFTARG = {t}, RIGHTARG = {t}, FUNCTION = l2_distance, COMMUTATOR = <->);
CREATE OPERATOR <#> (LEFTARG = {t}, RIGHTARG = {t}, FUNCTION = {t}_negative_inner_product, COMMUTATOR = <#>);
CREATE OPERATOR <=> (LEFTARG = {t}, RIGHTARG = {t}, FUNCTION = cosine_distance, COMMUTATOR = <=>);
CREATE OPERATOR <+> (LEFTARG = {t}, RIGHTARG = {t}, FUNCTION = l1_distance, COMMUTATOR = <+>);
CREATE OPERATOR + (LEFTARG = {t}, RIGHTARG = {t}, FUNCTION = {t}_add, COMMUTATOR = +);
CREATE OPERATOR - (LEFTARG = {t}, RIGHTARG = {t}, FUNCTION = {t}_sub);
CREATE OPERATOR * (LEFTARG = {t}, RIGHTARG = {t}, FUNCTION = {t}_mul, COMMUTATOR = *);
$sql$, '{t}', v_type);
    END LOOP;
END;
$standin$;
CREATE CAST (vector AS halfvec) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (halfvec AS vector) WITHOUT FUNCTION AS ASSIGNMENT;
