create extension if not exists pg_net;
create or replace function private.notify() returns trigger language plpgsql security definer set search_path = '' as $$
declare
  v_request bigint;
begin
  select net.http_post(
    url := 'https://example.test/hook',
    body := jsonb_build_object('code', new.code, 'state', new.state),
    headers := jsonb_build_object('Authorization', 'Bearer ' || (select decrypted_secret from vault.decrypted_secrets where name = 'hook'))
  ) into v_request;
  return new;
end $$;
select vault.create_secret('not a real one', 'hook', 'for the webhook');
create trigger parcels_notify after update of state on public.parcels
  for each row when (old.state is distinct from new.state) execute function private.notify();
create trigger "parcels-webhook" after insert on public.parcels
  for each row execute function supabase_functions.http_request('https://example.test', 'POST', '{"Content-type":"application/json"}', '{}', '1000');
