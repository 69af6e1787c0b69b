-- Stand-in for postgis: a value is its text (WKT). Points, distances, points in polygons; a function that makes a new shape
-- gives back the old one. A GiST index can be made, and holds the texts as they are.
-- says: points, distances on a sphere and points in polygons only; a new shape is the old one, an index finds nothing
CREATE TYPE geometry;
CREATE FUNCTION geometry_in(cstring) RETURNS geometry LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'textin';
CREATE FUNCTION geometry_out(geometry) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'textout';
CREATE FUNCTION geometry_recv(internal) RETURNS geometry LANGUAGE internal STABLE STRICT PARALLEL SAFE AS 'textrecv';
CREATE FUNCTION geometry_send(geometry) RETURNS bytea LANGUAGE internal STABLE STRICT PARALLEL SAFE AS 'textsend';
-- Point, 4326: any words at all.
CREATE FUNCTION geometry_typmod_in(cstring[]) RETURNS integer LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'array_ndims';
CREATE TYPE geometry (INPUT = geometry_in, OUTPUT = geometry_out, RECEIVE = geometry_recv, SEND = geometry_send,
    TYPMOD_IN = geometry_typmod_in, LIKE = text, CATEGORY = 'U', DELIMITER = ':');
CREATE FUNCTION geometry_eq(geometry, geometry) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'byteaeq';
CREATE FUNCTION geometry_lt(geometry, geometry) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'bytealt';
CREATE FUNCTION geometry_le(geometry, geometry) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'byteale';
CREATE FUNCTION geometry_gt(geometry, geometry) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'byteagt';
CREATE FUNCTION geometry_ge(geometry, geometry) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'byteage';
CREATE FUNCTION geometry_cmp(geometry, geometry) RETURNS integer LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'byteacmp';
CREATE OPERATOR = (LEFTARG = geometry, RIGHTARG = geometry, FUNCTION = geometry_eq, COMMUTATOR = =, MERGES);
CREATE OPERATOR < (LEFTARG = geometry, RIGHTARG = geometry, FUNCTION = geometry_lt, COMMUTATOR = >);
CREATE OPERATOR <= (LEFTARG = geometry, RIGHTARG = geometry, FUNCTION = geometry_le, COMMUTATOR = >=);
CREATE OPERATOR > (LEFTARG = geometry, RIGHTARG = geometry, FUNCTION = geometry_gt, COMMUTATOR = <);
CREATE OPERATOR >= (LEFTARG = geometry, RIGHTARG = geometry, FUNCTION = geometry_ge, COMMUTATOR = <=);
CREATE OPERATOR CLASS btree_geometry_ops DEFAULT FOR TYPE geometry USING btree AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 geometry_cmp(geometry, geometry);
CREATE FUNCTION geometry_gist_consistent(internal, geometry, smallint, oid, internal) RETURNS boolean
LANGUAGE c IMMUTABLE STRICT AS '$libdir/btree_gist', 'gbt_bytea_consistent';
CREATE FUNCTION geometry_gist_compress(internal) RETURNS internal LANGUAGE c IMMUTABLE STRICT AS '$libdir/btree_gist', 'gbt_bytea_compress';
CREATE FUNCTION geometry_gist_decompress(internal) RETURNS internal LANGUAGE c IMMUTABLE STRICT AS '$libdir/btree_gist', 'gbt_var_decompress';
CREATE FUNCTION geometry_gist_penalty(internal, internal, internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT AS '$libdir/btree_gist', 'gbt_bytea_penalty';
CREATE FUNCTION geometry_gist_picksplit(internal, internal) RETURNS internal LANGUAGE c IMMUTABLE STRICT AS '$libdir/btree_gist', 'gbt_bytea_picksplit';
CREATE FUNCTION geometry_gist_union(internal, internal) RETURNS bytea LANGUAGE c IMMUTABLE STRICT AS '$libdir/btree_gist', 'gbt_bytea_union';
CREATE FUNCTION geometry_gist_same(bytea, bytea, internal) RETURNS internal LANGUAGE c IMMUTABLE STRICT AS '$libdir/btree_gist', 'gbt_bytea_same';
CREATE OPERATOR CLASS gist_geometry_ops_2d DEFAULT FOR TYPE geometry USING gist AS
    FUNCTION 1 geometry_gist_consistent(internal, geometry, smallint, oid, internal),
    FUNCTION 2 geometry_gist_union(internal, internal),
    FUNCTION 3 geometry_gist_compress(internal),
    FUNCTION 4 geometry_gist_decompress(internal),
    FUNCTION 5 geometry_gist_penalty(internal, internal, internal),
    FUNCTION 6 geometry_gist_picksplit(internal, internal),
    FUNCTION 7 geometry_gist_same(bytea, bytea, internal),
    STORAGE bytea;
CREATE TYPE geography;
CREATE FUNCTION geography_in(cstring) RETURNS geography LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'textin';
CREATE FUNCTION geography_out(geography) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'textout';
CREATE FUNCTION geography_recv(internal) RETURNS geography LANGUAGE internal STABLE STRICT PARALLEL SAFE AS 'textrecv';
CREATE FUNCTION geography_send(geography) RETURNS bytea LANGUAGE internal STABLE STRICT PARALLEL SAFE AS 'textsend';
-- Point, 4326: any words at all.
CREATE FUNCTION geography_typmod_in(cstring[]) RETURNS integer LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'array_ndims';
CREATE TYPE geography (INPUT = geography_in, OUTPUT = geography_out, RECEIVE = geography_recv, SEND = geography_send,
    TYPMOD_IN = geography_typmod_in, LIKE = text, CATEGORY = 'U', DELIMITER = ':');
CREATE FUNCTION geography_eq(geography, geography) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'byteaeq';
CREATE FUNCTION geography_lt(geography, geography) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'bytealt';
CREATE FUNCTION geography_le(geography, geography) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'byteale';
CREATE FUNCTION geography_gt(geography, geography) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'byteagt';
CREATE FUNCTION geography_ge(geography, geography) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'byteage';
CREATE FUNCTION geography_cmp(geography, geography) RETURNS integer LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE AS 'byteacmp';
CREATE OPERATOR = (LEFTARG = geography, RIGHTARG = geography, FUNCTION = geography_eq, COMMUTATOR = =, MERGES);
CREATE OPERATOR < (LEFTARG = geography, RIGHTARG = geography, FUNCTION = geography_lt, COMMUTATOR = >);
CREATE OPERATOR <= (LEFTARG = geography, RIGHTARG = geography, FUNCTION = geography_le, COMMUTATOR = >=);
CREATE OPERATOR > (LEFTARG = geography, RIGHTARG = geography, FUNCTION = geography_gt, COMMUTATOR = <);
CREATE OPERATOR >= (LEFTARG = geography, RIGHTARG = geography, FUNCTION = geography_ge, COMMUTATOR = <=);
CREATE OPERATOR CLASS btree_geography_ops DEFAULT FOR TYPE geography USING btree AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 geography_cmp(geography, geography);
CREATE FUNCTION geography_gist_consistent(internal, geography, smallint, oid, internal) RETURNS boolean
LANGUAGE c IMMUTABLE STRICT AS '$libdir/btree_gist', 'gbt_bytea_consistent';
CREATE FUNCTION geography_gist_compress(internal) RETURNS internal LANGUAGE c IMMUTABLE STRICT AS '$libdir/btree_gist', 'gbt_bytea_compress';
CREATE FUNCTION geography_gist_decompress(internal) RETURNS internal LANGUAGE c IMMUTABLE STRICT AS '$libdir/btree_gist', 'gbt_var_decompress';
CREATE FUNCTION geography_gist_penalty(internal, internal, internal) RETURNS internal
LANGUAGE c IMMUTABLE STRICT AS '$libdir/btree_gist', 'gbt_bytea_penalty';
CREATE FUNCTION geography_gist_picksplit(internal, internal) RETURNS internal LANGUAGE c IMMUTABLE STRICT AS '$libdir/btree_gist', 'gbt_bytea_picksplit';
CREATE FUNCTION geography_gist_union(internal, internal) RETURNS bytea LANGUAGE c IMMUTABLE STRICT AS '$libdir/btree_gist', 'gbt_bytea_union';
CREATE FUNCTION geography_gist_same(bytea, bytea, internal) RETURNS internal LANGUAGE c IMMUTABLE STRICT AS '$libdir/btree_gist', 'gbt_bytea_same';
CREATE OPERATOR CLASS gist_geography_ops DEFAULT FOR TYPE geography USING gist AS
    FUNCTION 1 geography_gist_consistent(internal, geography, smallint, oid, internal),
    FUNCTION 2 geography_gist_union(internal, internal),
    FUNCTION 3 geography_gist_compress(internal),
    FUNCTION 4 geography_gist_decompress(internal),
    FUNCTION 5 geography_gist_penalty(internal, internal, internal),
    FUNCTION 6 geography_gist_picksplit(internal, internal),
    FUNCTION 7 geography_gist_same(bytea, bytea, internal),
    STORAGE bytea;
CREATE CAST (geometry AS geography) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (geography AS geometry) WITHOUT FUNCTION;
CREATE CAST (text AS geometry) WITHOUT FUNCTION AS IMPLICIT;
CREATE TABLE spatial_ref_sys (
    srid integer PRIMARY KEY, auth_name varchar(256), auth_srid integer, srtext varchar(2048), proj4text varchar(2048)
);
INSERT INTO spatial_ref_sys VALUES (4326, 'EPSG', 4326), (3857, 'EPSG', 3857);
GRANT SELECT ON spatial_ref_sys TO PUBLIC;
CREATE VIEW geometry_columns AS SELECT NULL::text AS f_table_schema, NULL::text AS f_table_name WHERE false;
CREATE VIEW geography_columns AS SELECT NULL::text AS f_table_schema, NULL::text AS f_table_name WHERE false;
CREATE FUNCTION postgis_version() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT '3.3 stand-in' $$;
CREATE FUNCTION postgis_full_version() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'POSTGIS="3.3 stand-in"' $$;
CREATE FUNCTION postgis_lib_version() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT '3.3' $$;

CREATE FUNCTION st_setsrid(geom geometry, srid integer) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT ('SRID=' || srid || ';' || regexp_replace(geom::text, '^SRID=\d+;', ''))::@extschema@.geometry
$$;
CREATE FUNCTION st_srid(geom geometry) RETURNS integer LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT coalesce(substring(geom::text FROM '^SRID=(\d+);')::integer, 0)
$$;
CREATE FUNCTION st_transform(geom geometry, srid integer) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT @extschema@.st_setsrid(geom, srid)
$$;
CREATE FUNCTION st_makepoint(x double precision, y double precision) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT
PARALLEL SAFE AS $$ SELECT ('POINT(' || x || ' ' || y || ')')::@extschema@.geometry $$;
CREATE FUNCTION st_point(x double precision, y double precision) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT
PARALLEL SAFE AS $$ SELECT @extschema@.st_makepoint(x, y) $$;
CREATE FUNCTION st_point(x double precision, y double precision, srid integer) RETURNS geometry LANGUAGE sql IMMUTABLE
STRICT PARALLEL SAFE AS $$ SELECT @extschema@.st_setsrid(@extschema@.st_makepoint(x, y), srid) $$;
CREATE FUNCTION st_x(geom geometry) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT substring(geom::text FROM '(?i)POINT\s*Z?\s*\(\s*([-+.\deE]+)')::double precision
$$;
CREATE FUNCTION st_y(geom geometry) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT substring(geom::text FROM '(?i)POINT\s*Z?\s*\(\s*[-+.\deE]+\s+([-+.\deE]+)')::double precision
$$;
CREATE FUNCTION st_geomfromgeojson(geojson jsonb) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN geojson ->> 'type' = 'Point'
        THEN @extschema@.st_point((geojson #>> '{coordinates,0}')::double precision,
            (geojson #>> '{coordinates,1}')::double precision, 4326)
        ELSE ('SRID=4326;' || upper(geojson ->> 'type') || translate(regexp_replace(
            regexp_replace(geojson ->> 'coordinates', '([\d.]),\s*([-\d])', '\1 \2', 'g'),
            '\[([-\d.eE]+ [-\d.eE]+)[^\]]*\]', '\1', 'g'), '[]', '()'))::@extschema@.geometry END
$$;
CREATE FUNCTION st_geomfromgeojson(geojson json) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT @extschema@.st_geomfromgeojson(geojson::jsonb)
$$;
CREATE FUNCTION st_geomfromgeojson(geojson text) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT @extschema@.st_geomfromgeojson(geojson::jsonb)
$$;
CREATE FUNCTION st_makeenvelope(xmin double precision, ymin double precision, xmax double precision, ymax double precision,
    srid integer DEFAULT 0) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT @extschema@.st_setsrid(format('POLYGON((%s %s,%s %s,%s %s,%s %s,%s %s))', xmin, ymin, xmin, ymax, xmax, ymax,
        xmax, ymin, xmin, ymin)::@extschema@.geometry, srid)
$$;
CREATE FUNCTION st_covers(geom1 geometry, geom2 geometry) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN geom1::text ~* 'POLYGON' AND geom2::text ~* 'POINT'
        THEN ('(' || regexp_replace(regexp_replace(substring(geom1::text FROM '\(\(\(?([^)]*)\)'),
            '\s*([-+.\deE]+)\s+([-+.\deE]+)[^,]*', '(\1;\2)', 'g'), ';', ',', 'g') || ')')::polygon
            @> point(@extschema@.st_x(geom2), @extschema@.st_y(geom2))
        ELSE geom1::text = geom2::text END
$$;
CREATE FUNCTION st_distance(geom1 geometry, geom2 geometry) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT
PARALLEL SAFE AS $$
    SELECT point(@extschema@.st_x(geom1), @extschema@.st_y(geom1)) <-> point(@extschema@.st_x(geom2), @extschema@.st_y(geom2))
$$;
CREATE FUNCTION st_distancesphere(geom1 geometry, geom2 geometry) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT
PARALLEL SAFE AS $$
    SELECT 2 * 6371008.8 * asin(least(1, sqrt(
        sind((@extschema@.st_y(geom2) - @extschema@.st_y(geom1)) / 2) ^ 2 + cosd(@extschema@.st_y(geom1))
        * cosd(@extschema@.st_y(geom2)) * sind((@extschema@.st_x(geom2) - @extschema@.st_x(geom1)) / 2) ^ 2)))
$$;
CREATE FUNCTION st_distance(geog1 geography, geog2 geography, use_spheroid boolean DEFAULT true) RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT @extschema@.st_distancesphere(geog1::@extschema@.geometry, geog2::@extschema@.geometry)
$$;
CREATE FUNCTION st_dwithin(geom1 geometry, geom2 geometry, distance double precision) RETURNS boolean LANGUAGE sql IMMUTABLE
STRICT PARALLEL SAFE AS $$ SELECT @extschema@.st_distance(geom1, geom2) <= distance $$;
CREATE FUNCTION st_dwithin(geog1 geography, geog2 geography, distance double precision, use_spheroid boolean DEFAULT true)
RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT @extschema@.st_distance(geog1, geog2) <= distance $$;
CREATE OPERATOR <-> (LEFTARG = geometry, RIGHTARG = geometry, FUNCTION = st_distance, COMMUTATOR = <->);
CREATE FUNCTION geography_distance_knn(geography, geography) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT
PARALLEL SAFE AS $$ SELECT @extschema@.st_distance($1, $2) $$;
CREATE OPERATOR <-> (LEFTARG = geography, RIGHTARG = geography, FUNCTION = geography_distance_knn, COMMUTATOR = <->);
CREATE FUNCTION geometry_overlaps(geometry, geometry) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT @extschema@.st_covers($1, $2) OR @extschema@.st_covers($2, $1)
$$;
CREATE FUNCTION geography_overlaps(geography, geography) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT @extschema@.geometry_overlaps($1::@extschema@.geometry, $2::@extschema@.geometry)
$$;
CREATE OPERATOR && (LEFTARG = geometry, RIGHTARG = geometry, FUNCTION = geometry_overlaps, COMMUTATOR = &&);
CREATE OPERATOR && (LEFTARG = geography, RIGHTARG = geography, FUNCTION = geography_overlaps, COMMUTATOR = &&);
CREATE FUNCTION st_makepoint(x double precision, y double precision, z double precision) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT @extschema@.st_makepoint(x, y) $$;
CREATE FUNCTION st_geomfromtext(wkt text) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT wkt::@extschema@.geometry $$;
CREATE FUNCTION st_geomfromtext(wkt text, srid integer) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT @extschema@.st_setsrid(wkt::@extschema@.geometry, srid) $$;
CREATE FUNCTION st_geometryfromtext(wkt text) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT wkt::@extschema@.geometry $$;
CREATE FUNCTION st_geometryfromtext(wkt text, srid integer) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT @extschema@.st_setsrid(wkt::@extschema@.geometry, srid) $$;
CREATE FUNCTION st_geomfromewkt(wkt text) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT wkt::@extschema@.geometry $$;
CREATE FUNCTION st_polygonfromtext(wkt text) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT wkt::@extschema@.geometry $$;
CREATE FUNCTION st_polygonfromtext(wkt text, srid integer) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT @extschema@.st_setsrid(wkt::@extschema@.geometry, srid) $$;
CREATE FUNCTION st_pointfromtext(wkt text) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT wkt::@extschema@.geometry $$;
CREATE FUNCTION st_pointfromtext(wkt text, srid integer) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT @extschema@.st_setsrid(wkt::@extschema@.geometry, srid) $$;
CREATE FUNCTION st_geogfromtext(wkt text) RETURNS geography LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT wkt::@extschema@.geometry::@extschema@.geography $$;
CREATE FUNCTION st_geographyfromtext(wkt text) RETURNS geography LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT wkt::@extschema@.geometry::@extschema@.geography $$;
CREATE FUNCTION st_astext(geom geometry) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT regexp_replace(geom::text, '^SRID=\d+;', '') $$;
CREATE FUNCTION st_asewkt(geom geometry) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom::text $$;
CREATE FUNCTION st_asbinary(geom geometry) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT convert_to(geom::text, 'UTF8') $$;
CREATE FUNCTION st_asgeojson(geom geometry, maxdecimaldigits integer DEFAULT 9, options integer DEFAULT 8) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT jsonb_build_object('type', 'Point', 'coordinates', jsonb_build_array(@extschema@.st_x(geom::@extschema@.geometry), @extschema@.st_y(geom::@extschema@.geometry)))::text $$;
CREATE FUNCTION st_area(geom geometry) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT 0::double precision $$;
CREATE FUNCTION st_length(geom geometry) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT 0::double precision $$;
CREATE FUNCTION st_perimeter(geom geometry) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT 0::double precision $$;
CREATE FUNCTION st_buffer(geom geometry, radius double precision) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom $$;
CREATE FUNCTION st_centroid(geom geometry) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom $$;
CREATE FUNCTION st_union(a geometry, b geometry) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT a $$;
CREATE FUNCTION st_intersection(a geometry, b geometry) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT a $$;
CREATE FUNCTION st_astext(geom geography) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT regexp_replace(geom::text, '^SRID=\d+;', '') $$;
CREATE FUNCTION st_asewkt(geom geography) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom::text $$;
CREATE FUNCTION st_asbinary(geom geography) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT convert_to(geom::text, 'UTF8') $$;
CREATE FUNCTION st_asgeojson(geom geography, maxdecimaldigits integer DEFAULT 9, options integer DEFAULT 8) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT jsonb_build_object('type', 'Point', 'coordinates', jsonb_build_array(@extschema@.st_x(geom::@extschema@.geometry), @extschema@.st_y(geom::@extschema@.geometry)))::text $$;
CREATE FUNCTION st_area(geom geography) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT 0::double precision $$;
CREATE FUNCTION st_length(geom geography) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT 0::double precision $$;
CREATE FUNCTION st_perimeter(geom geography) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT 0::double precision $$;
CREATE FUNCTION st_buffer(geom geography, radius double precision) RETURNS geography LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom $$;
CREATE FUNCTION st_centroid(geom geography) RETURNS geography LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom $$;
CREATE FUNCTION st_intersection(a geography, b geography) RETURNS geography LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT a $$;
CREATE FUNCTION st_covers(geog1 geography, geog2 geography) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT @extschema@.st_covers(geog1::@extschema@.geometry, geog2::@extschema@.geometry) $$;
CREATE FUNCTION st_contains(geom1 geometry, geom2 geometry) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT @extschema@.st_covers(geom1, geom2) $$;
CREATE FUNCTION st_within(geom1 geometry, geom2 geometry) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT @extschema@.st_covers(geom2, geom1) $$;
CREATE FUNCTION st_coveredby(geom1 geometry, geom2 geometry) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT @extschema@.st_covers(geom2, geom1) $$;
CREATE FUNCTION st_intersects(geom1 geometry, geom2 geometry) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT @extschema@.geometry_overlaps(geom1, geom2) $$;
CREATE FUNCTION st_intersects(geog1 geography, geog2 geography) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT @extschema@.geography_overlaps(geog1, geog2) $$;
CREATE FUNCTION st_equals(geom1 geometry, geom2 geometry) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom1::text = geom2::text $$;
CREATE FUNCTION st_envelope(geom geometry) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom $$;
CREATE FUNCTION st_makevalid(geom geometry) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom $$;
CREATE FUNCTION st_multi(geom geometry) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom $$;
CREATE FUNCTION st_force2d(geom geometry) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom $$;
CREATE FUNCTION st_convexhull(geom geometry) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom $$;
CREATE FUNCTION st_boundary(geom geometry) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom $$;
CREATE FUNCTION st_startpoint(geom geometry) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom $$;
CREATE FUNCTION st_endpoint(geom geometry) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom $$;
CREATE FUNCTION st_pointonsurface(geom geometry) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom $$;
CREATE FUNCTION st_makepolygon(geom geometry) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom $$;
CREATE FUNCTION st_simplify(geom geometry, tolerance double precision) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom $$;
CREATE FUNCTION st_snaptogrid(geom geometry, tolerance double precision) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom $$;
CREATE FUNCTION st_simplifypreservetopology(geom geometry, tolerance double precision) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom $$;
CREATE FUNCTION st_makeline(a geometry, b geometry) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT a $$;
CREATE FUNCTION st_collect(a geometry, b geometry) RETURNS geometry LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT a $$;
CREATE FUNCTION st_isvalid(geom geometry) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT true $$;
CREATE FUNCTION st_isempty(geom geometry) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geom::text ~* 'EMPTY' $$;
CREATE FUNCTION st_geometrytype(geom geometry) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT 'ST_' || initcap(substring(geom::text FROM '(?i)(?:SRID=\d+;)?([a-z]+)')) $$;
CREATE FUNCTION st_azimuth(a geometry, b geometry) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT atan2(@extschema@.st_x(b) - @extschema@.st_x(a), @extschema@.st_y(b) - @extschema@.st_y(a)) $$;
CREATE FUNCTION st_project(geog geography, distance double precision, azimuth double precision) RETURNS geography LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT geog $$;
