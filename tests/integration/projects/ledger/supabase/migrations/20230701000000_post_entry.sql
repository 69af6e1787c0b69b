create or replace function books.post(p_from bigint, p_to bigint, p_amount numeric) returns void language plpgsql as $_$
begin
  perform 1 from books.accounts where id in (p_from, p_to) order by id for update;
  insert into books.entries (account_id, side, amount) values (p_from, 'credit', p_amount), (p_to, 'debit', p_amount);
end $_$;
