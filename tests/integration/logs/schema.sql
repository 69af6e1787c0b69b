CREATE TABLE coupons (code text PRIMARY KEY, uses_left int NOT NULL, note text);
CREATE TABLE bookings (id bigserial PRIMARY KEY, room int NOT NULL, day date NOT NULL, guest text NOT NULL);
CREATE TABLE doctors (name text PRIMARY KEY, on_call boolean NOT NULL);
CREATE TABLE accounts (id int PRIMARY KEY, owner text NOT NULL, balance numeric NOT NULL);
