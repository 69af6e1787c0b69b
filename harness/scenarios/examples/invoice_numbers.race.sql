-- scenario: invoices are numbered one by one, without a gap and without a double
-- One row counts, and whoever counts has it locked until the end.

-- setup
CREATE TABLE invoices (number int NOT NULL, customer text NOT NULL);
INSERT INTO invoices VALUES (1, 'first');
CREATE TABLE last_invoice (number int NOT NULL);
INSERT INTO last_invoice VALUES (1);
CREATE FUNCTION bill(p_customer text) RETURNS int LANGUAGE sql AS $$
    WITH next AS (UPDATE last_invoice SET number = number + 1 RETURNING number)
    INSERT INTO invoices SELECT number, p_customer FROM next RETURNING number;
$$;

-- session: clerk x 2
SELECT bill(:'session');

-- never: two invoices have one number
SELECT number FROM invoices GROUP BY number HAVING count(*) > 1;
