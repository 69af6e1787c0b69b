-- Items with a stock that many buyers take from.
CREATE TABLE items (
    id    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    stock integer NOT NULL
);

CREATE TABLE sales (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    item_id  uuid NOT NULL REFERENCES items (id),
    buyer    uuid NOT NULL,
    quantity integer NOT NULL
);
