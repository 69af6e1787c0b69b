create table public.scans (
  parcel_id bigint not null references public.parcels,
  at timestamptz not null default now(),
  place text not null,
  by uuid references auth.users
) partition by range (at);
create table public.scans_2024 partition of public.scans for values from ('2024-01-01') to ('2025-01-01');
create table public.scans_default partition of public.scans default;
create index on public.scans (parcel_id, at desc);
alter table public.scans enable row level security;
do $$
declare
  part regclass;
begin
  for part in select inhrelid::regclass from pg_inherits where inhparent = 'public.scans'::regclass loop
    execute format('alter table %s enable row level security', part);
  end loop;
end $$;
