do $$
begin
  if not exists (select from pg_roles where rolname = 'parcel_reporting') then
    create role parcel_reporting nologin;
  end if;
end $$;
grant parcel_reporting to authenticator;
grant usage on schema public to parcel_reporting;
grant select on public.parcels to parcel_reporting;
alter role parcel_reporting set statement_timeout = '30s';
alter role authenticated set statement_timeout = '12s';
alter database postgres set timezone to 'Europe/Zurich';
alter role postgres in database postgres set work_mem = '16MB';
