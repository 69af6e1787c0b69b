"""Files into a template: any number, in their tool's order, as whom and with what the platform has."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from harness.environment.applying import Applied
from harness.environment.database import ApplyPlan, Database, Template
from harness.environment.embedded import EmbeddedServer
from harness.errors import HarnessError

Apply = Callable[..., tuple[Applied, Database]]


@pytest.fixture
def apply(server: EmbeddedServer, tmp_path: Path) -> Iterator[Apply]:
    """Applies texts as the files of a folder, and gives what became of them and a clone."""
    with ExitStack() as stack:

        def make(files: dict[str, str], *, folder: str = "sql", **plan: Any) -> tuple[Applied, Database]:
            for name, text in files.items():
                path = tmp_path / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text.encode())
            template = Template(server, [tmp_path / folder], [], plan=ApplyPlan(**plan))
            stack.enter_context(template)
            return template.applied, stack.enter_context(template.clone())

        yield make


def ask(database: Database, query: str) -> Any:
    with database.connect() as connection:
        row = connection.execute(query.encode()).fetchone()
        return None if row is None else row[0]


@pytest.mark.parametrize("count", [1, 7, 300])
def test_any_number_of_files_is_applied(count: int, apply: Apply) -> None:
    """Each in a session of its own, as pg_dump's files need it."""
    text = (
        "SELECT pg_catalog.set_config('search_path', '', false);\nCREATE TABLE public.t{0} (id integer PRIMARY KEY);\n"
    )
    applied, database = apply({f"{n:03}.sql": text.format(n) for n in range(count)})
    assert (applied.applied, applied.files, applied.failures) == (count, count, ())
    assert ask(database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == count


def test_going_on_lists_what_failed_and_what_followed_from_it(apply: Apply) -> None:
    """What can be applied is, the rest of a file too; a failure that names what an earlier one makes says so."""
    applied, database = apply(
        {
            "1.sql": "CREATE TABLE a (id nonsense);\nCREATE TABLE b (id integer);\n",
            "2.sql": "INSERT INTO b VALUES (1);\nINSERT INTO a VALUES (1);\nINSERT INTO b VALUES (2);\n",
        },
        keep_going=True,
    )
    assert applied.applied == 0
    assert not applied.whole
    first, second = applied.failures
    assert (first.path.name, first.line, first.sqlstate, first.follows) == ("1.sql", 1, "42704", "")
    assert (second.path.name, second.line, second.sqlstate, second.follows) == ("2.sql", 2, "42P01", "1.sql:1")
    assert ask(database, "SELECT sum(id) FROM b") == 3


def test_without_going_on_the_first_failure_ends_it(apply: Apply) -> None:
    """With file, line, SQLSTATE, statement and what to do."""
    with pytest.raises(HarnessError, match=r"1\.sql:2: .*SQLSTATE 42P01") as raised:
        apply({"1.sql": "SELECT 1;\nINSERT INTO nothing VALUES (1);\n"})
    assert "INSERT INTO nothing" in raised.value.tried
    assert raised.value.next_step


# -- a schema that another tool builds

BUILDS = (
    f"{sys.executable} -c \"import os, psycopg; psycopg.connect(os.environ['DATABASE_URL'], autocommit=True).execute("
)


@pytest.mark.parametrize("platform", ["none", "supabase"])
def test_a_command_builds_the_schema_and_the_files_come_after_it(platform: str, apply: Apply) -> None:
    """It is told where by DATABASE_URL, runs as the migrations do, and its output is kept."""
    applied, database = apply(
        {"1.sql": "INSERT INTO made VALUES (current_user);"},
        setup=f"{BUILDS}'CREATE TABLE made (by name)')\" && psql_like=$PGHOST:$PGDATABASE && echo built in $psql_like",
        platform=platform,
    )
    assert applied.whole
    assert "built in /" in "".join(applied.notes)
    owner = ask(database, "SELECT tableowner FROM pg_tables WHERE tablename = 'made'")
    assert owner == applied.role == ask(database, "SELECT by FROM made")


@pytest.mark.parametrize(
    ("command", "says", "shown"),
    [
        ("echo not today; exit 7", "failed with status 7", "not today"),
        ("echo nothing to do", "changed nothing in the database", "nothing to do"),
        ("echo wait; sleep 600", "was not done after 1 s", "wait"),
    ],
)
def test_a_command_that_builds_nothing_is_refused_with_its_words(
    command: str, says: str, shown: str, apply: Apply
) -> None:
    """A failure, a command that took another database, one that waits forever."""
    with pytest.raises(HarnessError, match=says) as raised:
        apply({"1.sql": "SELECT 1;"}, setup=command, limit=1.0)
    assert shown in raised.value.tried
    assert raised.value.next_step


# -- whole projects, as they are

PROJECTS = Path(__file__).parent / "projects"


@pytest.fixture(scope="module", params=["studio", "parcel", "ledger"])
def project(request: pytest.FixtureRequest, server: EmbeddedServer) -> Iterator[tuple[str, Template]]:
    """One of the projects, applied."""
    with Template(server, [PROJECTS / request.param / "supabase" / "migrations"], []) as template:
        yield request.param, template


EVIDENCE = {
    "studio": {
        "SELECT count(*) FROM pg_policies WHERE schemaname IN ('public', 'storage', 'auth')": 9,
        "SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE proname = 'book'": "postgres",
        "SELECT command FROM cron.job": " delete from public.bookings where booked_at < now() - interval '2 years' ",
        "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables": "bookings classes",
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'public.bookings_member_idx'::regclass": True,
        "SELECT has_function_privilege('anon', 'public.book(uuid)', 'EXECUTE')": False,
        "SELECT has_table_privilege('anon', 'public.classes', 'SELECT')": True,
        "WITH u AS (INSERT INTO auth.users (id, email) VALUES (gen_random_uuid(), 'Zoe@x') RETURNING id) SELECT 1": 1,
    },
    "parcel": {
        "SELECT has_table_privilege('anon', 'public.parcels', 'SELECT')": False,
        "SELECT has_table_privilege('anon', 'public.depots', 'SELECT')": False,
        "SELECT evtenabled::text FROM pg_event_trigger WHERE evtname = 'parcel_ddl'": "O",
        "SELECT puballtables FROM pg_publication WHERE pubname = 'parcel_all'": True,
        "SHOW timezone": "Europe/Zurich",
        "SELECT public.nearest(47, 8)": 1,
        "SELECT public.take_delivery() ->> 'parcel'": "1",
        "SELECT public.take_delivery()": None,
        "SELECT count(*) FROM pg_proc WHERE proname = 'notes_for_the_team'": 0,
    },
    "ledger": {
        "SELECT name FROM books.accounts WHERE id = 2": "it's a \\ backslash",
        "SELECT tableowner FROM pg_tables WHERE tablename = 'entries'": "ledger_owner",
        "SELECT books.balance(1)": 5,
        "SELECT books.entry_count(2)": 1,
        "SELECT ispopulated FROM pg_matviews WHERE matviewname = 'totals'": True,
        "SELECT count(*) FROM pg_publication_tables WHERE pubname = 'supabase_realtime'": 1,
    },
}
"""What is there in a clone when all of a project got in: a query and its answer."""


def test_a_project_gets_in_as_it_is(project: tuple[str, Template]) -> None:
    """Every file is applied, as `postgres`, and what each of them does shows in a clone."""
    name, template = project
    applied = template.applied
    assert (applied.applied, applied.failures, applied.role) == (applied.files, (), "postgres")
    assert applied.platform.startswith("supabase")
    with template.clone() as database:
        for query, answer in EVIDENCE[name].items():
            assert ask(database, query) == answer, query


def test_migrations_run_without_the_rights_of_a_superuser(apply: Apply) -> None:
    """What only a superuser may is refused, unless the platform allows it; what that was is said."""
    with pytest.raises(HarnessError, match="42501"):
        apply({"1.sql": "COPY (SELECT 1) TO PROGRAM 'true';"}, platform="supabase", folder="a")
    applied, database = apply(
        {
            "1.sql": "CREATE TABLE mine (id int); CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f();\n",
            "0.sql": "CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;\n"
            "CREATE FUNCTION who() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user';\n"
            "DO $$ BEGIN CREATE TABLE made (id int); EXECUTE 'CREATE PUBLICATION p FOR ALL TABLES'; END $$;\n",
        },
        platform="supabase",
        folder="b",
    )
    assert any("event triggers" in note for note in applied.notes)
    assert ask(database, "SELECT who()") == "postgres"
    assert (
        ask(database, "SELECT string_agg(DISTINCT tableowner, ',') FROM pg_tables WHERE schemaname = 'public'")
        == "postgres"
    )
