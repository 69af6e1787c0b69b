create extension if not exists pg_cron with schema pg_catalog;
grant usage on schema cron to postgres;
grant all privileges on all tables in schema cron to postgres;
select cron.schedule('drop-old', '0 3 * * *', $$ delete from public.bookings where booked_at < now() - interval '1 year' $$);
select cron.unschedule('drop-old');
select cron.schedule('drop-old', '15 3 * * *', $$ delete from public.bookings where booked_at < now() - interval '2 years' $$);
