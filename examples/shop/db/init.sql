-- Runs once, when the database is created.
CREATE TABLE products (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE,
    description text NOT NULL,
    cents       integer NOT NULL CHECK (cents >= 0),
    stock       integer NOT NULL CHECK (stock >= 0)
);

INSERT INTO products (name, description, cents, stock) VALUES
    ('Moka pot',          'Aluminium, three cups',                1990, 14),
    ('Pour-over dripper', 'Ceramic, with a wooden collar',        2450,  8),
    ('Paper filters',     'A hundred, unbleached',                 390, 120),
    ('Hand grinder',      'Steel burrs, forty settings',          7900,  5),
    ('Gooseneck kettle',  'One litre, for the hob',               4500, 11),
    ('Kitchen scale',     'To a tenth of a gram, with a timer',   3200, 17),
    ('Espresso cup',      'Porcelain, 60 ml',                      850, 64),
    ('Cappuccino cup',    'Porcelain, 180 ml',                    1050, 42),
    ('Milk jug',          'Stainless steel, 350 ml',              1600, 23),
    ('Storage jar',       'Airtight, 500 g',                      1450, 30),
    ('House blend',       'Whole beans, 250 g',                    990, 75),
    ('Decaf',             'Whole beans, 250 g',                   1090,  0);
