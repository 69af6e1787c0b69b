create or replace function private.broadcast() returns trigger language plpgsql security definer as $$
begin
  perform realtime.broadcast_changes('parcel:' || coalesce(new.id, old.id)::text, tg_op, tg_op, tg_table_name, tg_table_schema, new, old);
  return null;
end $$;
create trigger parcels_broadcast after insert or update or delete on public.parcels for each row execute function private.broadcast();
create policy "own parcels only" on realtime.messages for select to authenticated
  using (realtime.topic() like 'parcel:%' and realtime.messages.extension = 'broadcast');
