insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)
values ('avatars', 'avatars', true, 1048576, array['image/png', 'image/jpeg'])
on conflict (id) do nothing;

drop policy if exists "Avatars are public" on storage.objects;
create policy "Avatars are public" on storage.objects for select using (bucket_id = 'avatars');
create policy "Own avatar only" on storage.objects for insert to authenticated
  with check (bucket_id = 'avatars' and (storage.foldername(name))[1] = (select auth.uid())::text and storage.extension(name) = 'png');
create policy "Own avatar goes" on storage.objects for delete to authenticated using (owner = auth.uid());
