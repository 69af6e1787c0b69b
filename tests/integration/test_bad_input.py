"""Bad input to the console command: what failed, what was tried, what to do next; the right status; nothing left."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.environment.embedded import EmbeddedServer
from harness.environment.servers import connect
from harness.errors import ExitStatus
from tests.conftest import MIGRATIONS, ROOT, SEED, Sandbox

Databases = Callable[[], set[str]]
QUICK = ("--pattern", "rescan", "--clients", "3")


@pytest.fixture
def harness_run(
    server: EmbeddedServer, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    """Runs `harness run` on the session's server; gives its words on stderr, and checks that nothing is left.

    In this process: that of the command itself is under test in tests/acceptance.
    """
    before = databases()
    monkeypatch.chdir(ROOT)

    def run(*words: str | Path, status: ExitStatus, server: str = server.dsn, **variables: str) -> str:
        done = CliRunner().invoke(main, ["run", "--server", server, *map(str, words)], env=variables)
        assert done.exit_code == status, done.output
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        if status in (ExitStatus.USAGE, ExitStatus.ENVIRONMENT):
            assert "error: " in done.stderr.lower()
        return done.stderr if status in (ExitStatus.USAGE, ExitStatus.ENVIRONMENT) else done.stdout

    yield run
    assert databases() == before
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("client-")]


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """A folder of SQL files; without names, one file."""

    def make(*texts: str, name: str = "sql") -> Path:
        path = tmp_path / name
        path.mkdir()
        for number, text in enumerate(texts, 1):
            (path / f"{number:04}_part.sql").write_text(text)
        return path

    return make


# -- servers


def test_no_docker_is_said_with_what_to_use_in_its_place(harness_run: Callable[..., str]) -> None:
    """--server container without an engine names the image, the engine's error and the other servers."""
    said = harness_run(status=ExitStatus.ENVIRONMENT, server="container", DOCKER_HOST="unix:///nonexistent/docker.sock")
    assert "no Docker engine answers" in said
    assert os.environ.get("HARNESS_POSTGRES_IMAGE", "postgres:17") in said
    assert "--server embedded" in said


def test_auto_without_docker_takes_the_embedded_server_and_says_why(sandbox: Sandbox) -> None:
    """auto prints which server, which version, and for what reason."""
    done = sandbox.run("harness", "run", "--server", "auto", *QUICK, DOCKER_HOST="unix:///nonexistent/docker.sock")
    assert done.returncode == ExitStatus.HELD, done.stderr
    assert "embedded: auto: no Docker engine answers" in done.stderr
    assert sandbox.left_behind() == []


@pytest.mark.parametrize(
    ("dsn", "says"),
    [
        (
            "postgresql://nobody@127.0.0.1:1/nothing",
            "No connection to user=nobody dbname=nothing host=127.0.0.1 port=1",
        ),
        ("postgresql://me:s3cret@127.0.0.1:1/nothing", "No connection to"),
        ("host=127.0.0.1 port=1 password=s3cret", "No connection to"),
        ("postgresql://me:s3cret@[/x", "The server's DSN cannot be read"),
        ("nonsense=1", "The server's DSN cannot be read"),
    ],
)
def test_a_wrong_dsn_is_explained_without_its_password(dsn: str, says: str, harness_run: Callable[..., str]) -> None:
    """The address is shown, the server's own words too, and never a password."""
    said = harness_run(status=ExitStatus.ENVIRONMENT, server=dsn)
    assert says in said
    assert "s3cret" not in said
    assert "next:" in said


def test_a_database_that_is_not_there_is_explained(server: EmbeddedServer, harness_run: Callable[..., str]) -> None:
    """The server's own words say what is missing."""
    said = harness_run(status=ExitStatus.ENVIRONMENT, server=f"{server.dsn}&dbname=nowhere")
    assert 'database "nowhere" does not exist' in said


