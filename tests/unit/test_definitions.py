"""Where a function is defined: the file and line that a report can point at."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.sqltext.definitions import definition
from harness.sqltext.scripts import Script

FIRST = """\
CREATE TABLE t (id integer);
-- The first one.
CREATE FUNCTION take(p_id integer) RETURNS integer LANGUAGE sql AS $$ SELECT p_id $$;
CREATE FUNCTION shop.take(p_id integer, p_n integer = 1, OUT done boolean) LANGUAGE sql AS $$ SELECT true $$;
"""
SECOND = """\
CREATE OR REPLACE FUNCTION
    public.take(p_id integer) RETURNS integer LANGUAGE sql AS $$ SELECT p_id + 1 $$;
CREATE FUNCTION "Take"() RETURNS integer LANGUAGE sql RETURN 1;
CREATE FUNCTION broken(;
DO $$ BEGIN EXECUTE 'CREATE FUNCTION hidden() RETURNS integer LANGUAGE sql AS ''SELECT 1'''; END $$;
"""


@pytest.mark.parametrize(
    ("function", "parameters", "place"),
    [
        ("take", 1, "2.sql:1"),  # replaced by the second file
        ("take", 2, "1.sql:4"),
        ("shop.take", 2, "1.sql:4"),
        ("take", 7, "2.sql:1"),  # none fits: the last one
        ("Take", 0, "2.sql:3"),
        ("hidden", 0, None),
        ("broken", 0, None),
        ("elsewhere", 0, None),
    ],
)
def test_the_last_definition_that_fits_is_the_place(function: str, parameters: int, place: str | None) -> None:
    """By name, schema and number of parameters; unknown for what a DO block makes, and for what cannot be parsed."""
    found = definition([Script(Path("1.sql"), FIRST), Script(Path("2.sql"), SECOND)], function, parameters)
    assert (None if found is None else f"{found.path}:{found.line}") == place
