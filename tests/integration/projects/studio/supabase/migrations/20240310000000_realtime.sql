begin;
  drop publication if exists supabase_realtime;
  create publication supabase_realtime;
commit;
alter publication supabase_realtime add table public.classes;
alter publication supabase_realtime add table public.bookings;
alter table public.bookings replica identity full;