def test_a_role_without_createdb_is_refused_with_the_remedy(
    server: EmbeddedServer, harness_run: Callable[..., str]
) -> None:
    """The role is named, and the statement that would help it."""
    with connect(server.dsn) as connection:
        connection.execute("CREATE ROLE visitor LOGIN")
        try:
            said = harness_run(status=ExitStatus.ENVIRONMENT, server=f"{server.dsn}&user=visitor")
        finally:
            connection.execute("DROP ROLE visitor")
    assert "'visitor' may not create databases" in said
    assert 'ALTER ROLE "visitor" CREATEDB' in said


def test_a_wrong_password_is_explained_and_not_shown(sandbox: Sandbox) -> None:
    """Against a server that asks for passwords, a wrong one fails with the server's words, and the right one works."""
    with EmbeddedServer() as own:
        with connect(own.dsn) as connection:
            connection.execute("ALTER ROLE supabase_admin PASSWORD 'r1ght'")
            (hba,) = connection.execute("SHOW hba_file").fetchone() or ("",)
            Path(str(hba)).write_text("local all all scram-sha-256\n")
            connection.execute("SELECT pg_reload_conf()")
        wrong = sandbox.run("harness", "run", *QUICK, "--server", f"{own.dsn}&password=wr0ng")
        record = sandbox.tmp / "record.json"
        right = sandbox.run("harness", "run", *QUICK, "--server", f"{own.dsn}&password=r1ght", "--record", record)
    assert wrong.returncode == ExitStatus.ENVIRONMENT
    assert "password authentication failed" in wrong.stderr
    assert "wr0ng" not in wrong.stderr
    assert right.returncode == ExitStatus.HELD, right.stdout + right.stderr
    assert "r1ght" not in right.stdout + right.stderr
    assert "r1ght" not in record.read_text()


# -- migrations


def test_a_mistake_in_a_migration_is_shown_with_file_line_code_and_statement(
    folder: Callable[..., Path], harness_run: Callable[..., str]
) -> None:
    """In a file of many lines, the line of the mistake itself, not that of its statement's start."""
    path = folder(
        "CREATE TABLE fine (id int);\n",
        "-- A comment.\nCREATE TABLE a (id int);\n\n/* Another;\n   one. */\n"
        "CREATE TABLE b (\n    id int,\n    other nonsense\n);\n",
    )
    said = harness_run("--migrations", path, status=ExitStatus.ENVIRONMENT)
    assert f'{path}/0002_part.sql:8: type "nonsense" does not exist (SQLSTATE 42704)' in said
    assert "    CREATE TABLE b (\n" in said
    assert "next:" in said


@pytest.mark.parametrize(
    ("text", "line", "code"),
    [
        ("CREATE TABLE a (id int);\nCREATE TABEL b (id int);\n", 2, "42601"),
        ("CREATE TABLE a (id int);\n\nINSERT INTO a VALUES ('x');\n", 3, "22P02"),
        ("SELECT 1;\nSELECT 1/0;\n", 2, "22012"),
        ("DO $$\nBEGIN\n    RAISE EXCEPTION 'no' USING ERRCODE = 'P1234';\nEND $$;\n", 1, "P1234"),
        (
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql\nBEGIN ATOMIC\n    SELECT 1;\nEND;\nSELECT nothing;\n",
            5,
            "42703",
        ),
        ("\ufeffSELECT nothing;\n", 1, "42703"),
        ("-- ünï\nSELECT 'ü', nothing;\n", 2, "42703"),
    ],
)
def test_each_kind_of_mistake_has_its_line_and_code(
    text: str, line: int, code: str, folder: Callable[..., Path], harness_run: Callable[..., str]
) -> None:
    """Syntax, types, run-time errors, errors of one's own."""
    said = harness_run("--migrations", folder(text), status=ExitStatus.ENVIRONMENT)
    assert f"0001_part.sql:{line}: " in said
    assert f"(SQLSTATE {code})" in said
    assert "successful_scans" not in said  # no load was spent on it


