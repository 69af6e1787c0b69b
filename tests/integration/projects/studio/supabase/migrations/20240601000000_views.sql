create view public.timetable with (security_invoker = true) as
  select c.id, r.name as room, c.during, c.seats_left, p.full_name as teacher
    from public.classes c join public.rooms r on r.id = c.room_id left join public.profiles p on p.id = c.teacher_id;
create materialized view public.busy_hours as
  select extract(hour from lower(during)) as hour, count(*) from public.classes group by 1;
grant select on public.timetable to anon, authenticated;
comment on view public.timetable is E'What is on.\n;not the end';
