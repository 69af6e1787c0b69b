"""By which way a server that is not ours is reached: through PgBouncer, over TLS, with a limit of connections."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from harness.environment.database import ApplyPlan, Template
from harness.environment.embedded import EmbeddedServer
from harness.environment.roles import SupabaseRoles
from harness.environment.servers import ExternalServer, connect
from harness.errors import ExitStatus, HarnessError
from tests.conftest import MIGRATIONS, SEED, Sandbox

PROJECTS = Path(__file__).parent / "projects"
Bouncer = Callable[[str], str]

CONFIG = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 40
ignore_startup_parameters = extra_float_digits, options
client_tls_sslmode = require
client_tls_key_file = {folder}/key.pem
client_tls_cert_file = {folder}/cert.pem
"""


@pytest.fixture
def bouncer(server: EmbeddedServer, sandbox: Sandbox) -> Iterator[Bouncer]:
    """Starts a PgBouncer before the session's server, which takes TLS only; gives the DSN that leads through it."""
    program = shutil.which("pgbouncer")
    if program is None:
        if os.environ.get("HARNESS_REQUIRE_CONTAINER") == "1":
            pytest.fail("pgbouncer is required here")
        pytest.skip("needs pgbouncer (Debian's package)")
    folder = sandbox.tmp
    subprocess.run(
        ["openssl", "req", "-new", "-x509", "-days", "2", "-nodes", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-out", folder / "cert.pem", "-keyout", folder / "key.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    (folder / "key.pem").chmod(0o644)
    with ExitStack() as stack:

        def start(mode: str) -> str:
            with socket.create_server(("127.0.0.1", 0)) as free:
                listen = free.getsockname()[1]
            parts = conninfo_to_dict(server.dsn)
            where = {name: parts[name] for name in ("host", "port", "user")}
            (folder / "pgbouncer.ini").write_text(CONFIG.format(listen=listen, mode=mode, folder=folder, **where))
            # Not as root, which it refuses, and as one who may reach the server's socket.
            as_whom = {"user": Path(str(parts["host"])).stat().st_uid} if os.getuid() == 0 else {}
            process = subprocess.Popen([program, folder / "pgbouncer.ini"], **as_whom)  # type: ignore[call-overload]
            stack.callback(process.wait)
            stack.callback(process.kill)
            _await_port(listen)
            return make_conninfo(
                host="localhost", hostaddr="127.0.0.1", port=listen, user=parts["user"], dbname=parts["dbname"],
                sslmode="verify-full", sslrootcert=str(folder / "cert.pem"),
            )  # fmt: skip

        yield start


def _await_port(port: int) -> None:
    for _ in range(200):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError("pgbouncer does not listen")


def test_pgbouncer_in_transaction_mode_is_refused(bouncer: Bouncer) -> None:
    """One session is answered by several backends, so nothing of it can be relied on; the direct port is named."""
    with pytest.raises(HarnessError, match="pooler in transaction mode") as raised:
        ExternalServer(bouncer("transaction")).start()
    assert "two backends" in raised.value.tried
    assert "5432" in raised.value.next_step


def test_pgbouncer_in_session_mode_and_tls_do(bouncer: Bouncer) -> None:
    """A session is one's own there; the certificate is verified, as the DSN asks for it."""
    dsn = bouncer("session")
    with (
        ExternalServer(dsn) as server,
        Template(server, [MIGRATIONS], [SEED]) as template,
        template.clone() as database,
        database.connect() as connection,
    ):
        assert connection.execute("SELECT count(*) FROM tickets").fetchone() == (16,)
        assert connection.pgconn.ssl_in_use
    with pytest.raises(HarnessError, match="No connection") as raised:
        connect(make_conninfo(dsn, sslmode="disable"))
    assert "SSL required" in raised.value.tried


def test_a_limit_of_connections_is_known_beforehand(server: EmbeddedServer, sandbox: Sandbox, tmp_path: Path) -> None:
    """The role's own counts: what does not fit is refused before the first call, and what fits runs."""
    with connect(server.dsn) as connection:
        connection.execute("CREATE ROLE few LOGIN CREATEDB CONNECTION LIMIT 12")
    try:
        dsn = make_conninfo(server.dsn, user="few")
        words = ("harness", "run", "--pattern", "unknown", "--server", dsn, "--clients")
        refused, ran = sandbox.run(*words, "8"), sandbox.run(*words, "2")
        assert refused.returncode == ExitStatus.USAGE
        assert "8 clients need 13 connections" in refused.stderr
        assert "max_connections = 12 (or a limit of role" in refused.stderr
        assert ran.returncode == ExitStatus.HELD, ran.stdout + ran.stderr
        (tmp_path / "many.race.sql").write_text("-- scenario: many\n-- session: one x 14\nSELECT 1;\n")
        refused = sandbox.run("harness", "check", tmp_path / "many.race.sql", "--server", dsn, cwd=tmp_path)
        assert refused.returncode == ExitStatus.ENVIRONMENT
        assert "14 sessions need 15 connections" in refused.stderr
    finally:
        with connect(server.dsn) as connection:
            connection.execute("DROP ROLE few")


@pytest.mark.parametrize(("project", "lacking"), [("studio", []), ("parcel", ["20250110000000_event_trigger.sql"])])
def test_hosted_supabase_takes_a_project_by_its_postgres(
    server: EmbeddedServer, project: str, lacking: list[str]
) -> None:
    """Roles are there, and `postgres` is no superuser: event triggers and FOR ALL TABLES fail, all else gets in."""
    with SupabaseRoles(server):
        with connect(server.dsn) as connection:
            connection.execute("ALTER ROLE postgres LOGIN")
            # A booted server keeps the roles of the projects that were applied before, and here it is somebody else's.
            connection.execute("DROP ROLE IF EXISTS parcel_reporting")
        hosted = ExternalServer(make_conninfo(server.dsn, user="postgres"))
        folder = PROJECTS / project / "supabase" / "migrations"
        with hosted, Template(hosted, [folder], [], plan=ApplyPlan(keep_going=True)) as template:
            assert {failure.path.name for failure in template.applied.failures} == set(lacking)
            assert any("without what the platform adds" in note for note in template.applied.notes)
