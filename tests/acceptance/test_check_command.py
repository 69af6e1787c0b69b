"""`harness check`, `harness new` and pytest on scenario files, as a stranger uses them."""

from __future__ import annotations

import json
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from harness.environment.embedded import EmbeddedServer
from harness.errors import ExitStatus
from tests.conftest import Sandbox

BROKEN = """\
-- scenario: a sale is not lost
-- setup
CREATE TABLE stock (n int NOT NULL);
INSERT INTO stock VALUES (10);
-- session: shop x 2
BEGIN;
SELECT n AS had FROM stock \\gset
UPDATE stock SET n = :had - 1;
COMMIT;
"""
HELD = BROKEN.replace("FROM stock \\gset", "FROM stock FOR UPDATE \\gset").replace("a sale is", "a locked sale is")
UNDECIDED = HELD.replace("FOR UPDATE", "FOR UPDATE NOWAIT").replace("a locked sale is", "a hasty sale is")
WRONG = BROKEN.replace("-- session:", "-- sesion:")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a scenario for each verdict, and a migration that none of them needs."""
    (tmp_path / "tables.sql").write_text("CREATE TABLE unused (n int);\n")
    for name, text in (("broken", BROKEN), ("held", HELD), ("undecided", UNDECIDED)):
        (tmp_path / f"{name}.race.sql").write_text(text)
    return tmp_path


def test_each_verdict_has_its_status(folder: Path, sandbox: Sandbox, server: EmbeddedServer) -> None:
    """0 held, 1 broken, 4 undecided, 2 a mistake in the file; a broken one says how to see it again."""
    expected = {"held": ExitStatus.HELD, "broken": ExitStatus.BROKEN, "undecided": ExitStatus.UNDECIDED}
    for name, status in expected.items():
        words = ("check", f"{name}.race.sql", "--migrations", "tables.sql")
        done = sandbox.run("harness", *words, cwd=folder, HARNESS_SERVER=server.dsn)
        assert done.returncode == status, done.stdout + done.stderr
        if name == "broken":
            assert "lost update" in done.stdout
            assert "where: broken.race.sql:8\n" in done.stdout  # the statement at which it goes wrong
            (repeat,) = {line.partition("repeat: ")[2] for line in done.stdout.splitlines() if "--replay" in line}
            assert "--migrations tables.sql" in repeat
            again = sandbox.run(*shlex.split(repeat), cwd=folder)  # as it is printed, the server included
            assert again.returncode == ExitStatus.BROKEN, again.stdout + again.stderr
        if name == "undecided":
            assert "-- busy: when error 55P03" in done.stdout
    (folder / "wrong.race.sql").write_text(WRONG)
    done = sandbox.run("harness", "check", ".", cwd=folder, HARNESS_SERVER=server.dsn)
    assert (done.returncode, done.stdout) == (ExitStatus.USAGE, "")
    assert "wrong.race.sql:5: There is no heading 'sesion'" in done.stderr
    assert "write `session:`" in done.stderr


def test_the_matrix_tries_every_level(folder: Path, sandbox: Sandbox) -> None:
    """One level beside it is a contradiction, said before anything is booted."""
    done = sandbox.run("harness", "check", "held.race.sql", "--matrix", "--isolation", "serializable", cwd=folder)
    assert (done.returncode, done.stdout) == (ExitStatus.USAGE, "")
    assert "leave --isolation out" in done.stderr


def test_a_server_that_is_not_there_is_status_3(folder: Path, sandbox: Sandbox) -> None:
    """Nothing was judged, and what is missing is said."""
    done = sandbox.run("harness", "check", "held.race.sql", "--server", "postgresql://127.0.0.1:1/nothing", cwd=folder)
    assert (done.returncode, done.stdout) == (ExitStatus.ENVIRONMENT, "")
    assert "127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_goes_away_in_the_first_check_leaves_a_record(
    folder: Path, sandbox: Sandbox, server: EmbeddedServer
) -> None:
    """What is known: the server, what was applied, and why no verdict came of it; text, record and status agree."""
    ends = "EXECUTE 'SELECT pg_termin' || 'ate_backend(pg_backend_pid())';"  # as if an administrator had done it
    (folder / "ends.race.sql").write_text(f"-- scenario: it is ended\n-- session: s x 2\nDO $$ BEGIN {ends} END $$;\n")
    words = ("check", "ends.race.sql", "--migrations", "tables.sql", "--record", "r.json")
    done = sandbox.run("harness", *words, cwd=folder, HARNESS_SERVER=server.dsn)
    assert done.returncode == ExitStatus.ENVIRONMENT, done.stdout + done.stderr
    record = json.loads((folder / "r.json").read_text())
    assert (record["truth"], record["exit_status"], record["runs"]) == ("undecided", 3, [])
    assert [file["path"] for file in record["migrations"]] == ["tables.sql"]
    assert "verdict: undecided - cut short: The connection of the session s-1 was lost" in done.stdout


def test_a_check_may_go_on_without_what_failed_and_says_so(
    folder: Path, sandbox: Sandbox, server: EmbeddedServer
) -> None:
    """Without --keep-going a statement that fails is status 3; with it the report names what is missing."""
    (folder / "tables.sql").write_text("CREATE TABLE odd (n nosuch);\n")
    words = ("check", "held.race.sql", "--migrations", "tables.sql")
    done = sandbox.run("harness", *words, cwd=folder, HARNESS_SERVER=server.dsn)
    assert done.returncode == ExitStatus.ENVIRONMENT
    assert "tables.sql:1" in done.stderr
    done = sandbox.run("harness", *words, "--keep-going", cwd=folder, HARNESS_SERVER=server.dsn)
    assert done.returncode == ExitStatus.HELD
    missing = '1 of the files\' statements failed; first tables.sql:1: type "nosuch" does not exist'
    assert f"gone on without (--keep-going): {missing}" in done.stdout


def test_the_record_is_printed_as_the_check_was(folder: Path, sandbox: Sandbox, server: EmbeddedServer) -> None:
    """One record for all files, with their sessions; `harness report` prints the same and ends the same."""
    done = sandbox.run("harness", "check", ".", "--record", "r.json", cwd=folder, HARNESS_SERVER=server.dsn)
    assert done.returncode == ExitStatus.BROKEN
    record = json.loads((folder / "r.json").read_text())
    assert [run["details"]["check"]["name"] for run in record["runs"]] == ["broken", "held", "undecided"]
    assert record["runs"][0]["details"]["sessions"] == ["shop-1", "shop-2"]
    again = sandbox.run("harness", "report", "r.json", cwd=folder)
    assert (again.returncode, again.stdout) == (done.returncode, done.stdout)


def test_pytest_collects_scenarios(folder: Path, sandbox: Sandbox, server: EmbeddedServer) -> None:
    """One item each, named by its claim; -k, --collect-only, JUnit and xdist work, and one option turns it off."""
    done = sandbox.run("pytest", "--collect-only", "-q", cwd=folder)
    assert "broken.race.sql::a sale is not lost" in done.stdout
    done = sandbox.run("pytest", "--harness-no-scenarios", cwd=folder)
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    done = sandbox.run("pytest", "-n", "2", "--junitxml", "r.xml", cwd=folder, HARNESS_SERVER=server.dsn)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert "2 failed, 1 passed" in done.stdout
    assert "lost update" in done.stdout
    assert "Traceback" not in done.stdout
    cases = {case.get("name"): case for case in ET.parse(folder / "r.xml").iter("testcase")}
    properties = {p.get("name"): p.get("value") for p in cases["a locked sale is not lost"].iter("property")}
    assert properties["harness.check.verdict"] == "held"
    done = sandbox.run("pytest", "-k", "locked", cwd=folder, HARNESS_SERVER=server.dsn)
    assert "1 passed, 2 deselected" in done.stdout


def test_a_scenario_to_start_from(folder: Path, sandbox: Sandbox, server: EmbeddedServer) -> None:
    """An example is copied and checked as it is; nothing is written over; the command that is printed runs."""
    function = "CREATE FUNCTION add(n int) RETURNS int LANGUAGE sql AS 'SELECT n + 1';\n"
    (folder / "tables.sql").write_text(function)
    done = sandbox.run("harness", "new", "add", "--migrations", "tables.sql", "--server", server.dsn, cwd=folder)
    command = done.stdout.partition("check it: ")[2].strip()
    again = sandbox.run(*shlex.split(command), "--by", "race", cwd=folder)
    assert again.returncode in (ExitStatus.HELD, ExitStatus.UNDECIDED), command + again.stderr
    assert "last_seat" in sandbox.run("harness", "new", cwd=folder).stdout
    done = sandbox.run("harness", "new", "--example", "last_seat", cwd=folder)
    assert done.returncode == 0, done.stderr
    done = sandbox.run("harness", "new", "--example", "last_seat", cwd=folder)
    assert done.returncode == ExitStatus.USAGE
    assert "last_seat.race.sql is there already" in done.stderr
    done = sandbox.run(
        "harness", "check", "last_seat.race.sql", "--by", "explore", cwd=folder, HARNESS_SERVER=server.dsn
    )
    assert done.returncode == ExitStatus.HELD, done.stdout
