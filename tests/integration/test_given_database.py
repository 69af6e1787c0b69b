"""A database, or a schema, that somebody gives to a role that may create none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from harness.check import open_checks
from harness.environment.choice import open_server, open_template
from harness.environment.database import Template
from harness.environment.embedded import EmbeddedServer
from harness.environment.servers import ExternalServer, connect
from harness.errors import ExitStatus, HarnessError, UsageError
from harness.options import Options
from harness.scenarios import reader
from tests.conftest import MIGRATIONS, Sandbox

PROJECTS = Path(__file__).parent / "projects"

EVERYTHING = """
SELECT x FROM (
    SELECT 'schema' || n.nspname || nspowner::regrole || coalesce(nspacl, acldefault('n', nspowner))::text AS x
      FROM pg_namespace n WHERE nspname !~ '^pg_(toast_)?temp'
    UNION ALL SELECT relnamespace::regnamespace || relname FROM pg_class
        WHERE relnamespace::regnamespace::text !~ '^pg_'
    UNION ALL SELECT oid::regprocedure::text FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT oid::regtype::text FROM pg_type WHERE oid >= 16384
    UNION ALL SELECT 'op' || oprname FROM pg_operator WHERE oid >= 16384
    UNION ALL SELECT 'cast' || castsource::regtype FROM pg_cast WHERE oid >= 16384
    UNION ALL SELECT extname || extversion FROM pg_extension
    UNION ALL SELECT pubname FROM pg_publication
    UNION ALL SELECT evtname FROM pg_event_trigger
    UNION ALL SELECT 'blob' || oid FROM pg_largeobject_metadata
    UNION ALL SELECT srvname FROM pg_foreign_server
    UNION ALL SELECT 'default' || defaclrole::regrole || defaclobjtype::text || defaclacl::text FROM pg_default_acl
    UNION ALL SELECT 'role' || rolname || coalesce(rolconfig::text, '') FROM pg_roles
    UNION ALL SELECT 'setting' || setrole || setconfig::text FROM pg_db_role_setting s JOIN pg_database d
        ON d.oid = setdatabase WHERE datname = current_database()
    UNION ALL SELECT 'db' || datconnlimit || coalesce(datacl, acldefault('d', datdba))::text FROM pg_database
        WHERE datname = current_database()
) AS all_of_it (x)
"""

UNTIDY = """
CREATE SCHEMA "Odd one"; CREATE TABLE "Odd one"."T" (id int GENERATED ALWAYS AS IDENTITY);
CREATE DOMAIN d AS int; CREATE TYPE e AS ENUM ('a'); CREATE TYPE c AS (x int, y e);
CREATE FUNCTION f(VARIADIC a int[], OUT b int) LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int);
CREATE FUNCTION plus(e, e) RETURNS e LANGUAGE sql AS 'SELECT $1';
CREATE OPERATOR @@@ (FUNCTION = plus, LEFTARG = e, RIGHTARG = e);
CREATE FUNCTION to_e(c) RETURNS e LANGUAGE sql AS 'SELECT $1.y'; CREATE CAST (c AS e) WITH FUNCTION to_e(c);
CREATE TABLE t (id serial PRIMARY KEY, e e); CREATE VIEW v AS SELECT * FROM t;
CREATE MATERIALIZED VIEW m AS SELECT * FROM t;
CREATE STATISTICS st ON id, e FROM t; CREATE PUBLICATION p FOR TABLE t; SELECT lo_from_bytea(0, 'x');
CREATE EXTENSION pg_trgm; CREATE COLLATION co FROM "C"; CREATE TEXT SEARCH CONFIGURATION ts (COPY = simple);
CREATE ROLE untidy_made; GRANT CREATE ON SCHEMA public TO untidy_made; GRANT SELECT ON t TO untidy_made;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO untidy_made;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO PUBLIC;
ALTER DATABASE x SET work_mem = '5MB'; ALTER ROLE untidy_made IN DATABASE x SET work_mem = '6MB';
ALTER DATABASE x CONNECTION LIMIT 40; REVOKE TEMPORARY ON DATABASE x FROM PUBLIC;
GRANT CREATE ON DATABASE x TO untidy_made;
"""


@pytest.fixture
def given(server: EmbeddedServer) -> Iterator[str]:
    """A DSN for `tenant`, who may create roles and no database, and owns the empty `given_away`."""
    with connect(server.dsn) as connection:
        connection.execute("CREATE ROLE tenant LOGIN CREATEROLE")
        connection.execute("CREATE DATABASE given_away OWNER tenant TEMPLATE template0")
    dsn = make_conninfo("", **{**conninfo_to_dict(server.dsn), "user": "tenant"})
    yield dsn
    with connect(server.dsn) as connection:
        connection.execute("DROP DATABASE given_away WITH (FORCE)")
        connection.execute("DROP ROLE tenant")


def opened(
    dsn: str, *migrations: Path, seed: tuple[Path, ...] = (), database: str = "given_away", **more: Any
) -> Template:
    options = Options(server=dsn, database=database, migrations=migrations, seed=seed, **more)
    server = open_server(dsn, "", database)
    server.start()
    return open_template(options, server)


def seen(server: EmbeddedServer) -> set[str]:
    """Everything that a run could leave, by a superuser's eyes."""
    with connect(make_conninfo("", **{**conninfo_to_dict(server.dsn), "dbname": "given_away"})) as connection:
        return {str(row[0]) for row in connection.execute(EVERYTHING.encode())}


