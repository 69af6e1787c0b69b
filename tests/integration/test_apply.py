"""Files into a template: any number, in their tool's order, as whom and with what the platform has."""

from __future__ import annotations

import hashlib
import hmac
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from harness.environment import platforms, servers
from harness.environment.applied import Applied
from harness.environment.database import ApplyPlan, Database, Template
from harness.environment.embedded import EmbeddedServer
from harness.environment.servers import ExternalServer, Server, connect
from harness.errors import HarnessError
from harness.sqltext.scripts import Script

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


def test_a_file_that_is_begun_again_counts_only_when_all_of_it_was_applied(apply: Apply) -> None:
    """Where something cannot run in the file's transaction, what fails then is listed, and the file is not applied."""
    applied, _ = apply(
        {"1.sql": "CREATE TABLE a (id integer);\nVACUUM a;\nSELECT nothing;\n", "2.sql": "SELECT 1;"},
        keep_going=True,
    )
    assert applied.applied == 1
    assert [(failure.path.name, failure.line) for failure in applied.failures] == [("1.sql", 3)]


@pytest.mark.parametrize("keep_going", [False, True])
def test_a_file_may_choose_the_isolation_of_its_transaction(keep_going: bool, apply: Apply) -> None:
    """First in the file, first in a transaction of its own, and in one that follows something else."""
    chooses = "BEGIN;\nSET TRANSACTION ISOLATION LEVEL REPEATABLE READ;\nINSERT INTO levels VALUES "
    chooses += "(current_setting('transaction_isolation'));\nCOMMIT;\n"
    applied, database = apply(
        {
            "1.sql": "CREATE TABLE levels (level text);\n",
            "2.sql": chooses.removeprefix("BEGIN;\n").removesuffix("COMMIT;\n"),
            "3.sql": chooses,
            "4.sql": f"INSERT INTO levels VALUES ('first');\n{chooses}",
        },
        keep_going=keep_going,
    )
    assert applied.whole
    assert ask(database, "SELECT string_agg(level, ', ') FROM levels") == ", ".join(
        ["repeatable read", "repeatable read", "first", "repeatable read"]
    )


def test_a_failure_names_the_folder_of_the_one_it_follows_from_where_files_have_one_name(apply: Apply) -> None:
    """Every file of Prisma's is called migration.sql."""
    applied, _ = apply(
        {"1_a/migration.sql": "CREATE TABLE a (id nonsense);", "2_b/migration.sql": "INSERT INTO a VALUES (1);"},
        keep_going=True,
    )
    assert [failure.follows for failure in applied.failures] == ["", "1_a/migration.sql:1"]


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
def test_a_command_builds_the_schema_and_the_files_come_after_it(platform: str, apply: Apply, server: Server) -> None:
    """It is told where by DATABASE_URL, runs as the migrations do, and its output is kept."""
    applied, database = apply(
        {"1.sql": "INSERT INTO made VALUES (current_user);"},
        setup=f"{BUILDS}'CREATE TABLE made (by name)')\" && psql_like=$PGHOST:$PGDATABASE && echo built in $psql_like",
        platform=platform,
    )
    assert applied.whole
    assert f"built in {conninfo_to_dict(server.dsn)['host']}:harness" in "".join(applied.notes)
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


def test_what_a_command_leaves_running_is_ended(apply: Apply, tmp_path: Path) -> None:
    """As soon as it is done: what it began would outlast the database."""
    pid = tmp_path / "pid"
    apply({"1.sql": "SELECT 1;"}, setup=f"(sleep 600 & echo $! > {pid}) && {BUILDS}'CREATE TABLE made ()')\"")
    assert not alive(int(pid.read_text()))


def alive(pid: int) -> bool:
    """Whether a process runs: one that has ended may wait for somebody to ask how."""
    return subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True).stdout.strip()[:1] not in (
        b"",
        b"Z",
    )


# -- whole projects, as they are

PROJECTS = Path(__file__).parent / "projects"


@pytest.fixture(params=["studio", "parcel", "ledger"])
def project(request: pytest.FixtureRequest, server: Server) -> Iterator[tuple[str, Template]]:
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


# -- clones, and what a migration does to its database


