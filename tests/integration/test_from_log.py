"""From the log alone: incidents that were recorded with two sessions each are broken again as they were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import ExitStatus, UsageError
from harness.check import Checks
from harness.environment.database import Template
from harness.environment.embedded import EmbeddedServer
from harness.options import Options
from harness.scenarios import incident, logs, reader
from harness.verdict.findings import Truth
from tests.conftest import Sandbox

LOGS = Path(__file__).parent / "logs"

RECORDED = {
    "coupon.log": ("two customers redeem the last coupon", "-> uses_left=1"),
    "booking.csv": ("two guests get one room", "-> count=0"),
    "doctors.json": ("both doctors go off call at repeatable read", "-> UPDATE 1"),
}
"""Each log with what went wrong in it, and what both sessions were told then.

Recorded on PostgreSQL 18 (log_statement = all), 15 (the same, as csvlog) and 18 (log_min_duration_statement = 0, as
jsonlog), by psycopg and by the simple protocol."""


@pytest.fixture(scope="module")
def template(server: EmbeddedServer) -> Iterator[Template]:
    with Template(server, [LOGS / "schema.sql", LOGS / "resign.sql"], []) as made:
        yield made


def _scenario(template: Template, name: Path, *, anonymize: bool = False) -> tuple[str, list[str]]:
    with template.clone() as database, database.connect() as connection:
        return incident.scenario_of(connection, logs.read(name), name, anonymize=anonymize)


def _check(template: Template, server: EmbeddedServer, text: str, folder: Path) -> tuple[Truth, str]:
    """The verdict on one after another, and its evidence."""
    path = folder / "incident.race.sql"
    path.write_text(text)
    run = Checks(Options(timeout=5.0), server, template).check(reader.read(path), by=("explore",))
    return run.truth, str(run.findings[0].evidence)


@pytest.mark.parametrize("name", RECORDED)
def test_an_incident_is_broken_from_its_log_as_it_was(
    name: str, template: Template, server: EmbeddedServer, tmp_path: Path
) -> None:
    """Also where names and addresses were replaced; and nothing in the setup is refused."""
    _, told = RECORDED[name]
    for anonymize in (False, True):
        text, _ = _scenario(template, LOGS / name, anonymize=anonymize)
        assert "The server says" not in text
        assert not anonymize or not any(word in text for word in ("Ann", "Ben", "ann@", "hospital", "LAST")), text
        truth, evidence = _check(template, server, text, tmp_path)
        assert (truth, evidence.count(told)) == (Truth.BROKEN, 2), evidence


def _log(path: Path, *lines: tuple[int, str]) -> Path:
    """A log of stderr of these processes' statements, a millisecond apart."""
    text = (f"2026-11-26 08:20:36.{at:03} UTC [{pid}] LOG:  {what}\n" for at, (pid, what) in enumerate(lines))
    path.write_text("".join(text))
    return path


def test_rows_that_a_called_function_looks_at_are_proposed(
    template: Template, server: EmbeddedServer, tmp_path: Path
) -> None:
    """By the conditions in its body, with the values that it was called with."""
    log = _log(tmp_path / "a.log", (1, "statement: SELECT resign('ann')"), (2, "statement: SELECT resign('ben')"))
    text, _ = _scenario(template, log)
    assert "INSERT INTO members (name, admin) VALUES ('ann', true);" in text
    truth, evidence = _check(template, server, text, tmp_path)
    assert (truth, evidence.count("-> resign=t")) == (Truth.BROKEN, 2), evidence


CALLED = (
    "execute 0: WITH pgrst_source AS (SELECT pgrst_call.* FROM (SELECT $1::json AS json_data) pgrst_payload, LATERAL "
    '(SELECT "p_name" FROM json_to_record(pgrst_payload.json_data) AS _("p_name" text) LIMIT 1) pgrst_body, LATERAL '
    '(SELECT "public"."resign"("p_name" := pgrst_body."p_name") pgrst_scalar) AS pgrst_call) '
    "SELECT json_agg(pgrst_scalar)->0 AS body FROM pgrst_source"
)
"""As PostgREST calls a function."""


