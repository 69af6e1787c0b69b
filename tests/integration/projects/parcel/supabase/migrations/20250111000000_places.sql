create extension if not exists postgis with schema extensions;
create table public.depots (id int primary key, place extensions.geography(point, 4326) not null);
create index depots_place on public.depots using gist (place);
alter table public.depots enable row level security;
insert into public.depots values (1, extensions.st_point(8.54, 47.37)::extensions.geography);
create or replace function public.nearest(lat float, long float) returns setof int language sql stable as $$
  select id from public.depots order by place operator(extensions.<->) extensions.st_point(long, lat)::extensions.geography limit 1
$$;
