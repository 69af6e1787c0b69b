set check_function_bodies = off;
CREATE TRIGGER ledger_user AFTER INSERT OR UPDATE ON auth.users FOR EACH ROW EXECUTE FUNCTION storage.update_updated_at_column();
drop trigger if exists ledger_user on auth.users;
grant delete on table "storage"."s3_multipart_uploads" to "postgres";
grant select on table "auth"."schema_migrations" to "postgres";
create policy "receipts 1io9m69_0" on "storage"."objects" as permissive for select to authenticated using ((bucket_id = 'receipts'::text));
alter table storage.objects enable row level security;