def test_arguments_in_a_json_object_are_known(template: Template, server: EmbeddedServer, tmp_path: Path) -> None:
    """What PostgREST was asked for tells which rows were there; a role and claims stay what they were."""
    lines = []
    for pid, name in enumerate(("ann", "ben"), 1):
        text = "\n".join(
            (
                f"2026-11-26 08:20:36.001 UTC [{pid}] LOG:  statement: BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
                f"2026-11-26 08:20:36.001 UTC [{pid}] LOG:  {CALLED}",
                f'2026-11-26 08:20:36.001 UTC [{pid}] DETAIL:  parameters: $1 = \'{{"p_name": "{name}"}}\'',
                f"2026-11-26 08:20:36.001 UTC [{pid}] LOG:  statement: COMMIT\n",
            )
        )
        lines.append(text)
    log = tmp_path / "a.log"
    log.write_text("".join(lines))
    text, _ = _scenario(template, log)
    assert "INSERT INTO members (name, admin) VALUES ('ann', true);" in text
    truth, evidence = _check(template, server, text, tmp_path)
    assert (truth, evidence.count("-> body=true")) == (Truth.BROKEN, 2), evidence


def test_what_was_made_again_and_what_was_prepared_stand_there_once(template: Template, tmp_path: Path) -> None:
    """A transaction that its COMMIT refused, and was made again with what was read then; a logged PREPARE."""
    update = "statement: UPDATE accounts SET balance = {} WHERE id = 1"
    prepare = "PREPARE q (int) AS DELETE FROM accounts WHERE id = $1"
    log = tmp_path / "a.log"
    _log(
        log,
        (1, "statement: BEGIN ISOLATION LEVEL SERIALIZABLE"),
        (1, update.format(5)),
        (1, "statement: COMMIT"),
        (1, "ERROR"),
        (1, "statement: BEGIN ISOLATION LEVEL SERIALIZABLE"),
        (1, update.format(4)),
        (1, "statement: COMMIT"),
        (2, f"statement: {prepare};"),
        (2, "statement: EXECUTE q (1)"),
        (2, "DETAIL"),
    )
    head = "2026-11-26 08:20:36.003 UTC [1] "
    said = log.read_text().replace(
        f"{head}LOG:  ERROR\n", f"{head}ERROR:  could not serialize access\n{head}STATEMENT:  COMMIT\n"
    )
    log.write_text(said.replace("LOG:  DETAIL", f"DETAIL:  prepare: {prepare};"))
    text, notes = _scenario(template, log)
    assert "made again: the last try stands for all: 1" in "".join(notes)
    assert text.count("BEGIN") == 1
    assert "balance = 4" in text
    assert text.count(prepare) == 1


