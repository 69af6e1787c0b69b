create view books.open_accounts as select * from books.accounts;
create rule open_accounts_delete as on delete to books.open_accounts do instead (
  delete from books.entries where account_id = old.id; delete from books.accounts where id = old.id
);
