"""`--changed-since`: what a change cannot reach is left out and named, and what is in doubt is checked."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import contracts, records
from harness.changed import choose, matters
from harness.check import open_checks
from harness.environment.embedded import EmbeddedServer
from harness.errors import ExitStatus, UsageError
from harness.options import Options
from harness.scenarios import reader
from harness.verdict.findings import Finding, Truth
from tests.conftest import ROOT, Sandbox

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


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=root, check=True)


def commit(root: Path, files: dict[str, str]) -> None:
    """A repository with these files, and what is there already."""
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "one")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    commit(tmp_path, BASE)
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
    git(repository, "commit", "-qam", "two")
    (repository / "sql/004.sql").write_text("ALTER TABLE seats ADD n int;")
    assert chosen(repository)[0] == ["coupon", "seat"]


def test_a_dropped_table_reaches_who_names_it(repository: Path) -> None:
    """A file that is gone counts with what it said."""
    (repository / "sql/003_trigger.sql").unlink()
    assert chosen(repository)[0] == ["seat"]


@pytest.mark.parametrize(
    ("before", "file", "text", "wanted", "why"),
    [
        ({"sql/004.sql": "\\ir ../f.sql\n", "f.sql": ""}, "f.sql", "SELECT 1;", EVERY, "f.sql has changed, and may"),
        ({"sql/journal.json": "{}"}, "sql/journal.json", "[]", EVERY, "what it says of the migrations is not known"),
        ({"config.toml": ""}, "config.toml", "[db]", EVERY, "what it says of the migrations is not known"),
        ({"app/config.toml": ""}, "app/config.toml", "[db]", [], "no migration has changed"),
        ({".gitignore": "sql/004.sql"}, "sql/004.sql", "ALTER TABLE seats ADD n int;", ["seat"], "seats"),
        ({}, 'sql/odd "name".sql', "ALTER TABLE seats ADD n int;", ["seat"], "seats"),
    ],
    ids=["included", "journal", "config", "another config", "ignored by git", "odd name"],
)
def test_what_is_applied_is_looked_at_wherever_it_comes_from(
    before: dict[str, str], file: str, text: str, wanted: list[str], why: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """An included file, what names the files and their order, a file that git does not list: not taken for nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app").mkdir()
    commit(tmp_path, BASE | before)
    (tmp_path / file).write_text(text)
    found, said = chosen(tmp_path)
    assert found == wanted, said
    assert why in said


def test_a_migration_that_is_renamed_or_linked_is_changed(repository: Path) -> None:
    """Its order is another; what it links to is what is applied."""
    git(repository, "mv", "sql/002_redeem.sql", "sql/009_redeem.sql")
    assert chosen(repository)[0] == ["coupon"]
    (repository / "real.sql").write_text(BASE["sql/002_redeem.sql"])
    (repository / "sql/009_redeem.sql").unlink()
    (repository / "sql/009_redeem.sql").symlink_to("../real.sql")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "two")
    assert chosen(repository)[0] == []
    (repository / "real.sql").write_text(BASE["sql/002_redeem.sql"].replace("- 1", "- 2"))
    assert chosen(repository)[0] == ["coupon"]


