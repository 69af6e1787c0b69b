"""A server that was booted here obeys nobody's environment, and nobody else's server is written to."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest
from psycopg import pq

from harness.contracts.scan_ticket import SCAN_TICKET
from harness.environment.database import Database, Template
from harness.environment.embedded import EmbeddedServer
from harness.environment.own import environment, environment_for, own_dsn
from harness.environment.servers import address, connect
from harness.errors import ExitStatus, HarnessError
from harness.targets.sql import SqlTarget
from tests.conftest import MIGRATIONS, SEED, Sandbox

VARIABLES = (
    *(option.envvar.decode() for option in pq.Conninfo.get_defaults() if option.envvar),
    *("PGTZ", "PGDATESTYLE", "PGGEQO", "PGSERVICEFILE", "PGSYSCONFDIR", "PGLOCALEDIR"),
)
"""Whatever libpq looks for in the environment."""


class Trap:
    """Somebody else's server, as far as a client can tell: it listens, and knows whether anybody came."""

    def __init__(self, folder: Path) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port = str(self._listener.getsockname()[1])
        self.services = folder / "services.conf"
        self.services.write_text(f"[trap]\nhostaddr=127.0.0.1\nport={self.port}\nuser=mallory\ndbname=theirs\n")
        self.environment = {
            "PGHOST": "127.0.0.1",
            "PGHOSTADDR": "127.0.0.1",
            "PGPORT": self.port,
            "PGDATABASE": "theirs",
            "PGUSER": "mallory",
            "PGPASSWORD": "theirs",
            "PGSERVICE": "trap",
            "PGSERVICEFILE": str(self.services),
            "PGDATA": str(folder / "theirs"),
            "PGOPTIONS": "-c search_path=theirs",
            "PGTARGETSESSIONATTRS": "standby",
            "PGLOADBALANCEHOSTS": "random",
            "PGREQUIREAUTH": "scram-sha-256",
            "PGSSLMODE": "verify-full",
            "PGSSLNEGOTIATION": "direct",
            "PGGSSENCMODE": "require",
            "PGCHANNELBINDING": "require",
            "PGCONNECT_TIMEOUT": "never",
            "PGCLIENTENCODING": "LATIN1",
            "PGTZ": "Asia/Tokyo",
            "PGDATESTYLE": "German",
        }

    @property
    def visited(self) -> bool:
        with suppress(BlockingIOError):
            self._listener.accept()[0].close()
            return True
        return False

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    with closing(Trap(tmp_path)) as trap:
        yield trap


