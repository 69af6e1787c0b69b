create or replace function private.watch_ddl() returns event_trigger language plpgsql as $$
begin
  perform pg_notify('pgrst', 'reload schema');
end $$;
create event trigger parcel_ddl on ddl_command_end when tag in ('CREATE TABLE') execute function private.watch_ddl();
alter event trigger parcel_ddl disable;
alter event trigger parcel_ddl enable;
create publication parcel_all for all tables;
notify pgrst, 'reload schema';
