"""`harness run` over HTTP as a user runs it: beside a server, and against an API that is there."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from harness.contracts.scan_ticket import SCAN_TICKET
from harness.environment.database import Database
from harness.environment.embedded import EmbeddedServer
from harness.environment.postgrest import SupabaseRoles
from harness.environment.servers import connect
from harness.errors import ExitStatus
from harness.targets.http import HttpTarget
from harness.targets.http_serving import HttpOptions, open_http
from tests.conftest import MIGRATIONS, SEED, Sandbox

BURST = ("--pattern", "burst", "--clients", "3", "--duration", "0.3")


@pytest.fixture
def served(server: EmbeddedServer, database: Database, binary: Path) -> Iterator[HttpTarget]:
    """An API that somebody else runs."""
    options = HttpOptions(postgrest=str(binary))
    with SupabaseRoles(server), closing(open_http(server, database, SCAN_TICKET, options)) as target:
        yield target


def left_on(server: EmbeddedServer) -> list[str]:
    """Roles and databases of runs that are over."""
    with connect(server.dsn) as connection:
        rows = connection.execute(
            "SELECT rolname FROM pg_roles WHERE rolname ~ '^(harness_api|anon|service_role)' UNION ALL"
            " SELECT datname FROM pg_database WHERE datname ~ '^harness_.*_[0-9]+$' AND NOT starts_with(datname, %s)",
            [f"harness_{os.getpid()}_"],  # of these tests themselves
        ).fetchall()
    return [str(row[0]) for row in rows]


def children(pid: int, program: str) -> list[int]:
    """Processes of a program that a process has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = status.read_text().partition("(")[2].rpartition(")")
            if name == program and int(rest.split()[1]) == pid:
                found.append(int(status.parent.name))
    return found


def test_a_pattern_is_repeated_over_http_and_compared(server: EmbeddedServer, sandbox: Sandbox, binary: Path) -> None:
    """--http runs each pattern through both doors, says what HTTP adds, and leaves nothing on the server."""
    done = sandbox.run("harness", "run", "--server", server.dsn, "--http", "--postgrest", binary, *BURST)
    assert done.returncode in (ExitStatus.HELD, ExitStatus.UNDECIDED), done.stdout + done.stderr
    for text in ("burst (sql)", "burst (http)", "HTTP adds", "with 95 % confidence"):
        assert text in done.stdout
    assert left_on(server) == []


def test_without_a_postgrest_the_ways_to_get_one_are_named(server: EmbeddedServer, sandbox: Sandbox) -> None:
    """--http where no PostgREST is to be had ends as an environment that failed."""
    words = ("--server", server.dsn, "--migrations", MIGRATIONS, "--seed", SEED, "--http", *BURST)
    done = sandbox.run("harness", "run", *words, cwd=sandbox.tmp)
    assert done.returncode == ExitStatus.ENVIRONMENT, done.stdout + done.stderr
    for way in ("make postgrest", "--postgrest", "--server container"):
        assert way in done.stderr
    assert left_on(server) == []


