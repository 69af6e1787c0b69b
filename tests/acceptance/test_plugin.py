"""The pytest plugin as a user meets it, in a project with migrations of its own."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from harness.environment.embedded import EmbeddedServer
from tests.conftest import ROOT, Sandbox

GIVEN = ("--harness-migrations", "supabase/migrations", "--harness-seed", "tests/seed")
BREAK = """
CREATE OR REPLACE FUNCTION scan_ticket_atomic(
    p_ticket_id uuid, p_scanned_by uuid, p_device_id text DEFAULT NULL, p_scan_method text DEFAULT 'qr'
)
RETURNS TABLE (success boolean, already_scanned boolean, scanned_at timestamptz, scanned_by uuid, error_message text)
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE tickets SET is_used = true, status = 'used', scanned_at = now(), scanned_by = p_scanned_by
     WHERE id = p_ticket_id;
    RETURN QUERY SELECT true, false, now(), p_scanned_by, NULL::text;
END $$;
"""


class Project:
    """The example, with pytest run in it."""

    def __init__(self, sandbox: Sandbox, folder: Path, dsn: str) -> None:
        self.sandbox, self.folder, self.dsn = sandbox, folder, dsn

    def pytest(self, *words: str, server: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.sandbox.run(
            "pytest",
            "-p",
            "no:cacheprovider",
            "--harness-server",
            server or self.dsn,
            *words,
            cwd=self.folder,
            **variables,
        )

    def test(self, text: str, name: str = "test_more.py") -> None:
        (self.folder / "tests" / name).write_text(text)

    def breaks(self) -> None:
        """A later migration takes the guard away."""
        (self.folder / "supabase" / "migrations" / "20250101000000_break.sql").write_text(BREAK)


@pytest.fixture
def project(sandbox: Sandbox, example: Path, server: EmbeddedServer) -> Project:
    return Project(sandbox, example, server.dsn)


def test_one_test_of_three_lines_is_all_it_takes(project: Project) -> None:
    """The example project as it stands, booting a server of its own, and nothing of it left."""
    done = project.pytest(*GIVEN, server="embedded")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    summary = done.stdout[done.stdout.index("= harness =") :]
    assert "(embedded: asked for)" in summary
    assert re.search(r"\ntests/test_gate.py::test_one_ticket_lets_one_person_in\n✓ held  race \(sql\) ", summary)
    assert "verdict: held (1 run)" in summary
    assert project.sandbox.left_behind() == []


def test_a_red_verdict_fails_the_test_and_shows_why(project: Project) -> None:
    """The failure names the claim, and the summary has what was observed and the command that repeats it."""
    project.breaks()
    done = project.pytest(*GIVEN)
    assert done.returncode == 1
    assert "1 failed" in done.stdout
    failure = done.stdout[done.stdout.index("= FAILURES =") : done.stdout.index("= harness =")]
    assert ">       assert result.verdict.held" in failure or ">   assert result.verdict.held" in failure
    for part in (
        "broken: At most one call per ticket",
        "remedy: ",
        "repeat: harness run ",
        "test: tests/test_gate.py::",
    ):
        assert re.search(rf"^E .*{part}", failure, re.MULTILINE), failure
    assert "assert False" not in done.stdout
    assert re.search(r"^FAILED tests/test_gate.py::\S+ - broken: ", done.stdout, re.MULTILINE)  # cut to the width
    summary = done.stdout[done.stdout.index("= harness =") :]
    assert "broken: At most one call per ticket is accepted." in summary
    assert re.search(r"callers were let in on one ticket\n +#\d+ client \d+ called .*: accepted .*scanned_by=", summary)
    assert "repeat: harness run --pattern race" in summary
    assert "--migrations supabase/migrations" in summary
    assert "verdict: broken" in summary


def test_a_failure_of_another_kind_keeps_its_own_words(project: Project) -> None:
    """What was not held stands beside them; and where all was held nothing is added."""
    project.test(
        "def test_held(harness):\n    assert harness.unknown(clients=2, calls=2).verdict.held\n    assert 1 == 2\n"
    )
    done = project.pytest(*GIVEN, "tests/test_more.py")
    failures = done.stdout[done.stdout.index("= FAILURES =") : done.stdout.index("= harness =")]
    assert "assert 1 == 2" in failures
    assert "repeat: " not in failures
    project.breaks()
    project.test(
        "def test_figures(harness):\n    result = harness.race(clients=4, rounds=24)\n"
        "    assert result.metrics.calls == 1, 'too many calls'\n\n"
        "def test_text(harness):\n    result = harness.race(clients=4, rounds=24)\n"
        "    assert result.verdict.held, str(result.verdict)\n"
    )
    done = project.pytest(*GIVEN, "tests/test_more.py")
    assert done.returncode == 1
    failures = done.stdout[done.stdout.index("= FAILURES =") : done.stdout.index("= harness =")]
    _, figures, text = re.split(r"^_+ test_\w+ _+$", failures, flags=re.MULTILINE)
    assert "AssertionError: too many calls" in figures
    assert "harness: what was not held" in figures
    assert "repeat: harness run" in figures
    assert re.search(r"^E +repeat: harness run", text, re.MULTILINE)


def test_the_database_fixture_is_a_fresh_database_each_time(project: Project) -> None:
    """With the project's migrations and seed, by connection and by SQLAlchemy engine, and nothing shared."""
    project.test(
        "import pytest\n\n@pytest.mark.parametrize('n', [1, 2])\ndef test_it(harness_database, n):\n"
        "    with harness_database.connect() as connection:\n"
        "        assert connection.execute('SELECT count(*) FROM tickets').fetchone() == (0,)\n"
        "        connection.execute('SELECT * FROM harness.new_tickets(3)')\n\n"
        "def test_engine(harness_database):\n    import sqlalchemy\n"
        "    with harness_database.engine().connect() as connection:\n"
        "        assert connection.execute(sqlalchemy.text('SELECT name FROM venues')).scalar() == 'The Cellar'\n"
        "    assert harness_database.name in harness_database.dsn\n"
    )
    done = project.pytest(*GIVEN, "tests/test_more.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_options_come_from_ini_and_environment(project: Project) -> None:
    """ini keys make the command line short; variables beat them; the command line beats both."""
    ini = (project.folder / "pyproject.toml").read_text()
    (project.folder / "pyproject.toml").write_text(
        ini + 'harness_migrations = ["supabase/migrations"]\nharness_seed = ["tests/seed"]\nharness_clients = "3"\n'
    )
    project.test("def test_it(harness): print('clients', harness.rescan(calls=1).record.plan['clients'])\n")
    words = ("tests/test_more.py", "-s")
    assert "clients 3\n" in project.pytest(*words).stdout
    assert "clients 4\n" in project.pytest(*words, HARNESS_CLIENTS="4").stdout
    assert "clients 5\n" in project.pytest(*words, "--harness-clients", "5", HARNESS_CLIENTS="4").stdout


CONTRACT = """
from dataclasses import replace
from harness import SCAN_TICKET
MINE = replace(SCAN_TICKET, name='mine')
"""


@pytest.mark.parametrize("where", ["harness_", ""], ids=["pytest's ini", "[tool.harness]"])
def test_the_command_that_the_summary_prints_runs_as_it_is_printed(where: str, project: Project) -> None:
    """With the contract, the files and the profile that only the project's own file names."""
    project.breaks()
    section = "" if where else "[tool.harness]\n"
    ini = (project.folder / "pyproject.toml").read_text()
    (project.folder / "pyproject.toml").write_text(
        f'{ini}{section}{where}contract = "contracts_of_mine:MINE"\n{where}migrations = ["supabase/migrations"]\n'
        f'{where}seed = ["tests/seed"]\n{where}profile = "seed"\n{where}timeout = "7"\n{where}clients = "3"\n'
    )
    (project.folder / "contracts_of_mine.py").write_text(CONTRACT)
    project.test("def test_it(harness): assert harness.race(clients=4, rounds=24).verdict.held\n")
    # Called from elsewhere, with one value of the file taken back to what is the default without it.
    done = project.pytest("--harness-timeout", "10", "--harness-profile", "quick", "tests/test_more.py")
    assert done.returncode == 1, done.stdout + done.stderr
    (command,) = set(re.findall(r"repeat: (.*)", done.stdout))
    assert "harness run --pattern race --clients 4 --rounds 24 " in command
    words = shlex.split(command)
    variables = dict(word.split("=", 1) for word in words[: words.index("harness")])
    again = project.sandbox.run(
        *words[words.index("harness") :], "--record", "again.json", cwd=project.folder, **variables
    )
    assert again.returncode == 1, again.stdout + again.stderr
    record = json.loads((project.folder / "again.json").read_text())
    assert (record["contract"], record["profile"]) == ("mine", "quick")
    plan = record["runs"][0]["plan"]
    assert (plan["clients"], plan["rounds"], plan["timeout"], plan["mixed"]) == (4, 24, 10.0, True)


def test_a_test_has_a_contract_of_its_own_by_marker(project: Project) -> None:
    """Its module lies with the tests, and is found there by pytest and by the command that the summary prints alike."""
    project.breaks()
    (project.folder / "tests" / "contracts_of_mine.py").write_text(CONTRACT)
    project.test(
        "import pytest\n\n@pytest.mark.harness(contract='contracts_of_mine:MINE', setting='lock_timeout=3s')\n"
        "def test_mine(harness):\n    assert harness.contract.name == 'mine'\n"
        "    assert harness.race(clients=4, rounds=24).verdict.held\n\n"
        "def test_theirs(harness): assert harness.contract.name == 'scan_ticket'\n\n"
        "@pytest.mark.harness(contract=3)\ndef test_wrong(harness): pass\n\n"
        "@pytest.mark.harness(clients='3')\ndef test_no_such(harness): pass\n"
    )
    done = project.pytest(*GIVEN, "tests/test_more.py")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed, 2 errors" in done.stdout
    assert "The marker harness is given contract=3." in done.stdout
    assert "The marker harness is given clients='3'." in done.stdout
    (command,) = set(re.findall(r"repeat: (.*)", done.stdout))
    assert "--contract contracts_of_mine:MINE" in command
    assert "--setting lock_timeout=3s" in command
    again = project.sandbox.run(*shlex.split(command), cwd=project.folder)
    assert again.returncode == 1, again.stdout + again.stderr
    assert "contract mine" in again.stdout


def test_paths_in_the_ini_file_are_relative_to_it(project: Project) -> None:
    """Wherever in the project pytest is called."""
    ini = (project.folder / "pyproject.toml").read_text()
    (project.folder / "pyproject.toml").write_text(
        ini + 'harness_migrations = ["supabase/migrations"]\nharness_seed = ["tests/seed"]\n'
        'harness_record = "record.json"\n'
    )
    project.test("def test_it(harness): assert harness.rescan(clients=2).verdict.held\n")
    done = project.sandbox.run(
        "pytest",
        "-p",
        "no:cacheprovider",
        "--harness-server",
        project.dsn,
        "test_more.py",
        cwd=project.folder / "tests",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project.folder / "record.json").exists()


def test_junit_xml_has_a_property_for_each_figure_and_the_record_names_the_test(project: Project) -> None:
    """What a CI server can plot: verdict, calls, answers, response times; in the record a finding leads to its test."""
    words = ("--junitxml", "report.xml", "-o", "junit_family=xunit1", "--harness-record", "record.json")
    done = project.pytest(*GIVEN, *words)
    assert done.returncode == 0, done.stdout
    found = {p.get("name"): p.get("value") for p in ET.parse(project.folder / "report.xml").iter("property")}
    assert found["harness.race.verdict"] == "held"
    assert int(found["harness.race.calls"] or 0) > 100
    assert int(found["harness.race.accepted"] or 0) > 10
    assert int(found["harness.race.race_conditions_caught"] or 0) > 10
    assert float(found["harness.race.p95_ms"] or 0) > 0
    value = json.loads((project.folder / "record.json").read_text())
    assert [run["test"] for run in value["runs"]] == ["tests/test_gate.py::test_one_ticket_lets_one_person_in"]
    assert value["command"].startswith("pytest ")


def test_two_runs_of_one_test_have_properties_of_their_own(project: Project) -> None:
    """The second has its number in the name."""
    project.test(
        "def test_it(harness):\n    harness.rescan(clients=2, calls=1)\n    harness.rescan(clients=2, calls=3)\n"
    )
    words = ("tests/test_more.py", "--junitxml", "report.xml", "-o", "junit_family=xunit1")
    assert project.pytest(*GIVEN, *words).returncode == 0
    found = {p.get("name"): p.get("value") for p in ET.parse(project.folder / "report.xml").iter("property")}
    assert (found["harness.rescan.calls"], found["harness.rescan.2.calls"]) == ("4", "12")


def test_it_works_under_xdist(project: Project) -> None:
    """Tests on two workers, the runs of both in one summary, and a record for each worker."""
    project.test(
        "import pytest\n\n@pytest.mark.parametrize('n', range(4))\ndef test_it(harness, n):\n"
        "    assert harness.rescan(clients=2, calls=3).verdict.held\n"
    )
    done = project.pytest(*GIVEN, "-n", "2", "--harness-record", "record.json", "--harness-rounds", "96")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout
    assert "verdict: held (5 runs)" in done.stdout
    records = [json.loads(path.read_text()) for path in project.folder.glob("record*.json")]
    assert sum(len(record["runs"]) for record in records) == 5
    assert all(run["test"] for record in records for run in record["runs"])


def test_a_suite_that_does_not_use_it_is_left_alone(project: Project) -> None:
    """Installed beside other tests it boots nothing, prints nothing, and imports nothing heavy."""
    project.test(
        "def test_it():\n    import sys\n"
        "    assert not {'psycopg', 'testcontainers', 'sqlalchemy', 'docker', 'rich'} & set(sys.modules)\n"
    )
    done = project.pytest("tests/test_more.py", server="host=/nonexistent")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "= harness =" not in done.stdout


def test_a_run_that_was_not_asserted_still_shows_in_the_summary(project: Project) -> None:
    """A test that forgets to look at the verdict passes, and the summary says broken all the same."""
    project.breaks()
    project.test("def test_it(harness): harness.rescan(clients=2, calls=2)\n")
    done = project.pytest(*GIVEN, "tests/test_more.py")
    assert done.returncode == 0
    assert "verdict: broken (1 run)" in done.stdout


def test_the_scenarios_hold_on_the_shipped_migrations(server: EmbeddedServer, sandbox: Sandbox) -> None:
    """`pytest harness/`, the main job, on this repository's own SQL."""
    done = sandbox.run(
        "pytest", "-p", "no:cacheprovider", "harness/", "--harness-server", server.dsn, "--harness-duration", "0.5",
        cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verdict: held" in done.stdout
    assert " burst (sql)" in done.stdout