def test_what_lies_outside_of_the_repository_may_have_changed(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its migrations: everything is checked. A scenario: it is."""
    outside = tmp_path_factory.mktemp("outside")
    scenario = outside / "far.race.sql"
    scenario.write_text(BASE["seat.race.sql"])
    near = repository / "seat.race.sql"
    found = choose([scenario, near], "HEAD", Options(migrations=(repository / "sql",)))
    assert (found.wanted, found.left_out) == ((scenario,), (near,))
    (outside / "001.sql").write_text(BASE["sql/001_shop.sql"])
    found = choose([near], "HEAD", Options(migrations=(outside,)))
    assert found.wanted == (near,)
    assert "lies outside of" in found.why


def test_a_shallow_clone_and_no_clone_say_what_to_do(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit that was not fetched is not taken for one without changes."""
    git(repository, "commit", "-q", "--allow-empty", "-m", "two")
    shallow = tmp_path_factory.mktemp("clones") / "shallow"
    git(repository, "clone", "-q", "--depth", "1", repository.as_uri(), str(shallow))
    for folder, since, said in (
        (shallow, "HEAD~1", "fetch-depth: 0"),
        (shallow.parent, "HEAD", "not a git repository"),
    ):
        monkeypatch.chdir(folder)
        with pytest.raises(UsageError, match=said):
            choose([], since, Options(migrations=(Path("sql"),)))


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


MEASURED = {
    "sql/001_shop.sql": """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE people (id int PRIMARY KEY, name text, is_open boolean NOT NULL DEFAULT true);
CREATE TABLE coupons (code text PRIMARY KEY, uses_left int, owner int REFERENCES people);
CREATE TABLE seats (id int, how mood);
CREATE TABLE logs (what text);
CREATE TABLE archive (what text);
CREATE TABLE unused (id text REFERENCES coupons);
CREATE VIEW open_people AS SELECT id FROM people WHERE is_open;
INSERT INTO people VALUES (1, 'ann');
CREATE FUNCTION visible(c text) RETURNS boolean LANGUAGE sql AS $$ SELECT c <> 'hidden' $$;
ALTER TABLE coupons ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_of_them ON coupons USING (visible(code));
GRANT ALL ON coupons, seats, logs TO public;""",
    "sql/002_functions.sql": """
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
    INSERT INTO logs VALUES ('x'); RETURN NULL; END $$;
CREATE FUNCTION redeem(c text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    IF c = 'never' THEN INSERT INTO archive VALUES (c); END IF;
    EXECUTE 'UPDATE cou' || 'pons SET uses_left = uses_left - 1 WHERE code = $1' USING c;
    PERFORM FROM open_people; END $$;
DO $$ BEGIN EXECUTE 'CREATE TRIGGER t AFTER INSERT ON seats FOR EACH ROW EXECUTE FUNCTION note()'; END $$;""",
    "coupon.race.sql": "-- scenario: a\n-- setup\nINSERT INTO coupons VALUES ('A', 9);\n-- session: p x 2\n"
    "-- as: authenticated\nSELECT redeem('A');\n",
    "seat.race.sql": "-- scenario: b\n-- session: p x 2\nINSERT INTO seats VALUES (1, 'good');\n",
}  # fmt: skip
"""What text alone cannot tell: a DO block that makes a trigger, and SQL that is put together."""


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory, server: EmbeddedServer) -> Path:
    """A repository whose scenarios were checked, with the record beside it."""
    root = tmp_path_factory.mktemp("measured")
    commit(root, MEASURED)
    options = Options(server=server.dsn, migrations=(Path("sql"),), platform="supabase")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        with open_checks(options) as checks:
            for path in sorted(Path().glob("*.race.sql")):
                checks.check(reader.read(path))
            checks.record("").write(root / "last.json")
    return root