def test_a_deferred_constraint_that_fails_at_commit_is_an_error_of_its_file(
    folder: Callable[..., Path], harness_run: Callable[..., str]
) -> None:
    """It belongs to no statement; the file and the SQLSTATE are said."""
    path = folder(
        "CREATE TABLE a (id int PRIMARY KEY);\n"
        "CREATE TABLE b (a int REFERENCES a DEFERRABLE INITIALLY DEFERRED);\nINSERT INTO b VALUES (1);\n"
    )
    said = harness_run("--migrations", path, status=ExitStatus.ENVIRONMENT)
    assert "0001_part.sql: COMMIT failed with SQLSTATE 23503" in said
    assert "is not present in table" in said


def test_statements_that_cannot_run_in_a_transaction_do_run(
    folder: Callable[..., Path], harness_run: Callable[..., str]
) -> None:
    """CREATE INDEX CONCURRENTLY in the middle of a file, with statements before it in the same file."""
    more = folder(
        "CREATE TABLE extra (id int);\nINSERT INTO extra VALUES (1);\n"
        "CREATE INDEX CONCURRENTLY extra_id ON extra (id);\nCREATE UNIQUE INDEX only_one ON extra ((1));\n"
    )
    check = folder(
        "-- name: indexes_are_there\nSELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid\n"
        " WHERE c.relname = 'extra' AND i.indisvalid HAVING count(*) <> 2;\n"
        "-- name: applied_once\nSELECT count(*) FROM extra HAVING count(*) <> 1;",
        name="checks",
    )
    words = ("--migrations", MIGRATIONS, "--migrations", more, "--invariants", check)
    said = harness_run(*words, *QUICK, status=ExitStatus.HELD)
    assert "verdict: held" in said


@pytest.mark.parametrize(
    "text",
    [
        "DO $$ BEGIN FOR n IN 1..3 LOOP INSERT INTO extra VALUES ('a'); COMMIT; END LOOP; END $$;\n",
        "ALTER TYPE kind ADD VALUE 'b';\nINSERT INTO extra VALUES ('a'), ('a'), ('b');\n",
    ],
    ids=["commits in a DO block", "uses a new enum value"],
)
def test_a_file_that_needs_more_than_one_transaction_is_applied(
    text: str, folder: Callable[..., Path], harness_run: Callable[..., str]
) -> None:
    """The server refuses it in one transaction, and nothing of that first try is kept."""
    more = folder("CREATE TYPE kind AS ENUM ('a');\nCREATE TABLE extra (k kind);\n", text)
    check = folder("SELECT count(*) FROM extra HAVING count(*) <> 3;", name="checks")
    words = ("--migrations", MIGRATIONS, "--migrations", more, "--invariants", check)
    assert "verdict: held" in harness_run(*words, *QUICK, status=ExitStatus.HELD)


def test_a_files_settings_are_not_the_next_ones(folder: Callable[..., Path], harness_run: Callable[..., str]) -> None:
    """What pg_dump writes at the head of its files, a role, a temporary table: each file starts afresh."""
    before = folder(
        "SELECT pg_catalog.set_config('search_path', '', false);\nSET ROLE pg_monitor;\nCREATE TEMP TABLE events ();\n",
        name="before",
    )
    words = ("--migrations", before, "--migrations", MIGRATIONS)
    assert "verdict: held" in harness_run(*words, *QUICK, status=ExitStatus.HELD)


@pytest.mark.parametrize("before", ["", "ALTER TYPE kind ADD VALUE 'b';\nINSERT INTO extra VALUES ('b');\n"])
def test_a_transaction_that_is_left_open_is_refused(
    before: str, folder: Callable[..., Path], harness_run: Callable[..., str]
) -> None:
    """psql would roll it back at the end of the file, so what it holds is not what its author has."""
    path = folder("CREATE TYPE kind AS ENUM ('a');\nCREATE TABLE extra (k kind);\n", f"{before}BEGIN;\nSELECT 1;\n")
    said = harness_run("--migrations", path, status=ExitStatus.ENVIRONMENT)
    assert f"0002_part.sql:{before.count(chr(10)) + 1}: BEGIN without COMMIT" in said
    assert "add COMMIT;" in said