def test_ctrl_c_over_http_leaves_nothing_behind(server: EmbeddedServer, sandbox: Sandbox, binary: Path) -> None:
    """PostgREST ends with the run, and its login role is dropped."""
    words = ("--server", server.dsn, "--http", "--postgrest", binary, "--pattern", "burst", "--duration", "0.5")
    running = sandbox.start("harness", "run", *words)
    deadline = time.monotonic() + 60
    while not (started := children(running.pid, "postgrest")):
        assert running.poll() is None
        assert time.monotonic() < deadline
    os.kill(running.pid, signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode == ExitStatus.INTERRUPTED
    assert not [pid for pid in started if Path(f"/proc/{pid}/exe").exists()]
    assert left_on(server) == []


def staged(database: Database, folder: Path) -> tuple[Path, list[str]]:
    with database.connect() as connection:
        found = [str(row[0]) for row in connection.execute("SELECT harness.new_tickets(4)").fetchall()]
    file = folder / "tickets.json"
    entries = [{"id": ticket, "event_id": str(uuid.UUID(int=1)), "type": "GA"} for ticket in found[1:]]
    file.write_text(json.dumps({"tickets": entries, "raceTestTicket": {"id": found[0]}}))
    return file, found


def test_real_tickets_are_not_scanned_unasked(
    served: HttpTarget, database: Database, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Where nobody can be asked and --yes is not given, nothing is scanned and the exit status says wrong usage."""
    file, _ = staged(database, tmp_path)
    assert served.postgrest is not None
    token = served.postgrest.token().reveal()
    words = ("--http-url", served.url, "--tickets", file)
    done = sandbox.run("harness", "run", *words, SUPABASE_SERVICE_ROLE_KEY=token)
    assert done.returncode == ExitStatus.USAGE, done.stdout + done.stderr
    assert "--yes" in done.stderr
    with database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM scan_logs").fetchone() == (0,)


def test_staging_scans_real_tickets_and_keeps_the_token_to_itself(
    served: HttpTarget, database: Database, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Burst and race go through the API; what needs the database is named, not judged; no output holds the token."""
    file, tickets = staged(database, tmp_path)
    assert served.postgrest is not None
    token, record = served.postgrest.token().reveal(), tmp_path / "record.json"
    words = ("--http-url", served.url, "--tickets", file, "--yes", "--pause", "0", "--record", record)
    done = sandbox.run("harness", "run", *words, SUPABASE_SERVICE_ROLE_KEY=token)
    assert done.returncode == ExitStatus.HELD, done.stdout + done.stderr
    with database.connect() as connection:
        scanned = connection.execute("SELECT ticket_id FROM scan_logs WHERE scan_success").fetchall()
    assert {str(row[0]) for row in scanned} == set(tickets)
    assert json.loads(record.read_text())["truth"] == "held"
    assert "not seen, and not in the verdict: " in done.stdout
    assert token not in done.stdout + done.stderr + record.read_text()


def test_a_wrong_token_is_an_environment_that_failed(
    served: HttpTarget, database: Database, sandbox: Sandbox, tmp_path: Path
) -> None:
    """A token that has expired is said with its code, and nothing is scanned."""
    file, _ = staged(database, tmp_path)
    assert served.postgrest is not None
    token = served.postgrest.token(lifetime=-3600).reveal()
    words = ("--http-url", served.url, "--tickets", file, "--yes")
    done = sandbox.run("harness", "run", *words, SUPABASE_SERVICE_ROLE_KEY=token)
    assert done.returncode == ExitStatus.ENVIRONMENT, done.stdout + done.stderr
    assert "JWT expired" in done.stderr
    assert token not in done.stdout + done.stderr


def test_overhead_says_what_http_adds(server: EmbeddedServer, sandbox: Sandbox, binary: Path) -> None:
    """The comparison alone is a command of its own; its old name tells the new one."""
    words = ("--pairs", "5", "--seconds", "0.2", "--clients", "4", "--rounds", "24")
    done = sandbox.run("harness", "overhead", "--server", server.dsn, "--postgrest", binary, *words)
    assert done.returncode in (ExitStatus.HELD, ExitStatus.UNDECIDED), done.stdout + done.stderr
    assert "HTTP adds" in done.stdout
    done = sandbox.run("harness", "compare", "--server", server.dsn, "--postgrest", binary, "--pairs", "2")
    assert done.returncode == ExitStatus.USAGE
    assert "Invalid value for '--pairs': 2 is not in the range" in done.stderr
    assert "compare is now called overhead" in done.stderr


def test_overload_counts_every_call(server: EmbeddedServer, sandbox: Sandbox, binary: Path) -> None:
    """More clients than connections: what got through and what was turned away, with the pool's size."""
    words = ("--clients", "12", "--rounds", "12", "--db-pool", "3")
    done = sandbox.run("harness", "overload", "--server", server.dsn, "--postgrest", binary, *words)
    assert done.returncode in (ExitStatus.HELD, ExitStatus.UNDECIDED), done.stdout + done.stderr
    assert "12 clients on a pool of 3" in done.stdout
    done = sandbox.run("harness", "overload", "--server", server.dsn, "--postgrest", binary, "--clients", "5")
    assert done.returncode == ExitStatus.USAGE
    assert left_on(server) == []