def test_a_clone_has_what_its_template_has(apply: Apply) -> None:
    """Settings of the database and of roles in it, privileges, the connection limit; and large objects."""
    applied, database = apply(
        {
            "1.sql": 'ALTER DATABASE somewhere SET search_path TO "$user", books, public;\n'
            "ALTER DATABASE somewhere SET default_transaction_isolation = serializable;\n"
            "ALTER DATABASE somewhere SET \"app.greeting\" = 'it''s {} %s';\n"
            "ALTER DATABASE somewhere SET search_path_of.mine = '';\n"
            "ALTER DATABASE somewhere CONNECTION LIMIT 77;\n"
            "REVOKE CONNECT ON DATABASE somewhere FROM PUBLIC;\nGRANT CONNECT ON DATABASE somewhere TO anon;\n"
            "ALTER ROLE anon IN DATABASE somewhere SET statement_timeout = '4s';\n"
            "COMMENT ON DATABASE somewhere IS 'ours';\n"
            "SELECT lo_from_bytea(4711, 'large');\n"
        },
        platform="supabase",
    )
    assert applied.whole
    assert ask(database, "SHOW search_path") == '"$user", books, public'
    assert ask(database, "SHOW default_transaction_isolation") == "serializable"
    assert ask(database, "SELECT current_setting('app.greeting')") == "it's {} %s"
    assert ask(database, "SELECT convert_from(lo_get(4711), 'UTF8')") == "large"
    of_ours = " FROM pg_database d WHERE datname = current_database()"
    assert ask(database, f"SELECT datconnlimit{of_ours}") == 77
    assert ask(database, f"SELECT has_database_privilege('anon', d.oid, 'CONNECT'){of_ours}") is True
    assert ask(database, f"SELECT has_database_privilege('service_role', d.oid, 'CONNECT'){of_ours}") is False
    settings = (
        "SELECT array_to_string(setconfig, ',') FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase"
    )
    assert (
        ask(database, f"{settings} WHERE setrole = 'anon'::regrole AND datname = current_database()")
        == "statement_timeout=4s"
    )


def test_a_copy_of_a_clone_has_what_the_template_has(server: Server, tmp_path: Path) -> None:
    """A scenario whose rows only a clone puts back runs in one: the search_path is there, and the owner."""
    (tmp_path / "1.sql").write_text("CREATE SCHEMA books; ALTER DATABASE x SET search_path = books;")
    plan = ApplyPlan(platform="supabase")
    with Template(server, [tmp_path], [], plan=plan) as template, template.clone() as database:
        for _ in range(2):
            with template.copy(database, f"{database.name}_base") as base:
                assert ask(base, "SHOW search_path") == "books"
                owner = "SELECT datdba::regrole::text FROM pg_database WHERE datname = current_database()"
                assert ask(base, owner) == "postgres"
                template.copy(base, database.name)
            assert ask(database, "SHOW search_path") == "books"


def test_default_privileges_are_open_or_closed(apply: Apply) -> None:
    """As projects have them until now, or as new ones do; the roles are cut off early in both."""
    table = {"1.sql": "CREATE TABLE things (id int); CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';"}
    for mode, allowed in (("open", True), ("closed", False)):
        _, database = apply(table, platform="supabase", default_privileges=mode)
        assert ask(database, "SELECT has_table_privilege('anon', 'things', 'INSERT')") is allowed
        assert ask(database, "SELECT has_function_privilege('authenticated', 'f()', 'EXECUTE')") is allowed
        assert ask(database, "SELECT has_table_privilege('postgres', 'things', 'INSERT')") is True
    timeouts = "SELECT string_agg(rolname || array_to_string(rolconfig, ''), ' ' ORDER BY rolname) FROM pg_roles"
    found = ask(database, f"{timeouts} WHERE rolname IN ('anon', 'authenticated')")
    assert found == "anonstatement_timeout=3s authenticatedstatement_timeout=8s"


