create function books.balanced() returns trigger language plpgsql as $$
begin
  if (select sum(case side when 'debit' then amount else -amount end) from books.entries) <> 0 then
    raise exception 'the books do not balance' using errcode = 'check_violation';
  end if;
  return null;
end $$;
create constraint trigger entries_balance after insert on books.entries deferrable initially deferred for each row execute function books.balanced();
insert into books.entries (account_id, side, amount) values (1, 'debit', 5);
insert into books.entries (account_id, side, amount) values (2, 'credit', 5);
