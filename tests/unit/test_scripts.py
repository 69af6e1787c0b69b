"""SQL files: found in order, cut into statements, each with the line of its first word."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.environment import migrations
from harness.errors import HarnessError
from harness.sqltext.scripts import Script
from harness.verdict import invariants


def split(text: str) -> list[tuple[int, str]]:
    return [(s.line, s.text) for s in Script(Path("x.sql"), text).statements()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("-- only a comment\n", []),
        (";;\n", []),
        ("SELECT 1", [(1, "SELECT 1")]),
        ("SELECT 1;", [(1, "SELECT 1")]),
        ("SELECT 1; SELECT 2;", [(1, "SELECT 1"), (1, "SELECT 2")]),
        ("\n\nSELECT 1;\n\nSELECT 2;\n", [(3, "SELECT 1"), (5, "SELECT 2")]),
        ("-- a; b\nSELECT 1;", [(2, "SELECT 1")]),
        ("/* a;\n/* nested; */\n*/\nSELECT 1;\nSELECT 2", [(4, "SELECT 1"), (5, "SELECT 2")]),
        ("SELEKT 1;\nnonsense;\nSELECT 2", [(1, "SELEKT 1"), (2, "nonsense"), (3, "SELECT 2")]),
        (
            "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2);",
            [(1, "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)")],
        ),
        ("SELECT 1 /* in; the */ + 2; -- after\nSELECT 3", [(1, "SELECT 1 /* in; the */ + 2"), (2, "SELECT 3")]),
        ("SELECT ';';\nSELECT 2", [(1, "SELECT ';'"), (2, "SELECT 2")]),
        ("SELECT $$;\n;$$;\nSELECT 2", [(1, "SELECT $$;\n;$$"), (3, "SELECT 2")]),
        ("SELECT $a$ $$;$$ $a$; SELECT 2", [(1, "SELECT $a$ $$;$$ $a$"), (1, "SELECT 2")]),
        ('SELECT 1 AS ";"; SELECT 2', [(1, 'SELECT 1 AS ";"'), (1, "SELECT 2")]),
        ("SELECT 'é;ü';\n\n-- ü\nSELECT 2", [(1, "SELECT 'é;ü'"), (4, "SELECT 2")]),
        (
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END;\nSELECT 3",
            [(1, "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END"), (2, "SELECT 3")],
        ),
        ("SELECT 1;\r\n\r\nSELECT 2;\r\n", [(1, "SELECT 1"), (3, "SELECT 2")]),
        ("\ufeffSELECT 1;\nSELECT 2;", [(1, "SELECT 1"), (2, "SELECT 2")]),
    ],
)
def test_a_file_is_cut_where_a_statement_ends(text: str, expected: list[tuple[int, str]]) -> None:
    """Semicolons in strings, bodies, names and comments end nothing, and lines are counted as an editor does."""
    assert split(text) == expected


@pytest.mark.parametrize("text", ["SELECT 'open", "SELECT $$ open", "SELECT 1; /* open"])
def test_an_unclosed_quote_is_an_error_of_the_file(text: str) -> None:
    """The error names the file and what to look for."""
    with pytest.raises(HarnessError, match=r"x\.sql cannot be split") as caught:
        split(text)
    assert "unclosed" in caught.value.next_step


def test_files_come_in_the_order_given_and_folders_in_name_order(tmp_path: Path) -> None:
    """A folder gives its .sql files and nothing else."""
    (tmp_path / "folder").mkdir()
    for name in ("folder/b.sql", "folder/a.sql", "folder/notes.txt", "z.sql"):
        (tmp_path / name).write_text(f"-- {name}")
    found = migrations.find([tmp_path / "z.sql", tmp_path / "folder"], "migrations", "--migrations")
    assert [s.path.name for s in found.scripts] == ["z.sql", "a.sql", "b.sql"]


def test_the_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    """As `sha256sum` prints it, whatever the line ends."""
    import hashlib

    path = tmp_path / "a.sql"
    path.write_bytes(b"SELECT 1;\r\nSELECT '\xc3\xa9';\r\n")
    (script,) = migrations.find([path], "migrations", "--migrations").scripts
    assert script.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_a_folder_that_is_missing_or_empty_is_an_error(kind: str, tmp_path: Path) -> None:
    """The error names the path and the option."""
    path = tmp_path / "sql"
    if kind == "empty":
        path.mkdir()
        (path / "readme.md").write_text("no SQL here")
    with pytest.raises(HarnessError) as caught:
        migrations.find([path], "migrations", "--migrations")
    assert str(path) in caught.value.what
    assert "--migrations" in caught.value.next_step


def test_a_file_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are not guessed at."""
    path = tmp_path / "a.sql"
    path.write_bytes(b"SELECT '\xff';")
    with pytest.raises(HarnessError, match=r"a\.sql cannot be read"):
        migrations.find([path], "seed", "--seed")


def test_an_invariant_has_the_name_and_the_claim_of_its_comment(tmp_path: Path) -> None:
    """Without one, its file's name and place, and the line it is on."""
    path = tmp_path / "mine.sql"
    path.write_text(
        "-- A file of mine.\n\n-- name: no_orphans\n-- claim: Every log has a ticket.\nSELECT 1 WHERE false;\n\n"
        "SELECT 2 WHERE false;\n"
    )
    named, unnamed = invariants.load([path])
    assert (named.name, named.claim, named.line) == ("no_orphans", "Every log has a ticket.", 5)
    assert (unnamed.name, unnamed.claim) == ("mine.2", "mine.sql:7 returns no row")


def test_two_invariants_of_one_name_are_an_error(tmp_path: Path) -> None:
    """A finding's id must say which query it is."""
    for name in ("a.sql", "b.sql"):
        (tmp_path / name).write_text("-- name: same\nSELECT 1 WHERE false;")
    with pytest.raises(HarnessError, match="Two invariants are named 'same'"):
        invariants.load([tmp_path])


def test_a_file_without_a_query_is_an_error(tmp_path: Path) -> None:
    """An empty file of invariants holds for everything, so it cannot be meant."""
    (tmp_path / "a.sql").write_text("-- nothing yet\n")
    with pytest.raises(HarnessError, match="holds no query"):
        invariants.load([tmp_path])
