create or replace function private.is_depot() returns boolean language sql stable security invoker set search_path = '' as $$
  select coalesce((auth.jwt() -> 'app_metadata' ->> 'depot')::boolean, false) or auth.role() = 'service_role'
$$;
grant execute on function private.is_depot() to authenticated;
create policy scans_depot on public.scans for insert to authenticated with check (private.is_depot());
grant insert, select on public.scans to authenticated;
create or replace function public.custom_access_token_hook(event jsonb) returns jsonb language plpgsql stable as $$
begin
  return jsonb_set(event, '{claims,depot}', to_jsonb(exists (select from public.scans where by = (event ->> 'user_id')::uuid)));
end;
$$;
grant usage on schema public to supabase_auth_admin;
grant execute on function public.custom_access_token_hook to supabase_auth_admin;
revoke execute on function public.custom_access_token_hook from authenticated, anon, public;
grant select on table public.scans to supabase_auth_admin;