def test_a_server_that_cannot_create_a_database_is_explained(
    server: EmbeddedServer, harness_run: Callable[..., str]
) -> None:
    """A standby, or a role that may only read: the server's own words, and no traceback."""
    with connect(server.dsn) as connection:
        connection.execute("CREATE ROLE reads_only LOGIN CREATEDB")
        connection.execute("ALTER ROLE reads_only SET default_transaction_read_only = on")
    dsn = server.dsn.replace("supabase_admin@", "reads_only@")
    try:
        said = harness_run(server=dsn, status=ExitStatus.ENVIRONMENT)
    finally:
        with connect(server.dsn) as connection:
            connection.execute("DROP ROLE reads_only")
    assert "No scratch database can be created" in said
    assert "read-only transaction (SQLSTATE 25006)" in said


def test_a_migration_with_its_own_begin_and_commit_is_applied(
    folder: Callable[..., Path], harness_run: Callable[..., str]
) -> None:
    """Files written for psql may hold their own transaction."""
    more = folder("BEGIN;\nCREATE TABLE extra (id int);\nCOMMIT;\n")
    check = folder("SELECT 1 WHERE to_regclass('public.extra') IS NULL;", name="checks")
    words = ("--migrations", MIGRATIONS, "--migrations", more, "--invariants", check)
    assert "verdict: held" in harness_run(*words, *QUICK, status=ExitStatus.HELD)


@pytest.mark.parametrize("option", ["--migrations", "--seed", "--invariants"])
@pytest.mark.parametrize("state", ["missing", "empty"])
def test_a_folder_that_is_missing_or_empty_is_said_before_anything_is_booted(
    option: str, state: str, folder: Callable[..., Path], harness_run: Callable[..., str], tmp_path: Path
) -> None:
    """The path and the option are named; no server is needed to find it out."""
    path = folder() if state == "empty" else tmp_path / "nowhere"
    said = harness_run(option, path, status=ExitStatus.ENVIRONMENT, server="host=/nonexistent")
    assert str(path) in said
    assert option in said


# -- function and seed


def test_a_missing_function_is_said_with_what_was_expected(harness_run: Callable[..., str]) -> None:
    """The whole signature is shown, and the option that names the migrations."""
    said = harness_run("--migrations", MIGRATIONS / "0001_events_tickets_scan_logs.sql", status=ExitStatus.ENVIRONMENT)
    assert "no function scan_ticket_atomic" in said
    assert "p_ticket_id uuid, p_scanned_by uuid, p_device_id text, p_scan_method text" in said
    assert "--migrations" in said


@pytest.mark.parametrize(
    ("signature", "returns", "found"),
    [
        ("p_ticket_id uuid, p_scanned_by uuid", None, "(p_ticket_id uuid, p_scanned_by uuid) RETURNS"),
        ("p_ticket_id text, p_scanned_by uuid, p_device_id text, p_scan_method text", None, "(p_ticket_id text,"),
        ("ticket uuid, p_scanned_by uuid, p_device_id text, p_scan_method text", None, "(ticket uuid,"),
        (
            "p_ticket_id uuid, p_scanned_by uuid, p_device_id text, p_scan_method text",
            "TABLE (success boolean)",
            "RETURNS (success boolean)",
        ),
        (
            "p_ticket_id uuid, p_scanned_by uuid, p_device_id text, p_scan_method text",
            "boolean",
            "RETURNS (scan_ticket_atomic boolean)",
        ),
        ("", "void", "() RETURNS (scan_ticket_atomic void)"),
    ],
)
def test_another_signature_is_said_as_expected_and_found(
    signature: str, returns: str | None, found: str, folder: Callable[..., Path], harness_run: Callable[..., str]
) -> None:
    """Parameters and columns of both, one above the other."""
    columns = "success boolean, already_scanned boolean, scanned_at timestamptz, scanned_by uuid, error_message text"
    path = folder(
        f"CREATE FUNCTION scan_ticket_atomic({signature}) RETURNS {returns or f'TABLE ({columns})'}\n"
        "LANGUAGE plpgsql AS $$ BEGIN RETURN; END $$;"
        if returns != "boolean"
        else f"CREATE FUNCTION scan_ticket_atomic({signature}) RETURNS boolean LANGUAGE sql AS 'SELECT true';"
    )
    seed = folder("SELECT 1;", name="seed")
    said = harness_run("--migrations", path, "--seed", seed, status=ExitStatus.ENVIRONMENT)
    expected, actual = said.index("expected:"), said.index("found:")
    assert expected < actual
    assert "p_scan_method text) RETURNS (success boolean" in said[expected:actual]
    assert found in said[actual:]