def test_stand_ins_keep_what_they_promise(apply: Apply) -> None:
    """Digests as others compute them; what crypt wrote crypt accepts; a value of a stand-in names itself."""
    applied, database = apply({"1.sql": "CREATE EXTENSION pgjwt WITH SCHEMA extensions;"}, platform="supabase")
    assert {each.name for each in applied.stand_ins} >= {"pgcrypto", "uuid-ossp", "pgjwt"}
    dns = uuid.NAMESPACE_DNS
    for query, answer in {
        "SELECT encode(digest('abc', 'sha1'), 'hex')": hashlib.sha1(b"abc").hexdigest(),
        "SELECT encode(digest(repeat('a', 119), 'sha1'), 'hex')": hashlib.sha1(b"a" * 119).hexdigest(),
        "SELECT encode(digest('abc', 'md5'), 'hex')": hashlib.md5(b"abc").hexdigest(),
        "SELECT encode(digest('abc', 'sha512'), 'hex')": hashlib.sha512(b"abc").hexdigest(),
        "SELECT encode(hmac('text', 'key', 'sha1'), 'hex')": hmac.new(b"key", b"text", "sha1").hexdigest(),
        "SELECT encode(hmac('text', repeat('k', 200), 'sha512'), 'hex')":
            hmac.new(b"k" * 200, b"text", "sha512").hexdigest(),
        "SELECT uuid_generate_v5(uuid_ns_dns(), 'example.com')": uuid.uuid5(dns, "example.com"),
        "SELECT uuid_generate_v3(uuid_ns_dns(), 'example.com')": uuid.uuid3(dns, "example.com"),
        "SELECT hash = crypt('pw', hash) FROM (SELECT crypt('pw', gen_salt('bf')) AS hash) AS h": True,
        "SELECT hash = crypt('other', hash) FROM (SELECT crypt('pw', gen_salt('bf')) AS hash) AS h": False,
        "SELECT crypt('pw', gen_salt('bf', 8)) LIKE 'stand-in$%'": True,
        "SELECT pgp_sym_decrypt(pgp_sym_encrypt('héllo', 'k'), 'k')": "héllo",
        "SELECT length(gen_random_bytes(100))": 100,
        "SELECT valid FROM verify(sign('{\"a\": 1}', 'secret'), 'secret')": True,
        "SELECT valid FROM verify(sign('{\"a\": 1}', 'secret'), 'other')": False,
        "SELECT 'stand-in' = convert_from(substring(encrypt('x', 'k', 'aes') FROM 1 FOR 8), 'UTF8')": True,
    }.items():  # fmt: skip
        assert ask(database, query) == answer, query


def test_the_stand_in_for_vector_computes_what_pgvector_computes(apply: Apply) -> None:
    """Where a server has no pgvector: columns, dimensions, casts, distances; an index by hnsw is left out."""
    _, database = apply({"1.sql": ""})
    with database.connect() as connection:
        platforms.run_stand_in(connection, "vector", "public")
        connection.execute("CREATE TABLE t (v vector(3), h halfvec(2))")
        connection.execute("INSERT INTO t VALUES (ARRAY[1, 2, 3], '[3,4]')")
        with pytest.raises(psycopg.errors.DataException, match="expected 3 dimensions, not 2"):
            connection.execute("INSERT INTO t (v) VALUES ('[1,2]')")
    for query, answer in {
        "SELECT round((v <-> '[4,5,7]')::numeric, 6) FROM t": Decimal("5.830952"),
        "SELECT round((v <=> '[4,5,7]')::numeric, 6) FROM t": Decimal("0.013987"),
        "SELECT v <#> '[4,5,7]' FROM t": -35.0,
        "SELECT v <+> '[4,5,7]' FROM t": 10.0,
        "SELECT cosine_distance(h, '[0,0]')::text FROM t": "NaN",
        "SELECT l2_normalize(h)::text FROM t": "[0.6,0.8]",
        "SELECT (v + v)::real[] FROM t": [2.0, 4.0, 6.0],
        "SELECT avg(v)::text FROM (SELECT v FROM t UNION ALL SELECT '[3,2,1]') AS two": "[2,2,2]",
        "SELECT vector_dims(v) FROM t": 3,
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'h'":
            "halfvec(2)",
    }.items():  # fmt: skip
        assert ask(database, query) == answer, query


