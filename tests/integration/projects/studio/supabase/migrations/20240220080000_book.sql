create or replace function public.book(p_class uuid) returns jsonb
language plpgsql security definer set search_path to 'public', 'extensions'
as $function$
declare
  v_left integer;
begin
  if auth.uid() is null then
    raise exception 'not signed in' using errcode = '28000';
  end if;
  update classes set seats_left = seats_left - 1 where id = p_class and seats_left > 0 returning seats_left into v_left;
  if not found then
    return jsonb_build_object('ok', false, 'reason', 'full');
  end if;
  insert into bookings (class_id, member_id) values (p_class, auth.uid());
  return jsonb_build_object('ok', true, 'left', v_left);
end;
$function$;
revoke execute on function public.book(uuid) from public, anon;
grant execute on function public.book(uuid) to authenticated;
