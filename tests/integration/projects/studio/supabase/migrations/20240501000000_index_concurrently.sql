create index concurrently if not exists bookings_member_idx on public.bookings (member_id);
