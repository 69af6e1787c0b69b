create function books.entry_count(p_account bigint) returns bigint language sql stable
begin atomic
  select count(*) from books.entries where account_id = p_account;
end;
create aggregate books.product(numeric) (sfunc = numeric_mul, stype = numeric, initcond = 1);
create operator books.<+> (leftarg = numeric, rightarg = numeric, function = numeric_add);
