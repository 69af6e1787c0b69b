create type public.member_role as enum ('guest', 'member', 'teacher', 'owner');

create table public.profiles (
  id uuid primary key references auth.users (id) on delete cascade,
  handle citext unique,
  role public.member_role not null default 'guest',
  full_name text,
  search tsvector generated always as (to_tsvector('simple'::regconfig, coalesce(full_name, ''))) stored,
  created_at timestamptz not null default timezone('utc'::text, now()),
  updated_at timestamptz not null default now()
);
create index profiles_search_idx on public.profiles using gin (search);
create trigger handle_updated_at before update on public.profiles
  for each row execute procedure extensions.moddatetime (updated_at);
alter table public.profiles enable row level security;
create policy "Profiles are public" on public.profiles for select using (true);
create policy "People change their own profile" on public.profiles for update
  to authenticated using ((select auth.uid()) = id) with check ((select auth.uid()) = id);
