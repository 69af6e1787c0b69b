vacuum (analyze) books.entries;
reindex table concurrently books.accounts;
