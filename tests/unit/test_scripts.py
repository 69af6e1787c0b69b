"""SQL files: found in order, cut into statements, each with the line of its first word."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.contracts import invariants
from harness.environment import migrations
from harness.errors import HarnessError
from harness.sqltext.scripts import Script


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "\\set who alice\nSELECT :'who', :\"who\", ':who', a::text, b[1:2], :other;",
            ["SELECT 'alice', \"alice\", ':who', a::text, b[1:2], :other"],
        ),
        ("\\set n 3\nSELECT :n;\n\\unset n\nSELECT :n;", ["SELECT 3", "SELECT :n"]),
        ("\\set a 'it''s'\n\\set b :a !\nSELECT :'b';", ["SELECT 'it''s!'"]),
        ("\\restrict abc\nSELECT 1;\n\\unrestrict abc\n", ["SELECT 1"]),
        ("\\echo hello; \\timing\nSELECT 1;\n\\d things\n\\connect other\n", ["SELECT 1"]),
        ("SELECT 1 \\g\nSELECT 2;", ["SELECT 1", "SELECT 2"]),
        ("\\if :{?x}\nSELECT 1;\n\\else\nSELECT 2;\n\\endif\n", ["SELECT 2"]),
        (
            "\\set x on\n\\if :x\n\\if false\nSELECT 1;\n\\elif true\nSELECT 2;\n\\endif\n\\else\nSELECT 3;\n\\endif",
            ["SELECT 2"],
        ),
        ("SELECT 1;\n\\q\nSELECT 2;", ["SELECT 1"]),
        ("-- migrate:up\nSELECT 1;\n-- migrate:down\nSELECT 2;\n", ["SELECT 1"]),
        (
            "-- +goose Up\n-- +goose StatementBegin\nSELECT 1;\n-- +goose StatementEnd\n-- +goose Down\nDROP x;",
            ["SELECT 1"],
        ),
        ("-- +migrate Down\nSELECT 1;\n-- +migrate Up\nSELECT 2;\n", ["SELECT 2"]),
        ("-- Up Migration\nSELECT 1;\n-- Down Migration\nSELECT 2;", ["SELECT 1"]),
        ("SELECT 1;\n-- Down migration: see the wiki\nSELECT 2;", ["SELECT 1", "SELECT 2"]),
        ("COPY t FROM stdin;\n1;\\N\n'\n\\.\nSELECT 2;", ["COPY t FROM stdin", "SELECT 2"]),
        ("\\copy t (a) from stdin with csv\n1;'\n\\.\nSELECT 2;", ["COPY t (a) FROM STDIN with csv", "SELECT 2"]),
        (
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN a THEN b END; END; SELECT 2;",
            [
                "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN a THEN b END; END",
                "SELECT 2",
            ],
        ),
        ("SELECT e'\\'; --', E'a\\\\'; SELECT 2;", ["SELECT e'\\'; --', E'a\\\\'", "SELECT 2"]),
    ],
)  # fmt: skip
def test_what_only_psql_and_migration_tools_know_is_read(text: str, expected: list[str]) -> None:
    """Variables, conditions, commands without effect, rows for COPY; the down part is never there."""
    assert [text for _, text in split(text)] == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("SELECT 1;\n\\! rm -rf x\n", r"x\.sql:2: The backslash command \\! makes no sense"),
        ("SELECT 1;\n\n\\i nowhere.sql\n", r"x\.sql:3: There is no file nowhere\.sql to include"),
        ("SELECT 1\n\\echo x\n", r"x\.sql:2: The backslash command \\echo stands inside a statement"),
        ("\\endif\n", r"x\.sql:1: \\endif has no \\if"),
        ("\\if maybe\n\\endif", r"x\.sql:1: \\if needs true or false, and has 'maybe'"),
        ("\\if true\nSELECT 1;", r"\\if has no \\endif"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused_with_its_place(text: str, says: str) -> None:
    """File and line, and what to do."""
    with pytest.raises(HarnessError, match=says) as raised:
        split(text)
    assert raised.value.next_step


def test_included_files_bring_their_statements_with_their_own_lines(tmp_path: Path) -> None:
    """\\ir beside the file, variables go along, and a circle is refused."""
    (tmp_path / "a.sql").write_text("\\set n 1\n\\ir parts/b.sql\nSELECT 3;\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "b.sql").write_text("\nSELECT :n;\n")
    found = list(Script.read(tmp_path / "a.sql").statements())
    assert [(s.path.name, s.line, s.text) for s in found] == [("b.sql", 2, "SELECT 1"), ("a.sql", 3, "SELECT 3")]
    (tmp_path / "parts" / "b.sql").write_text("\\ir ../a.sql\n")
    with pytest.raises(HarnessError, match="includes itself"):
        list(Script.read(tmp_path / "a.sql").statements())


@pytest.mark.parametrize(
    ("names", "expected", "says"),
    [
        (["20240102030405_b.sql", "20230102030405_a.sql"], ["20230102030405_a.sql", "20240102030405_b.sql"],
         "timestamps"),
        (["10_c.sql", "2_b.sql", "1_a.sql"], ["1_a.sql", "2_b.sql", "10_c.sql"], "numbers, by value"),
        (["V2__b.sql", "V1.10__d.sql", "V1.2__c.sql", "R__views.sql", "U2__b.sql"],
         ["V1.2__c.sql", "V1.10__d.sql", "V2__b.sql", "R__views.sql"], "Flyway"),
        (["000001_a.up.sql", "000001_a.down.sql", "000002_b.up.sql", "000002_b.down.sql"],
         ["000001_a.up.sql", "000002_b.up.sql"], "up parts only"),
        (["20240101_x/migration.sql", "20240102_y/migration.sql"], ["migration.sql", "migration.sql"], "Prisma"),
        (["1_a/migration.sql", "2_b/migration.sql", "2_b/old/x.sql", "archive/2019/y.sql"],
         ["migration.sql", "migration.sql"], "not looked into: archive, 2_b/old"),
        (["a.sql", "archive/2019/y.sql"], ["a.sql"], "not looked into: archive"),
        (["b.sql", "a.sql", "notes.txt", "old/z.sql"], ["a.sql", "b.sql"], "in name order; not looked into: old"),
        (["supabase/migrations/20240101000000_a.sql", "supabase/seed.sql"], ["20240101000000_a.sql"],
         "its folder migrations, timestamps"),
        (["0_p/01_b.sql", "0_p/03_c.sql", "1_p/00_a.sql"], ["00_a.sql", "01_b.sql", "03_c.sql"],
         "numbered files in several folders"),
        (["1_a/x.sql", "1_a/y.sql", "2_b/x.sql"], ["x.sql", "y.sql", "x.sql"], "numbered folders"),
        (["1_a.up.sql", "1_a.mysql.up.sql", "1_a.postgres.up.sql", "2_b.up.sql"], ["1_a.postgres.up.sql", "2_b.up.sql"],
         "for another database system"),
        (["1_a.sql", "1_a_rollback.sql", "2_price_rollback.sql"], ["1_a.sql", "2_price_rollback.sql"], "a down part"),
        (["1_a/up.sql", "1_a/down.sql", "2_b/up.sql", "stray.sql"], ["up.sql", "up.sql"], "the folders: stray.sql"),
        (["20170924000000_b/2.sql", "2017-09-25-000000_c/3.sql", "20170923000000_a/1.sql"], ["1.sql", "2.sql", "3.sql"],
         "Diesel"),
        (["supabase/20240102000000_b.sql", "supabase/20240101000000-5b2c.sql"],
         ["20240101000000-5b2c.sql", "20240102000000_b.sql"], "timestamps, in name order (Supabase)"),
        (["supabase/20240101000000_a.sql", "supabase/fix_everything.sql"], ["20240101000000_a.sql"],
         "(Supabase); left out, not named as the others: fix_everything.sql"),
    ],
)  # fmt: skip
def test_the_order_is_that_of_the_tool_and_is_said(
    names: list[str], expected: list[str], says: str, tmp_path: Path
) -> None:
    """Each tool's names in the order in which that tool would apply them; what it would not apply is left out."""
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("SELECT 1;")
    folder = tmp_path / "supabase" if names[0].startswith("supabase") else tmp_path
    found = migrations.find([folder], "migrations", "--migrations")
    assert [s.path.name for s in found.scripts] == expected
    assert says in found.order[0]


