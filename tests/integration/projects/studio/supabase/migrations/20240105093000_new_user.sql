create or replace function public.handle_new_user() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
  insert into public.profiles (id, full_name, handle)
  values (new.id, new.raw_user_meta_data ->> 'full_name', split_part(new.email, '@', 1)::public.citext);
  return new;
end;
$$;

create trigger on_auth_user_created
  after insert on auth.users
  for each row execute function public.handle_new_user();

create policy "Service may look" on auth.users for select to service_role using (true);
