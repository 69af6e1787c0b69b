create extension if not exists "uuid-ossp" with schema extensions;
create extension if not exists "pgcrypto" with schema "extensions" version '1.3';
create extension if not exists citext with schema public;
create extension if not exists btree_gist with schema extensions;
create extension if not exists moddatetime schema extensions;
comment on extension citext is 'case-insensitive text';
