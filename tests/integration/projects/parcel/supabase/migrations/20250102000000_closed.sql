alter default privileges for role postgres in schema public revoke all on tables from anon, authenticated;
alter default privileges for role postgres in schema public revoke all on functions from anon, authenticated, public;
alter default privileges in schema public grant select on tables to service_role;
revoke create on schema public from public;
create schema if not exists private authorization postgres;
grant usage on schema private to authenticated;
