-- What service_role may do in a scratch database whose migrations ran as somebody else: everything, as in Supabase.
-- anon and authenticated get what the migrations give them.
CREATE SCHEMA IF NOT EXISTS harness;
GRANT USAGE ON SCHEMA {schemas} TO service_role;
GRANT ALL ON ALL TABLES IN SCHEMA {schemas} TO service_role;
GRANT ALL ON ALL SEQUENCES IN SCHEMA {schemas} TO service_role;
GRANT ALL ON ALL ROUTINES IN SCHEMA {schemas} TO service_role;
GRANT USAGE ON SCHEMA {schemas} TO anon, authenticated;
