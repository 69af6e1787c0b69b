"""`--changed-since`: what a change cannot reach is left out and named, and what is in doubt is checked."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.changed import choose
from harness.environment.embedded import EmbeddedServer
from harness.errors import ExitStatus, UsageError
from harness.options import Options
from tests.conftest import Sandbox

BASE = {
    "sql/001_shop.sql": "CREATE TABLE coupons (code text PRIMARY KEY, uses_left int);\nCREATE TABLE seats (id int);\n"
    "CREATE TABLE logs (what text);",
    "sql/002_redeem.sql": "CREATE FUNCTION redeem(c text) RETURNS void LANGUAGE sql AS $$\n"
    "UPDATE coupons SET uses_left = uses_left - 1 WHERE code = c; $$;",
    "sql/003_trigger.sql": "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN\n"
    "INSERT INTO logs VALUES ('x'); RETURN NULL; END $$;\n"
    "CREATE TRIGGER t AFTER INSERT ON seats FOR EACH ROW EXECUTE FUNCTION note();",
    "coupon.race.sql": "-- scenario: a\n-- session: p x 2\nSELECT redeem('A');\n",
    "seat.race.sql": "-- scenario: b\n-- session: p x 2\nINSERT INTO seats VALUES (1);\n",
}

EVERY = ["coupon", "seat"]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in BASE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for words in (("init", "-q"), ("add", "-A"), ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def chosen(repository: Path, since: str = "HEAD") -> tuple[list[str], str]:
    found = choose(sorted(repository.glob("*.race.sql")), since, Options(migrations=(Path("sql"),)))
    assert {*found.wanted, *found.left_out} == set(repository.glob("*.race.sql"))
    return [path.name.partition(".")[0] for path in found.wanted], found.why


@pytest.mark.parametrize(
    ("file", "text", "wanted", "why"),
    [
        ("sql/004.sql", "ALTER TABLE coupons ADD CHECK (uses_left >= 0);", ["coupon"], "coupons"),
        ("sql/004.sql", "ALTER TABLE seats ADD n int;", ["seat"], "seats"),
        ("sql/002_redeem.sql", BASE["sql/002_redeem.sql"].replace("- 1", "- 2"), ["coupon"], "redeem"),
        # By way of a trigger.
        ("sql/003_trigger.sql", BASE["sql/003_trigger.sql"].replace("'x'", "'y'"), ["seat"], "note"),
        ("sql/004.sql", "CREATE INDEX ON logs (what);", ["seat"], "logs"),
        ("sql/004.sql", "CREATE TABLE unheard_of (id int);", [], "unheard_of"),
        ("sql/004.sql", "-- a remark", [], "no migration has changed"),
        ("seat.race.sql", BASE["seat.race.sql"] + "-- longer\n", ["seat"], "no migration has changed"),
        ("README.md", "hello", [], "no migration has changed"),
        # A reference makes of two tables one.
        ("sql/004.sql", "CREATE TABLE uses (c text REFERENCES coupons, s int);", ["coupon"], "uses"),
        # In doubt.
        ("sql/004.sql", "DO $$ BEGIN EXECUTE 'ALTER TABLE ' || 'coupons ADD x int'; END $$;", EVERY, "(Do)"),
        ("sql/004.sql", "GRANT SELECT ON coupons TO public;", EVERY, "(Grant)"),
        ("sql/004.sql", "this is no SQL", EVERY, "cannot be read as SQL"),
        ("sql/004.sql", "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION note();", EVERY, "Event"),
    ],
)  # fmt: skip
def test_what_a_change_can_reach_is_checked(
    file: str, text: str, wanted: list[str], why: str, repository: Path
) -> None:
    """By the function, the table, a trigger, a reference; everything where it cannot be told."""
    (repository / file).write_text(text)
    found, said = chosen(repository)
    assert found == wanted, said
    assert why in said


def test_a_function_that_puts_its_sql_together_is_always_in_doubt(repository: Path) -> None:
    """What it touches is in no text."""
    dynamic = "CREATE OR REPLACE FUNCTION redeem(c text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE c; END $$;"
    (repository / "sql/002_redeem.sql").write_text(dynamic)
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "two"], cwd=repository, check=True
    )
    (repository / "sql/004.sql").write_text("ALTER TABLE seats ADD n int;")
    assert chosen(repository)[0] == ["coupon", "seat"]


def test_a_dropped_table_reaches_who_names_it(repository: Path) -> None:
    """A file that is gone counts with what it said."""
    (repository / "sql/003_trigger.sql").unlink()
    assert chosen(repository)[0] == ["seat"]


def test_a_commit_that_is_not_there_is_wrong_usage(repository: Path) -> None:
    """With git's words and what to do."""
    with pytest.raises(UsageError) as caught:
        chosen(repository, "nowhere")
    assert "--changed-since nowhere cannot be looked up" in str(caught.value)
    assert "fetch-depth: 0" in str(caught.value)


def test_the_command_says_what_it_leaves_out(repository: Path, server: EmbeddedServer, sandbox: Sandbox) -> None:
    """With nothing left there is nothing to boot, and no verdict."""
    (repository / "README.md").write_text("hello")
    words = ("harness", "check", "--server", server.dsn, "--migrations", "sql", "--changed-since", "HEAD")
    done = sandbox.run(*words, "coupon.race.sql", "seat.race.sql", cwd=repository)
    assert done.returncode == ExitStatus.HELD, done.stderr
    assert "0 of 2 scenarios are checked: no migration has changed since HEAD" in done.stderr
    assert done.stderr.count("left out, the changes do not reach it: ") == 2
    assert "verdict" not in done.stdout
