do $do$
begin
  if (select books.balance(1)) <> 0 then raise exception 'not empty'; end if;
  raise notice 'accounts: %', (select count(*) from books.accounts);
exception when undefined_table then
  null;
end $do$;
alter table books.entries add column posted_at timestamptz not null default now(), add column memo text collate "C";
alter table books.entries alter column memo set storage external, alter column memo set statistics 50;