def test_what_is_left_out_is_said(template: Template, tmp_path: Path) -> None:
    """Chatter, definitions, sessions of their own, what a scenario cannot have; cut transactions are made whole."""
    log = _log(
        tmp_path / "a.log",
        (9, "statement: CREATE TABLE t (id int)"),
        (9, "statement: INSERT INTO accounts VALUES (1, 'Ann', 5)"),
        (1, "statement: SET application_name = 'x'"),
        (1, "statement: SELECT version()"),
        (1, "statement: SELECT c.relname FROM pg_catalog.pg_class c"),
        (1, "statement: UPDATE accounts SET balance = balance - 5 WHERE id = 1 AND balance >= 5"),
        (3, "statement: SELECT * FROM bookings"),
        (2, "statement: BEGIN"),
        (2, "statement: SET LOCAL lock_timeout = '1s'"),
        (2, "execute q: UPDATE accounts SET balance = $1 WHERE id = $2"),
        (2, "statement: UPDATE accounts SET balance = balance - 5 /* -- setup */ WHERE id = 2"),
        (1, "statement: COMMIT"),
        (2, "statement: COPY accounts FROM STDIN"),
        (1, "statement: DEALLOCATE ALL"),
    )
    text, notes = _scenario(template, log)
    assert "".join(line + "\n" for line in text.splitlines() if not line.startswith("--  ")) == (
        "-- scenario: what 2 sessions did at 2026-11-26 08:20:36 is as one after another\n\n\n-- setup\n"
        "INSERT INTO accounts (id, balance, owner) VALUES (2, 5, 'example');\n"
        "INSERT INTO accounts VALUES (1, 'Ann', 5);\n\n"
        "-- session: s1\nBEGIN;\n"
        "UPDATE accounts SET balance = balance - 5 WHERE id = 1 AND balance >= 5;\nCOMMIT;\n\n"
        "-- session: s2\nBEGIN;\nSET LOCAL lock_timeout = '1s';\n"
        "UPDATE accounts SET balance = balance - 5  WHERE id = 2;\nCOMMIT;\n"
    )
    said = "\n".join(notes)
    for words in (
        "definitions",
        "SET, RESET",
        "version()",
        "queries of the catalogue",
        "DEALLOCATE",
        "COPY from or to the client",
        "whose value $1 the log does not have: 1",
        "the beginning of a transaction",
        "the end of a transaction",
        "sessions that touch nothing that others change: 1",
    ):
        assert words in said, said


def test_letters_of_any_alphabet_are_letters(template: Template, tmp_path: Path) -> None:
    """A statement ends where it ends, alone or behind others, whatever is written in it."""
    log = _log(
        tmp_path / "a.log",
        (1, "statement: UPDATE accounts SET owner = 'Jürgen €😀' WHERE id = 1;"),
        (2, "statement: UPDATE accounts SET owner = 'Ægir' WHERE id = 1; DELETE FROM accounts WHERE owner = 'Þóra';"),
    )
    text, notes = _scenario(template, log)
    assert not notes
    assert "UPDATE accounts SET owner = 'Jürgen €😀' WHERE id = 1;\n" in text
    assert "UPDATE accounts SET owner = 'Ægir' WHERE id = 1;\nDELETE FROM accounts WHERE owner = 'Þóra';\n" in text


def test_sessions_of_another_database_are_no_part_of_it(template: Template, tmp_path: Path) -> None:
    """A log is that of the whole server."""
    lines = (LOGS / "booking.csv").read_text()
    path = tmp_path / "two.csv"
    path.write_text(
        lines + lines.replace('"postgres"', '"other"').replace("6b07ebcb.cc7", "6b07ebcb.fff").splitlines()[0]
    )
    text, notes = _scenario(template, path)
    assert text.count("-- session:") == 2
    assert notes == ["left out, sessions of other databases than postgres: 1"]


def test_a_log_without_a_statement_that_matters_is_said(template: Template, tmp_path: Path) -> None:
    """Nothing is written for it."""
    with pytest.raises(UsageError, match="no statement that touches a table"):
        _scenario(template, _log(tmp_path / "a.log", (1, "statement: SELECT 1")))


def test_the_command_writes_the_scenario(sandbox: Sandbox, server: EmbeddedServer) -> None:
    """Named after the log; what goes wrong ends with status 2 and leaves nothing."""
    words = ("harness", "new", "--from-log", LOGS / "booking.csv", "--migrations", LOGS / "schema.sql", "--anonymize")
    done = sandbox.run(*words, cwd=sandbox.tmp, HARNESS_SERVER=server.dsn)
    assert (done.returncode, (sandbox.tmp / "booking.race.sql").exists()) == (0, True), done.stderr
    assert "replaced one to one" in done.stderr
    done = sandbox.run("harness", "new", "f", "--from", "2026", cwd=sandbox.tmp)
    assert (done.returncode, "are for --from-log" in done.stderr) == (ExitStatus.USAGE, True)
    done = sandbox.run("harness", "new", "--from-log", "nowhere.log", cwd=sandbox.tmp)
    assert (done.returncode, "cannot be read" in done.stderr) == (ExitStatus.USAGE, True)