@pytest.mark.parametrize(
    ("seed", "says"),
    [
        ("SELECT 1;", "The seed does not define harness.new_tickets(count integer)"),
        ("CREATE SCHEMA harness;", "The seed does not define harness.new_tickets(count integer)"),
        (
            (
                "CREATE SCHEMA harness; CREATE FUNCTION harness.new_tickets(count integer) RETURNS SETOF uuid\n"
                "LANGUAGE sql AS 'SELECT gen_random_uuid() FROM generate_series(1, count - 1)';"
            ),
            "harness.new_tickets(3) returned 2 distinct keys",
        ),
        (
            (
                "CREATE SCHEMA harness; CREATE FUNCTION harness.new_tickets(count integer) RETURNS SETOF uuid\n"
                "LANGUAGE sql AS $$ SELECT '00000000-0000-0000-0001-000000000001'::uuid\n"
                "FROM generate_series(1, count) $$"
            ),
            "harness.new_tickets(3) returned 1 distinct key",
        ),
        (
            (
                "CREATE SCHEMA harness; CREATE FUNCTION harness.new_tickets(count integer) RETURNS SETOF uuid\n"
                "LANGUAGE sql AS 'SELECT NULL::uuid FROM generate_series(1, count)';"
            ),
            "harness.new_tickets(3) returned 0 distinct keys",
        ),
        (
            (
                "CREATE SCHEMA harness; CREATE FUNCTION harness.new_tickets(count integer) RETURNS SETOF uuid\n"
                "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'sold out' USING ERRCODE = 'P0042'; END $$;"
            ),
            "failed with SQLSTATE P0042",
        ),
        (
            (
                "CREATE SCHEMA harness; CREATE FUNCTION harness.new_tickets(count integer) RETURNS SETOF uuid\n"
                "LANGUAGE sql AS 'SELECT gen_random_uuid() WHERE pg_terminate_backend(pg_backend_pid())';"
            ),
            "The connection was lost while harness.new_tickets(3) made fresh keys",
        ),
    ],
)
def test_a_seed_that_gives_no_fresh_tickets_is_explained(
    seed: str, says: str, folder: Callable[..., Path], harness_run: Callable[..., str]
) -> None:
    """Not defined, too few, the same ones, none, an error of its own, or the end of the session."""
    assert says in harness_run("--seed", folder(seed), *QUICK, status=ExitStatus.ENVIRONMENT)


@pytest.mark.parametrize(
    ("query", "code"), [("SELECT nothing", "42703"), ("SELECT * FROM nowhere", "42P01"), ("SELEKT 1", "42601")]
)
def test_a_mistake_in_an_invariant_is_shown_with_its_line(
    query: str, code: str, folder: Callable[..., Path], harness_run: Callable[..., str]
) -> None:
    """A query that cannot be asked is an error of the environment, no broken claim."""
    path = folder(f"SELECT 1 WHERE false;\n\n{query};\n")
    said = harness_run("--invariants", path, *QUICK, status=ExitStatus.ENVIRONMENT)
    assert "0001_part.sql:3: the invariant '0001_part.2'" in said
    assert f"(SQLSTATE {code})" in said
    assert "successful_scans" not in said  # no load was spent on it


def test_an_invariant_that_is_no_query_is_refused(folder: Callable[..., Path], harness_run: Callable[..., str]) -> None:
    """A statement that returns nothing proves nothing."""
    for number, text in enumerate(("CREATE TABLE x ();", "SELECT 1 WHERE 1 = $1;")):
        said = harness_run("--invariants", folder(text, name=str(number)), *QUICK, status=ExitStatus.ENVIRONMENT)
        assert "is not a query" in said
        assert "successful_scans" not in said