def rows(database: Any, query: str) -> list[Any]:
    with database.connect() as connection:
        return connection.execute(query.encode()).fetchall()


def test_it_is_filled_for_each_run_and_left_as_it_was_found(server: EmbeddedServer, given: str, tmp_path: Path) -> None:
    """Whatever the files make of it, what a run wrote is gone in the next one, and all of it in the end."""
    (tmp_path / "1.sql").write_text(UNTIDY)
    (tmp_path / "2.sql").write_text("DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE TABLE things (id int);")
    with connect(make_conninfo("", **{**conninfo_to_dict(given), "dbname": "given_away"})) as connection:
        connection.execute("ALTER DATABASE given_away SET statement_timeout = '9s'; CREATE EXTENSION hstore")
    before = seen(server)
    with opened(given, tmp_path) as template:
        assert template.applied.whole, template.applied.failures
        assert any("everything happens in the database given_away" in note for note in template.applied.notes)
        for _ in range(2):
            with template.checkout() as database:
                assert rows(database, "SELECT count(*) FROM things") == [(0,)]
                rows(database, "INSERT INTO things VALUES (1) RETURNING id")
                with pytest.raises(UsageError, match="A run has the given database already"):
                    template.clone()
    assert seen(server) == before


@pytest.mark.parametrize("project", ["studio"])
def test_a_project_of_supabase_gets_in(server: EmbeddedServer, given: str, project: str) -> None:
    """By a role without a superuser's rights; roles that were missing are gone again."""
    before = seen(server)
    with opened(given, PROJECTS / project / "supabase" / "migrations", keep_going=True) as template:
        applied = template.applied
        assert not applied.failures, [f"{f.path.name}:{f.line} {f.message}" for f in applied.failures]
        with template.checkout(), pytest.raises(HarnessError, match="is using the database given_away"):
            opened(given, MIGRATIONS).__enter__()
    assert seen(server) == before


