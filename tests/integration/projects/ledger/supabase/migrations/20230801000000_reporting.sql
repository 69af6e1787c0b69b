create materialized view books.totals as select account_id, sum(amount) from books.entries group by account_id with no data;
refresh materialized view books.totals;
create unlogged table books.scratch (like books.entries including all);
create type books.money_row as (currency text, amount numeric);
create function books.in_words(numeric, out whole bigint, out cents int) language sql immutable as 'select trunc($1)::bigint, ((abs($1) % 1) * 100)::int';
grant execute on all functions in schema books to ledger_reader;