def test_an_invariant_that_does_not_end_is_undecided(
    folder: Callable[..., Path], harness_run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are asked all the same, and nobody waits for ever."""
    monkeypatch.setattr("harness.targets.state.TIME_LIMIT", 0.2)
    path = folder("-- name: endless\nSELECT pg_sleep(600);\n\n-- name: quick\nSELECT 1 WHERE false;\n")
    said = harness_run("--invariants", path, *QUICK, status=ExitStatus.UNDECIDED)
    assert "no answer within 0.2 s" in said
    assert "1 undecided" in said


def test_an_invariant_that_writes_is_refused(folder: Callable[..., Path], harness_run: Callable[..., str]) -> None:
    """Evidence is read, and not changed by the one who reads it."""
    said = harness_run(
        "--invariants", folder("DELETE FROM scan_logs RETURNING id;"), *QUICK, status=ExitStatus.ENVIRONMENT
    )
    assert "(SQLSTATE 25006)" in said


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise SystemExit(0)", "ended the program"),
        ("raise RuntimeError('\\x1b]0;mine\\x07')", "RuntimeError: \\x1b]0;mine\\x07"),
        ("return 1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_contract_that_ends_the_program_or_raises_is_no_verdict(
    body: str, says: str, harness_run: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither held, status 0, nor broken, status 1; and its words do not steer the terminal."""
    (tmp_path / "theirs.py").write_text(
        "import dataclasses\nfrom harness.contracts.scan_ticket import SCAN_TICKET\n"
        f"def classify(row):\n    {body}\n"
        "CONTRACT = dataclasses.replace(SCAN_TICKET, classify=classify)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where a traceback is kept for a report
    assert says in harness_run("--contract", "theirs:CONTRACT", *QUICK, status=ExitStatus.ENVIRONMENT)


def test_too_few_open_files_are_named(sandbox: Sandbox) -> None:
    """libpq says that no details are available."""
    words = "ulimit -n 64; harness run --server embedded --pattern race --clients 60"
    done = sandbox.run("sh", "-c", words)
    assert done.returncode == ExitStatus.ENVIRONMENT, done.stderr
    assert "may not open as many files" in done.stderr
    assert "ulimit -n" in done.stderr
    assert sandbox.left_behind() == []


# -- numbers


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--clients", "0"), "--clients is '0'"),
        (("--clients", "-5"), "--clients is '-5'"),
        (("--clients", "many"), "--clients is 'many'"),
        (("--duration", "0"), "--duration is '0'"),
        (("--rounds", "0"), "--rounds is '0'"),
        (("--timeout", "-1"), "--timeout is '-1'"),
        (("--pool-size", "0"), "--pool-size is '0'"),
        (("--server", "somewhere"), "is neither auto, container or embedded nor a DSN"),
        (("--profile", "fast"), "--profile is 'fast'"),
        (("--server", ""), "--server is empty"),
        (("--migrations", ""), "--migrations is empty"),
        (("--contract", "nonsense"), "no contract named 'nonsense'"),
        (("--contract", ":nonsense"), "contract ':nonsense' could not be loaded"),
        (("--contract", ".non:sense"), "contract '.non:sense' could not be loaded"),
        (("--pattern", "race", "--clients", "1"), "at least 2 clients"),
        (("--nonsense",), "No such option"),
        (("--calls", "5"), "--calls is for --pattern burst or rescan or unknown"),
        (("--rate", "50"), "--rate is for --pattern arrivals"),
        (("--pattern", "race", "--duration", "1"), "--duration is for --pattern arrivals or burst"),
        (("--pattern", "rescan", "--rounds", "9"), "--rounds is for --pattern race"),
        (("--pattern", "arrivals", "--pause", "1"), "--pause is for --pattern burst"),
        (("--record", "/nonexistent/record.json"), "The record cannot be written to /nonexistent/record.json."),
        (("--record", "/tmp"), "it is a folder"),
        (("--record", "r" * 300), "File name too long"),
        (
            ("--pattern", "arrivals", "--profile", "seed"),
            "--profile is for --pattern burst or race or rescan or unknown",
        ),
        (("--pattern", "burst", "--profile", "soak"), "takes no --pattern"),
        (("--profile", "soak", "--pause", "0.001"), "A soak needs a pause of at least 0.01 s"),
        (("--pattern", "burst", "--calls", "5", "--duration", "2"), "--calls and --duration both say"),
        (("--yes",), "--yes is for --http-url"),
        (("--http-url", "http://127.0.0.1:1", "--pattern", "race"), "--pattern is not for --http-url"),
        (("--tickets", "t.json", "--rounds", "9"), "--rounds is not for --http-url"),
    ],
)
def test_wrong_usage_is_said_with_the_option(
    words: tuple[str, ...], says: str, harness_run: Callable[..., str]
) -> None:
    """Status 2, and nothing was called."""
    assert says in harness_run(*words, status=ExitStatus.USAGE)


