create statistics books.entries_stat (dependencies) on account_id, side from books.entries;
analyze books.entries;
create index entries_recent on books.entries (posted_at desc nulls last) include (amount) where amount > 100;
cluster books.entries using entries_pkey;
