-- consuldemocracy/consuldemocracy#4061: two ballot lines pass the check of the money that is left
-- scenario: a ballot spends what it has
-- setup
CREATE TABLE ballot (id int, money int);
CREATE TABLE line (ballot int, price int);
INSERT INTO ballot VALUES (1, 100);
-- session: request x 2
INSERT INTO line SELECT id, 60 FROM ballot
 WHERE money - (SELECT coalesce(sum(price), 0) FROM line WHERE ballot = 1) >= 60;
-- never: more is spent than there is
SELECT FROM line HAVING sum(price) > 100;
-- mended
-- scenario: a ballot spends what it has
-- setup
CREATE TABLE ballot (id int, money int);
CREATE TABLE line (ballot int, price int);
INSERT INTO ballot VALUES (1, 100);
-- session: request x 2
BEGIN;
SELECT money FROM ballot WHERE id = 1 FOR UPDATE;
INSERT INTO line SELECT id, 60 FROM ballot
 WHERE money - (SELECT coalesce(sum(price), 0) FROM line WHERE ballot = 1) >= 60;
COMMIT;
-- never: more is spent than there is
SELECT FROM line HAVING sum(price) > 100;