def test_what_a_dump_of_a_project_sets_and_makes_gets_in(apply: Apply) -> None:
    """An extension with a schema of its own where there is no search_path; a setting and its RESET; foreign data."""
    applied, database = apply(
        {
            "1.sql": "SELECT set_config('search_path', '', false);\n"
            "CREATE EXTENSION pg_tle;\n"
            "SET session_replication_role = replica;\nRESET session_replication_role;\n"
            "CREATE EXTENSION wrappers WITH SCHEMA extensions;\nSET search_path = extensions;\n"
            "CREATE FOREIGN DATA WRAPPER w HANDLER stripe_fdw_handler VALIDATOR stripe_fdw_validator;\n"
            "CREATE SERVER shop FOREIGN DATA WRAPPER w OPTIONS (api_key_name 'key');\n"
            "CREATE FOREIGN TABLE public.customers (id text) SERVER shop OPTIONS (object 'customers');\n",
        },
        platform="supabase",
    )
    assert applied.whole
    assert {"pg_tle", "wrappers"} <= {each.name for each in applied.stand_ins}
    assert ask(database, "SELECT relowner::regrole::text FROM pg_class WHERE relname = 'customers'") == "postgres"
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="fdw_handler"):
        ask(database, "SELECT count(*) FROM customers")


def test_an_extension_that_nobody_has_is_refused_by_name(apply: Apply) -> None:
    """And left out where going on was asked for."""
    files = {"1.sql": "CREATE EXTENSION IF NOT EXISTS plv8;\nCREATE TABLE t ();"}
    with pytest.raises(HarnessError, match="the extension plv8 is not on this server") as raised:
        apply(files)
    assert "--postgres-image" in raised.value.next_step
    applied, database = apply(files, keep_going=True)
    assert len(applied.failures) == 1
    assert ask(database, "SELECT count(*) FROM t") == 0


def test_an_extension_that_the_server_has_is_altered_though_there_is_a_stand_in(apply: Apply, server: Server) -> None:
    """What is left out for a stand-in is done to the real one, by the superuser."""
    with connect(server.dsn) as connection:
        query = "SELECT 1 FROM pg_available_extensions WHERE name = 'vector' AND default_version <> %s"
        if not connection.execute(query, [platforms.STAND_IN]).fetchone():
            pytest.skip("this server has no pgvector")
    text = "CREATE SCHEMA kept; CREATE EXTENSION vector; ALTER EXTENSION vector SET SCHEMA kept;"
    applied, database = apply({"1.sql": text}, platform="supabase")
    assert applied.whole
    assert ask(database, "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector'") == "kept"


def test_an_extension_that_the_dashboard_turned_on_is_taken_as_there(apply: Apply) -> None:
    """Projects use what no migration creates; it is supplied, and said."""
    files = {
        "1.sql": "SELECT cron.schedule('j', '* * * * *', 'SELECT 1');\n"
        "CREATE TABLE t (v vector(3), g geography(point, 4326), e citext);\n"
        "CREATE INDEX ON t USING gin (e gin_trgm_ops);\n"
    }
    with pytest.raises(HarnessError, match='schema "cron" does not exist'):
        apply(files, platform="none")
    applied, _ = apply(files, platform="supabase")
    said = " ".join(applied.notes)
    assert all(
        f"{name} is created by no file" in said for name in ("pg_cron", "vector", "postgis", "citext", "pg_trgm")
    )


def test_what_other_tools_and_servers_have_is_supplied_or_left_out(apply: Apply) -> None:
    """A tool's own table, a label for an extension that is a stand-in, an index by a method that is not here."""
    applied, database = apply(
        {
            "1.sql": "INSERT INTO _prisma_migrations (id, checksum, migration_name) VALUES ('1', 'x', 'first');\n"
            "CREATE TABLE t (a text); CREATE INDEX ON t USING pgroonga (a);\n"
            "SECURITY LABEL FOR pgsodium ON COLUMN t.a IS 'ENCRYPT WITH KEY ID 1';\n",
        },
        platform="supabase",
    )
    assert applied.whole
    assert ask(database, "SELECT migration_name FROM _prisma_migrations") == "first"
    said = " ".join(applied.notes)
    assert all(part in said for part in ("keeps its books", "indexes by pgroonga", "nothing is encrypted here"))


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ('CREATE TABLE t (id uuid REFERENCES "auth".users);', "supabase"),
        ('CREATE SCHEMA IF NOT EXISTS "auth"; CREATE TABLE auth.users (id int);', "none"),
        ("CREATE SCHEMA auth; CREATE POLICY p ON t USING (auth.uid() = id);", "supabase"),
    ],
)
def test_a_schema_of_ones_own_named_auth_is_not_supabases(text: str, platform: str, tmp_path: Path) -> None:
    """Unless a function of the platform's is used: a dump of a project makes the schema too."""
    (tmp_path / "1.sql").write_text(text)
    assert platforms.recognise([Script.read(tmp_path / "1.sql")])[0] == platform