def test_sqitchs_plan_says_the_order(tmp_path: Path) -> None:
    """Deploy scripts alone; a change that was reworked after a tag has its first script at that tag."""
    (tmp_path / "sqitch.plan").write_text(
        "%syntax-version=1.0.0\n%project=flights\n\n# of note\nusers 2024-01-01T00:00:00Z Me <me@x> # first\n"
        "seats [users] 2024-01-01T00:00:00Z Me <me@x>\n@v1 2024-01-02T00:00:00Z Me <me@x>\n"
        "users [users@v1] 2024-01-03T00:00:00Z Me <me@x>\n"
    )
    for name in ("deploy/users.sql", "deploy/users@v1.sql", "deploy/seats.sql", "revert/users.sql"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("SELECT 1;")
    for folder in (tmp_path, tmp_path / "deploy"):
        found = migrations.find([folder], "migrations", "--migrations")
        assert [s.path.name for s in found.scripts] == ["users@v1.sql", "seats.sql", "users.sql"]
    (tmp_path / "deploy/seats.sql").unlink()
    with pytest.raises(HarnessError, match=r"The change seats of .*sqitch.plan has no file"):
        migrations.find([tmp_path], "migrations", "--migrations")


@pytest.mark.parametrize(
    ("config", "schemas", "seeds"),
    [
        ("""[db]
            migrations.schema_paths = ["./migrations/1_first.sql", "./schemas/b.sql", "./schemas/**/*.sql"]
            seed.sql_paths = ["./seeds/z.sql", "./seeds/*.sql", "./gone.sql"]""",
         ["1_first.sql", "b.sql", "a.sql", "c.sql"], ["z.sql", "a.sql"]),
        ("", ["a.sql", "b.sql", "c.sql"], ["seed.sql"]),
    ],
)  # fmt: skip
def test_supabases_config_lists_declarative_schemas_and_seeds(
    config: str, schemas: list[str], seeds: list[str], tmp_path: Path
) -> None:
    """In its order, each once; where it lists none, all schemas by path, and seed.sql."""
    home = tmp_path / "supabase"
    for name in ("migrations/1_first.sql", "schemas/a.sql", "schemas/b.sql", "schemas/in/c.sql", "seed.sql",
                 "seeds/a.sql", "seeds/z.sql"):  # fmt: skip
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("SELECT 1;")
    (home / "config.toml").write_text(config)
    found = migrations.find([home / "schemas"], "migrations", "--migrations")
    assert [s.path.name for s in found.scripts] == schemas
    seeded = migrations.find([home], "seed", "--seed")
    assert [s.path.name for s in seeded.scripts] == seeds
    if config:
        assert "there is no ./gone.sql" in seeded.order[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"SELECT 1;\n-- \xe9t\xe9\n", "byte 13, on line 2, is 0xe9"),
        ("SELECT 1;".encode("utf-16"), "it is UTF-16"),
        (b"PGDMP\x01\x0e\x00\x04", "pg_restore -f"),
    ],
)
def test_what_is_no_text_is_refused_with_the_byte(content: bytes, says: str, tmp_path: Path) -> None:
    """The byte, its line, and how to get text of it; going on lists the file and reads the others."""
    (tmp_path / "1.sql").write_bytes(content)
    (tmp_path / "2.sql").write_text("SELECT 1;")
    with pytest.raises(HarnessError) as raised:
        migrations.find([tmp_path], "migrations", "--migrations")
    assert says in f"{raised.value.tried} {raised.value.next_step}"
    found = migrations.find([tmp_path], "migrations", "--migrations", keep_going=True)
    assert [s.path.name for s in found.scripts] == ["2.sql"]
    assert [path.name for path, _ in found.unreadable] == ["1.sql"]


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