def test_what_a_killed_run_left_is_emptied_and_what_is_somebodys_is_not(
    server: EmbeddedServer, given: str, sandbox: Sandbox
) -> None:
    """By its mark; a table that somebody else made is named, and stays."""
    before = seen(server)
    script = (
        "import os, signal\nfrom pathlib import Path\nfrom tests.integration.test_given_database import opened\n"
        f"with opened({given!r}, Path({str(MIGRATIONS)!r})) as template:\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, cwd=MIGRATIONS.parent.parent).returncode == -9
    assert seen(server) != before
    done = sandbox.run("harness", "clean", "--server", make_conninfo(given, dbname="given_away"))
    assert (done.returncode, "removed  contents given_away" in done.stdout) == (0, True), done.stdout + done.stderr
    assert seen(server) == before
    with connect(make_conninfo(given, dbname="given_away")) as connection:
        connection.execute("CREATE TABLE somebodys (id int)")
    done = sandbox.run("harness", "apply", "--server", given, "--database", "given_away")
    assert done.returncode == ExitStatus.ENVIRONMENT
    assert "is not empty, and not the harness's" in done.stderr
    assert "table public.somebodys" in done.stderr
    with connect(make_conninfo(given, dbname="given_away")) as connection:
        assert connection.execute("SELECT count(*) FROM somebodys").fetchone() == (0,)


SCENARIO = """
-- scenario: one customer gets the coupon
-- setup
CREATE TABLE coupons (code text PRIMARY KEY, left_over int); INSERT INTO coupons VALUES ('LAST', 1);
-- session: customer x 2
BEGIN;
SELECT left_over FROM coupons WHERE code = 'LAST'{lock};
UPDATE coupons SET left_over = left_over - 1 WHERE code = 'LAST' AND left_over > 0;
COMMIT;
-- never: one too many
SELECT FROM coupons WHERE left_over < 0;
"""


@pytest.mark.parametrize(
    ("database", "lock", "status"),
    [
        ("given_away", " FOR UPDATE", ExitStatus.HELD),
        ("shared.mine", "", ExitStatus.BROKEN),
    ],
)
def test_a_scenario_is_judged_in_it(
    server: EmbeddedServer,
    given: str,
    database: str,
    lock: str,
    status: ExitStatus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a given database, and in a schema of one that others use, which the run does not touch."""
    monkeypatch.setattr("harness.checking.race.SECONDS", 1.0)
    (tmp_path / "coupon.race.sql").write_text(SCENARIO.format(lock=lock))
    with connect(server.dsn) as connection:
        connection.execute("CREATE DATABASE shared TEMPLATE template0")
    try:
        with connect(make_conninfo(server.dsn, dbname="shared")) as connection:
            connection.execute("CREATE TABLE customers (id int); CREATE SCHEMA mine AUTHORIZATION tenant")
        options = Options(server=given, database=database, migrations=(), seed=())
        with open_checks(options) as checks:
            run = checks.check(reader.read(tmp_path / "coupon.race.sql"))
        assert run.details["check"]["restored"].startswith("by filling the given database again")
        record = checks.record("harness check")
        assert record.exit_status == status
        with connect(make_conninfo(server.dsn, dbname="shared")) as connection:
            assert connection.execute(
                "SELECT count(*) FROM pg_tables WHERE schemaname IN ('mine', 'public')"
            ).fetchone() == (1,)
            connection.execute("GRANT INSERT ON customers TO tenant")
        with pytest.raises(HarnessError, match="could change more of the database shared") as raised:
            opened(given, MIGRATIONS, database="shared.mine").__enter__()
        assert "write to the table public.customers" in raised.value.tried
    finally:
        with connect(server.dsn) as connection:
            connection.execute("DROP DATABASE shared WITH (FORCE)")


@pytest.mark.parametrize(
    ("given_as", "says"),
    [("template1", "may create nothing in the database template1"), ("nowhere", "No connection to"),
     ("given_away.nowhere", "There is no schema nowhere"), ("given_away.public", "could change more")],
)  # fmt: skip
def test_a_database_that_will_not_do_is_refused(given: str, given_as: str, says: str) -> None:
    """No right to create, no such database, no such schema, more rights than on the schema."""
    with pytest.raises(HarnessError, match=says) as raised:
        opened(given, MIGRATIONS, database=given_as).__enter__()
    assert raised.value.next_step


def test_a_booted_server_needs_none() -> None:
    """Its runs have a database each."""
    with pytest.raises(UsageError, match="--database is for a server that is not booted here"):
        open_server("embedded", "", "given_away")


def test_without_a_database_the_role_is_told_of_it(given: str) -> None:
    """The refusal of a role that may create none names what would help."""
    with pytest.raises(HarnessError, match="may not create databases") as raised:
        ExternalServer(given).start()
    assert "--database NAME" in raised.value.next_step


def test_a_moment_is_refused_where_the_clock_would_stay_replaced(server: EmbeddedServer, tmp_path: Path) -> None:
    """`now:` replaces the database's clock functions: in a given one they are somebody's, and stay as they are."""
    (tmp_path / "lease.race.sql").write_text("-- scenario: a\n-- now: 2030-01-01\n-- session: a x 2\nSELECT now();\n")
    with connect(server.dsn) as connection:
        connection.execute("CREATE DATABASE timed TEMPLATE template0")
    try:
        options = Options(server=server.dsn, database="timed", migrations=(), seed=())
        with open_checks(options) as checks, pytest.raises(UsageError, match="would leave yours so"):
            checks.check(reader.read(tmp_path / "lease.race.sql"))
        with connect(make_conninfo(server.dsn, dbname="timed")) as connection:
            assert connection.execute("SELECT now() < '2030-01-01'").fetchone() == (True,)
    finally:
        with connect(server.dsn) as connection:
            connection.execute("DROP DATABASE timed WITH (FORCE)")
