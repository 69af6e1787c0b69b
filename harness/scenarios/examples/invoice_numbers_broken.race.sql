-- scenario: invoices are numbered one by one, without a gap and without a double
-- Both find the same highest number.

-- setup
CREATE TABLE invoices (number int NOT NULL, customer text NOT NULL);
INSERT INTO invoices VALUES (1, 'first');
CREATE FUNCTION bill(p_customer text) RETURNS int LANGUAGE sql AS $$
    INSERT INTO invoices SELECT max(number) + 1, p_customer FROM invoices RETURNING number;
$$;

-- session: clerk x 2
SELECT bill(:'session');

-- never: two invoices have one number
SELECT number FROM invoices GROUP BY number HAVING count(*) > 1;
