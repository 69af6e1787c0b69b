create domain public.tracking_code as text check (value ~ '^[A-Z]{2}[0-9]{6}$');
create type public.parcel_state as enum ('announced', 'at_depot', 'out', 'delivered', 'lost');
create sequence public.tracking_seq;
create table public.parcels (
  id bigint generated always as identity primary key,
  code public.tracking_code not null unique default 'PX' || lpad(nextval('public.tracking_seq')::text, 6, '0'),
  sender uuid not null references auth.users on delete restrict,
  state public.parcel_state not null default 'announced',
  price numeric(10, 2) not null default 0 check (price >= 0),
  meta jsonb not null default '{}'::jsonb,
  unique nulls not distinct (sender, meta)
);
alter table public.parcels enable row level security, force row level security;
create policy parcels_own on public.parcels as permissive for all to authenticated
  using (sender = (select auth.uid())) with check (sender = (select auth.uid()));
create policy parcels_no_lost on public.parcels as restrictive for select to authenticated using (state <> 'lost');
grant select, insert, update on public.parcels to authenticated;
grant all on public.parcels to service_role;