@pytest.mark.parametrize(
    ("text", "says", "next_step"),
    [
        ("SELECT 1;\nSELECT pg_sleep(600);", r"1\.sql:2: the file was not done after 0.3 s", "--apply-timeout"),
        ("SELECT 1;\nALTER SYSTEM SET work_mem = '1GB'", r"1\.sql:2: ALTER SYSTEM changes the whole", "take it out"),
        ("SELECT 1;\nCREATE TABLE :my_schema.t ();", "1.sql:2: nothing sets the variable my_schema", "set my_schema"),
        ("CREATE TABLE t (a int);\nCOPY t\nFROM stdin;\n1\nx\n\\.\n", r"1\.sql:5: invalid input syntax", "mend"),
        ("COPY t FROM stdin;\n1\n\\.\n", r"1\.sql:1: relation \"t\" does not exist", "before this one"),
        ("SELECT pg_terminate_backend(pg_backend_pid());", r"1\.sql:1: the connection was lost", "server's log"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_end_well_is_refused_with_cause_and_next_step(
    text: str, says: str, next_step: str, apply: Apply
) -> None:
    """One that waits forever, one that means the whole server, rows for no table, one that ends its own session."""
    with pytest.raises(HarnessError, match=says) as raised:
        apply({"1.sql": text}, limit=0.3)
    assert next_step in raised.value.next_step


def test_a_timeout_that_a_file_sets_itself_is_named_where_it_strikes(apply: Apply) -> None:
    """It is a matter of the file's, not of --apply-timeout."""
    with pytest.raises(HarnessError, match=r"1\.sql:2: .*statement timeout") as raised:
        apply({"1.sql": "SET statement_timeout = '500ms';\nSELECT pg_sleep(600);"})
    assert "raise statement_timeout" in raised.value.next_step


def test_what_a_file_does_to_its_session_is_gone_with_it(apply: Apply) -> None:
    """A timeout, a search_path, a role, an empty file, a schema of the platform dropped: the next one starts anew."""
    applied, database = apply(
        {
            "1.sql": "SET statement_timeout = '1ms'; SET search_path = nowhere; SET SESSION AUTHORIZATION anon;",
            "2.sql": "",
            "3.sql": "-- nothing but words\n",
            "4.sql": "DROP SCHEMA auth CASCADE; CREATE TABLE t (id uuid DEFAULT auth.uid());",
            "5.sql": "RESET SESSION AUTHORIZATION; CREATE TABLE u ();",
        },
        platform="supabase",
    )
    assert applied.applied == 5
    assert (
        ask(database, "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public'")
        == "t u"
    )
    assert any("DROP SCHEMA auth is left out" in note for note in applied.notes)


def test_dates_are_read_in_whatever_style_a_database_gives_them(apply: Apply) -> None:
    """The driver reads ISO 8601 alone; the order of day and month stays the database's, also after a RESET."""
    _, database = apply(
        {
            "1.sql": "ALTER DATABASE app SET datestyle = 'SQL, DMY';"
            "ALTER DATABASE app SET intervalstyle = 'sql_standard'; CREATE TABLE t (at timestamptz, took interval);",
            "2.sql": "INSERT INTO t VALUES ('2024-05-06 07:08:09+00', '1 day 2 hours');",
        }
    )
    with database.connect() as connection:
        connection.execute("RESET ALL")
        row = connection.execute("SELECT at, took, '03/02/2024'::date FROM t").fetchone()
    assert row == (
        datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC), timedelta(days=1, hours=2), date(2024, 2, 3)
    )  # fmt: skip


def test_statements_of_psql_run_as_there(apply: Apply) -> None:
    """\\gset keeps an answer, \\gexec runs one, a variable goes into a statement, rows for COPY come from a file."""
    applied, database = apply(
        {
            "1.sql": "CREATE TABLE t (a int, b text);\nSELECT 3 AS n, 'x' AS word \\gset my_\n"
            "SELECT format('INSERT INTO t VALUES (%s, %L)', i, :'my_word') FROM generate_series(1, :my_n) i \\gexec\n"
            "\\copy t from 'rows.csv' with (format csv)\nCOPY t TO stdout;\nSELECT 1;\n",
            "rows.csv": '7,"a;b"\n',
        }
    )
    assert applied.whole
    assert ask(database, "SELECT string_agg(a || b, ' ' ORDER BY a) FROM t") == "1x 2x 3x 7a;b"


# -- on somebody else's server


def test_on_somebody_elses_server_roles_are_left_as_they_were(server: EmbeddedServer, tmp_path: Path) -> None:
    """A role that may create databases and roles, and nothing else: what it cannot do is said, what it made is gone."""

    def roles() -> list[Any]:
        with connect(server.dsn) as connection:
            query = "SELECT rolname, rolconfig FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1"
            return connection.execute(query).fetchall()

    with connect(server.dsn) as connection:
        connection.execute("CREATE ROLE hosted LOGIN CREATEDB CREATEROLE")
        connection.execute("CREATE ROLE theirs")
        connection.execute("GRANT theirs TO hosted WITH ADMIN OPTION")
    try:
        before = roles()
        (tmp_path / "1.sql").write_text(
            "CREATE TABLE t (id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), by uuid DEFAULT auth.uid());\n"
            "ALTER TABLE t ENABLE ROW LEVEL SECURITY;\nCREATE POLICY p ON t TO authenticated USING (by = auth.uid());\n"
            "DO $$ BEGIN CREATE ROLE made_in_a_block; END $$;\nCREATE ROLE made;\nCREATE ROLE theirs;\n"
            "ALTER ROLE theirs SET statement_timeout = '5s';\nALTER ROLE made SET statement_timeout = '6s';\n"
        )
        hosted = ExternalServer(make_conninfo("", **{**conninfo_to_dict(server.dsn), "user": "hosted"}))
        with (
            hosted,
            Template(hosted, [tmp_path], [], plan=ApplyPlan(platform="supabase")) as template,
            template.clone() as database,
        ):
            assert template.applied.whole
            assert any("hosted, which has not postgres's rights" in note for note in template.applied.notes)
            assert {"made", "made_in_a_block", "authenticated"} <= {name for name, _ in roles()}
            own = "SELECT setconfig[1] FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase"
            found = ask(database, f"{own} WHERE s.setrole = 'theirs'::regrole AND datname = current_database()")
            assert found == "statement_timeout=5s"
        assert roles() == before
    finally:
        with connect(server.dsn) as connection:
            connection.execute("DROP ROLE hosted, theirs")


def test_two_runs_side_by_side_share_the_platforms_roles(server: EmbeddedServer, tmp_path: Path) -> None:
    """Created by the first, dropped by the last, and neither is in the other's way."""
    (tmp_path / "1.sql").write_text("CREATE TABLE t (); GRANT SELECT ON t TO anon;")
    with ThreadPoolExecutor() as pool:

        def applied(_: int) -> bool:
            with Template(ExternalServer(server.dsn), [tmp_path], [], plan=ApplyPlan(platform="supabase")) as template:
                return template.applied.whole

        assert all(pool.map(applied, range(4)))


def test_a_pooler_in_transaction_mode_is_recognised(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One session that two backends answer cannot be used; the direct port can."""
    pids = iter([(1,), (1,), (2,)])

    class Pooled:
        """A pooler's answers: the session's, somebody else's from the same backend, the session's from another."""

        def execute(self, query: str) -> Pooled:
            return self

        def fetchone(self) -> tuple[int]:
            return next(pids)

        def __enter__(self) -> Pooled:
            next(pids)
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(servers, "connect", lambda *_, **__: Pooled())
    with pytest.raises(HarnessError, match="pooler in transaction mode") as raised:
        ExternalServer(server.dsn)._refuse_pooler(Pooled())  # type: ignore[arg-type]
    assert "5432" in raised.value.next_step