@pytest.mark.parametrize("value", ["absurd", "0", ""])
def test_no_variable_of_libpq_moves_or_stops_a_connection(
    value: str, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one: the connection comes up as always, it is ours, and the variable is its owner's again afterwards."""
    assert len(VARIABLES) > 30
    with connect(server.dsn) as connection:
        asked = "SELECT current_setting(n) FROM unnest('{cluster_name,timezone,datestyle,client_encoding}'::text[]) n"
        usual = connection.execute(asked).fetchall()
    for name in VARIABLES:
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            with connect(server.dsn) as connection:
                assert connection.execute(asked).fetchall() == usual, name
            assert environment().get(name) is None
            with monkeypatch.context() as kept:
                kept.delenv(name)  # raises where it was taken away


def test_no_variable_stops_a_password(trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's server asks for one, and gets the one that it was started with."""
    with EmbeddedServer() as own:
        with connect(own.dsn) as connection:
            connection.execute("ALTER ROLE supabase_admin PASSWORD 'ours'")
            (hba,) = connection.execute("SHOW hba_file").fetchone() or ("",)
            Path(str(hba)).write_text("local all all scram-sha-256\n")
            connection.execute("SELECT pg_reload_conf()")
        for variables in ({}, trap.environment):
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            with connect(f"{own.dsn}&password=ours") as connection:
                own.verify(connection)


def test_pools_and_engines_obey_nobody_either(database: Database, trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    """They open their connections themselves, later and on threads of their own."""
    for name, value in trap.environment.items():
        monkeypatch.setenv(name, value)
    with closing(SqlTarget(database.dsn, SCAN_TICKET, pool_size=2)) as target:
        caller = target.connect(
            0, [v.arguments(0) for v in SCAN_TICKET.variants], overlap=False, warm_up=SCAN_TICKET.unknown_key()
        )
        assert caller.alive
    with database.engine().connect() as connection:
        assert connection.exec_driver_sql("SELECT current_database(), current_setting('timezone')").one() == (
            database.name,
            "UTC",
        )
    for name in ("PGSERVICE", "PGSSLNEGOTIATION", "PGREQUIREAUTH"):  # would stop it, not send it elsewhere
        monkeypatch.delenv(name)
    with psycopg.connect(database.dsn) as plain:  # a test's own, by the DSN alone
        assert plain.info.dbname == database.name
    assert not trap.visited


@pytest.mark.parametrize("words", [("run", "--pattern", "unknown", "--pool-size", "2"), ("explore", "--calls", "1")])
def test_a_run_speaks_to_the_server_that_it_started(words: tuple[str, ...], trap: Trap, sandbox: Sandbox) -> None:
    """PGHOSTADDR, PGSERVICE and the rest name somebody else's: nobody calls there, and the verdict is the same."""
    clients = ("--clients", "2") if words[0] == "run" else ()
    done = sandbox.run("harness", *words, *clients, "--server", "embedded", **trap.environment)
    assert done.returncode == ExitStatus.HELD, done.stdout + done.stderr
    assert not trap.visited
    assert sandbox.left_behind() == []


def test_another_server_is_found_out_before_anything_is_written(server: EmbeddedServer) -> None:
    """The server carries a token that only it can have."""
    with connect(server.dsn) as connection:
        server.verify(connection)
        with pytest.raises(HarnessError, match="Another server than the one that was started"):
            EmbeddedServer.verify(_Claims(server.dsn), connection)  # type: ignore[arg-type]


class _Claims:
    """Thinks that it started the server at an address."""

    token = "harness-another"

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn


def test_only_databases_that_a_run_made_are_written_to(server: EmbeddedServer) -> None:
    """Not template1, from which everything that is created later would be copied, and not the maintenance database."""
    objects = (
        "SELECT (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_namespace), "
        "(SELECT count(*) FROM pg_db_role_setting), (SELECT count(*) FROM pg_extension)"
    )

    def counted() -> list[object]:
        found: list[object] = []
        for name in ("template1", "postgres"):
            with connect(f"{server.dsn}&dbname={name}") as connection:
                found.append(connection.execute(objects).fetchone())
        return found

    before = counted()
    with Template(server, [MIGRATIONS], [SEED], server_goes=True) as template, template.checkout() as database:
        assert database.name.startswith("harness_")
        with database.connect() as connection:
            assert connection.execute("SELECT to_regclass('tickets')").fetchone() == ("tickets",)
        assert counted() == before


def test_the_dsn_of_a_booted_server_shows_what_matters() -> None:
    """Forty neutral parameters are for libpq, not for a reader; and a password is for nobody."""
    dsn = own_dsn(host="/tmp/a b?&#%+ü", port="1", user="me@home", dbname="a/b", password="s:e/c@ret")
    shown = address(dsn)
    assert "s:e/c@ret" not in shown
    assert psycopg.conninfo.conninfo_to_dict(shown) == {
        "host": "/tmp/a b?&#%+ü",
        "port": "1",
        "user": "me@home",
        "dbname": "a/b",
    }
    assert psycopg.conninfo.conninfo_to_dict(dsn)["password"] == "s:e/c@ret"


def test_an_external_dsn_obeys_its_users_environment(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--server dbname=postgres` with PGHOST means the server there, as it does to psql."""
    host = str(psycopg.conninfo.conninfo_to_dict(server.dsn)["host"])
    monkeypatch.setenv("PGHOST", host)
    monkeypatch.setenv("PGPASSWORD", "theirs")
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    with connect("user=supabase_admin dbname=postgres") as connection:
        assert connection.execute("SHOW timezone").fetchone() == ("Asia/Tokyo",)
    assert environment_for("dbname=postgres") == {"PGHOST": host, "PGTZ": "Asia/Tokyo"}
    assert environment_for(server.dsn) == {}
