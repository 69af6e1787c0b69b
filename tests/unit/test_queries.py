"""Named queries: one reader for the harness's own and for a project's."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from harness.sqltext import queries
from harness.sqltext.scripts import Script

FILE = """\
-- What the shop must never do.

-- name: no_negative_stock
-- claim: Stock never goes below zero.
SELECT * FROM items WHERE stock < 0;

SELECT ';' AS "-- name: not_a_heading" -- name: nor_this
 WHERE 1 = 2;

-- name: templated
-- Takes {places}, $1 and %(names)s as they are.
SELECT {columns} FROM {call} WHERE a = %(name)s AND b = $1
"""


def test_a_query_has_the_name_and_the_headings_of_the_comment_above_it() -> None:
    """With its line, and without that comment; one without a name has none."""
    named, plain, templated = queries.read(Script(Path("shop.sql"), FILE))
    assert (named.name, named.headings["claim"], named.line) == ("no_negative_stock", "Stock never goes below zero.", 5)
    assert named.text == "SELECT * FROM items WHERE stock < 0"
    assert (plain.name, plain.headings) == ("", {})
    assert templated.text == "SELECT {columns} FROM {call} WHERE a = %(name)s AND b = $1"


@pytest.mark.parametrize(
    ("package", "file"),
    [
        ("harness.environment", "queries.sql"),
        ("harness.targets", "queries.sql"),
        ("harness.schedules", "control.sql"),
    ],
)
def test_each_of_the_harness_s_own_queries_has_a_name_of_its_own(package: str, file: str) -> None:
    """One without would be lost, and of two with the same name the first."""
    text = resources.files(package).joinpath(file).read_text()
    found = list(queries.read(Script(Path(file), text)))
    assert len(found) == text.count("-- name: ")
    assert [query.name for query in found] == list(queries.own(package, file))
    assert all(query.name for query in found)