@pytest.fixture
def measured(checked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to be changed."""
    root = tmp_path / "copy"
    shutil.copytree(checked, root)
    monkeypatch.chdir(root)
    return root


def by_measure(last: str = "last.json") -> tuple[list[str], str]:
    found = choose(sorted(Path().glob("*.race.sql")), "HEAD", Options(migrations=(Path("sql"),)), Path(last))
    return [path.name.partition(".")[0] for path in found.wanted], found.why


def test_the_record_says_what_a_scenario_touched(measured: Path) -> None:
    """Tables and functions as they were counted, also those of dynamic SQL, triggers, policies and foreign keys."""
    coupon, seat = (run.touched for run in records.read(measured / "last.json").runs)
    assert coupon is not None
    assert seat is not None
    assert (coupon.tables, seat.tables) == (("coupons", "people"), ("logs", "seats"))
    assert (coupon.functions, seat.functions) == (("redeem",), ("note",))
    assert {"visible", "open_people", "archive"} <= set(coupon.reached)
    assert {"unused", "seats", "note"}.isdisjoint((*coupon.tables, *coupon.reached))


OLD = MEASURED["sql/001_shop.sql"], MEASURED["sql/002_functions.sql"]


@pytest.mark.parametrize(
    ("file", "text", "wanted"),
    [
        # A table that nobody touches, be it in one statement with one that somebody does.
        ("sql/004.sql", "CREATE TABLE unheard_of (id int); INSERT INTO unheard_of VALUES (1);", []),
        ("sql/004.sql", "ALTER TABLE unused ADD n int;", []),
        ("sql/004.sql", "CREATE FUNCTION totals() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM seats';", []),
        ("sql/004.sql", "CREATE VIEW taken AS SELECT * FROM seats;", []),
        # The trigger's function, and a trigger on what is touched.
        ("sql/002_functions.sql", OLD[1].replace("'x'", "'y'"), ["seat"]),
        ("sql/004.sql", "CREATE TRIGGER u AFTER INSERT ON logs FOR EACH ROW EXECUTE FUNCTION note();", ["seat"]),
        # The view, which a function reads that is called.
        ("sql/004.sql", "CREATE OR REPLACE VIEW open_people AS SELECT id FROM people;", ["coupon"]),
        # The policy, another one, and the function that it asks.
        ("sql/001_shop.sql", OLD[0].replace("USING (visible(code))", "USING (true)"), ["coupon"]),
        ("sql/004.sql", "CREATE POLICY own ON coupons AS RESTRICTIVE USING (owner = 1);", ["coupon"]),
        ("sql/001_shop.sql", OLD[0].replace("<> 'hidden'", "<> 'secret'"), ["coupon"]),
        # The function itself, and the table that it touches by SQL which is put together.
        ("sql/002_functions.sql", OLD[1].replace("- 1", "- 2"), ["coupon"]),
        ("sql/004.sql", "CREATE INDEX ON coupons (uses_left);", ["coupon"]),
        # By a foreign key either way: who refers to it, and to whom it refers.
        ("sql/004.sql", "CREATE TABLE uses (code text REFERENCES coupons ON DELETE CASCADE);", ["coupon"]),
        ("sql/004.sql", "DELETE FROM people;", ["coupon"]),
        # A type of a column; what a function names where it did not come by.
        ("sql/004.sql", "ALTER TYPE mood ADD VALUE 'sad';", ["seat"]),
        ("sql/004.sql", "DROP TABLE archive;", ["coupon"]),
        # In doubt.
        ("sql/004.sql", "DO $$ BEGIN EXECUTE 'DROP TABLE x'; END $$;", EVERY),
        ("sql/004.sql", "CREATE OPERATOR << (FUNCTION = enum_lt, LEFTARG = mood, RIGHTARG = mood);", EVERY),
        ("pyproject.toml", "[tool.harness]\nisolation = 'serializable'", EVERY),
        ("pyproject.toml", "[tool.ruff]\nline-length = 99", []),
    ],
)  # fmt: skip
def test_what_was_measured_decides(file: str, text: str, wanted: list[str], measured: Path) -> None:
    """Where text alone would have everything in doubt, for a DO block and for dynamic SQL."""
    (measured / file).write_text(text)
    found, said = by_measure()
    assert found == wanted, said
    assert wanted == EVERY or "last.json" in said or "no migration has changed" in said


def test_a_record_of_other_files_says_nothing(measured: Path) -> None:
    """What else changed between it and the commit is not known; the text decides, and that is said."""
    (measured / "sql/003.sql").write_text("CREATE TABLE seats_2 (id int);")
    git(measured, "add", "-A")
    git(measured, "commit", "-qm", "two")
    (measured / "sql/004.sql").write_text("CREATE TABLE unheard_of (id int);")
    found, said = by_measure()
    assert found == EVERY
    assert "last.json was made with another sql/003.sql" in said


def test_what_did_not_hold_is_checked(measured: Path) -> None:
    """Left out, it would be taken for green."""
    last = records.read(measured / "last.json")
    broken = Finding("a.one_after_another", "it is so", Truth.BROKEN, "it is not", evidence=({},))
    first = dataclasses.replace(last.runs[0], findings=(broken,))
    dataclasses.replace(last, runs=(first, last.runs[1])).write(measured / "last.json")
    (measured / "sql/004.sql").write_text("CREATE TABLE unheard_of (id int);")
    found, said = by_measure()
    assert found == ["coupon"]
    assert "not held in last.json: coupon.race.sql" in said


def test_a_scenario_that_the_record_does_not_know_goes_by_text(measured: Path) -> None:
    """One that was written anew, or is another since, though git sees no change."""
    (measured / "seat.race.sql").write_text(MEASURED["seat.race.sql"] + "-- longer\n")
    git(measured, "commit", "-qam", "two")
    (measured / "sql/004.sql").write_text("CREATE TABLE unheard_of (id int);")
    found, said = by_measure()
    assert found == ["seat"]
    assert "by text, since last.json does not say what they touch: seat.race.sql" in said


def test_a_function_is_left_out_by_the_same_means(
    tmp_path: Path, server: EmbeddedServer, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`harness run` and `explore` of a contract: its record says what a run of it touched; else the text does."""
    shutil.copytree(ROOT / "sql", tmp_path / "sql")
    commit(tmp_path, {"notes.md": ""})
    monkeypatch.chdir(tmp_path)
    words = ("harness", "run", "--server", server.dsn, "--pattern", "unknown", "--record", "r.json", "-q")
    migration = tmp_path / "sql/migrations/0009.sql"

    migration.write_text("CREATE TABLE unheard_of (id int);")
    done = sandbox.run(*words, "--changed-since", "HEAD", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (ExitStatus.HELD, "")
    assert "left out, the changes do not reach it: scan_ticket_atomic" in done.stderr

    migration.write_text("ALTER TABLE tickets ADD note text;")
    done = sandbox.run(*words, "--changed-since", "HEAD", cwd=tmp_path)
    assert "scan_ticket_atomic is called: changed since HEAD: tickets\n" in done.stderr
    assert "verdict: held" in done.stdout

    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "two")
    later = tmp_path / "sql/migrations/0010.sql"
    for text, wanted in (
        ("DELETE FROM scan_logs;", True),
        ("CREATE VIEW all_tickets AS SELECT * FROM tickets;", False),
    ):
        later.write_text(text)
        found, why = matters(contracts.asked_for(Options()), "HEAD", Options(), Path("r.json"))
        assert found is wanted, why
        assert why.endswith("by what was touched in r.json")
    (tmp_path / "contract.py").write_text("")
    assert matters(contracts.asked_for(Options()), "HEAD", Options()) == (True, "contract.py has changed since HEAD")