def test_more_clients_than_the_server_takes_are_refused_before_the_start(harness_run: Callable[..., str]) -> None:
    """How many are needed, how many are free, and three ways out."""
    said = harness_run("--clients", "400", "--pattern", "race", status=ExitStatus.USAGE)
    assert "400 clients need 405 connections" in said
    assert "max_connections = 300" in said
    assert "--pool-size" in said


def test_pytest_says_the_same_in_the_test_that_asked(
    server: EmbeddedServer, sandbox: Sandbox, databases: Databases, folder: Callable[..., Path]
) -> None:
    """Under pytest the error fails the tests that need the harness, once booted and not again, without a traceback."""
    before = databases()
    (sandbox.tmp / "test_it.py").write_text(
        "def test_one(harness): harness.race()\ndef test_two(harness): harness.race()\ndef test_three(): pass\n"
    )
    done = _pytest(
        sandbox, "--harness-server", server.dsn, "--harness-seed", SEED, "--harness-migrations", folder("SELECT 1/0;")
    )
    assert done.returncode == 1
    assert "2 errors" in done.stdout or "2 failed" in done.stdout
    assert "1 passed" in done.stdout
    assert "0001_part.sql:1: division by zero (SQLSTATE 22012)" in done.stdout
    assert "Traceback" not in done.stdout
    assert databases() == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--harness-migrations", "nowhere"), "that exists with --harness-migrations"),
        (("--harness-record", "/nonexistent/record.json"), "give another --harness-record"),
        (("--harness-migrations", str(MIGRATIONS), "--harness-seed", str(SEED)), "give fewer --harness-clients"),
    ],
)
def test_pytest_spells_the_options_as_it_takes_them(
    words: tuple[str, ...], says: str, server: EmbeddedServer, sandbox: Sandbox
) -> None:
    """An error's way out can be typed as it stands, whether the boot or the test met it; its place helps nobody."""
    (sandbox.tmp / "test_it.py").write_text("def test_it(harness): harness.race(clients=400)\n")
    done = _pytest(sandbox, "--harness-server", server.dsn, *words)
    assert done.returncode == 1
    assert says in done.stdout
    assert "Traceback" not in done.stdout
    assert "harness/run.py" not in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--harness-clients", "0"), "--harness-clients is '0'"),
        (("--harness-profile", "fast"), "--harness-profile is 'fast'"),
    ],
)
def test_pytest_refuses_wrong_usage_before_any_test(words: tuple[str, ...], says: str, sandbox: Sandbox) -> None:
    """Wrong numbers end pytest as its own wrong options do."""
    (sandbox.tmp / "test_it.py").write_text("def test_it(): pass\n")
    done = _pytest(sandbox, *words)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert says in done.stderr
    assert "passed" not in done.stdout


def _pytest(sandbox: Sandbox, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return sandbox.run("pytest", "-p", "no:cacheprovider", sandbox.tmp, *words, cwd=sandbox.tmp)
