"""What SIGKILL leaves is found again, and nothing of a living run is touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.environment import leftovers, remains
from harness.environment.embedded import EmbeddedServer
from harness.environment.servers import connect
from harness.errors import ExitStatus
from tests.conftest import Sandbox
from tests.integration.test_interruptions import until

LONG = ("--pattern", "burst", "--duration", "60", "--pause", "0.01", "--clients", "3")


def awaited(there: Callable[[], object], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not there():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def guardians(folder: Path) -> list[int]:
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(word.endswith("remains.py") for word in words) and any(str(folder) in word for word in words):
            found.append(int(command.parent.name))
    return found


def segments() -> set[str]:
    """System V segments: 0.1 left one for each postmaster that was killed."""
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}


@pytest.fixture
def killed(sandbox: Sandbox) -> Callable[..., None]:
    """Starts a run, kills it with SIGKILL when its server is there, and its guardian too if asked to."""

    def kill(*, guardian: bool) -> None:
        process = sandbox.start("harness", "run", "--server", "embedded", *LONG)
        until(lambda: list(sandbox.tmp.glob("harness-pg-*/.s.PGSQL.5432")), process)
        if guardian:
            for pid in guardians(sandbox.tmp):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate()

    return kill


def test_a_guardian_cleans_up_after_a_run_that_was_killed(sandbox: Sandbox, killed: Callable[..., None]) -> None:
    """Its server with processes, folder and shared memory, without anybody's doing."""
    killed(guardian=False)
    assert awaited(lambda: not sandbox.left_behind()), sandbox.left_behind()
    assert awaited(lambda: not guardians(sandbox.tmp))


def test_the_next_start_finds_what_a_dead_guardian_left(sandbox: Sandbox, killed: Callable[..., None]) -> None:
    """Run and guardian killed: the server goes on, until the next run, or `harness clean`, ends it."""
    killed(guardian=True)
    (folder,) = sandbox.tmp.glob("harness-pg-*")
    shown = sandbox.run("harness", "clean", "--dry-run")
    assert f"would remove  folder {folder}" in shown.stdout
    assert folder.exists()
    done = sandbox.run("harness", "run", "--server", "embedded", "--pattern", "unknown", "--clients", "2")
    assert done.returncode == ExitStatus.HELD, done.stderr
    assert sandbox.left_behind() == []
    assert sandbox.run("harness", "clean").stdout == "nothing is left\n"


def test_a_server_that_was_killed_leaves_no_shared_memory(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither System V's nor POSIX's."""
    monkeypatch.setenv("TMPDIR", str(sandbox.tmp))
    with EmbeddedServer() as server:
        shared = server._shared_memory
        assert str(shared) in segments()
        os.kill(server.pid, signal.SIGKILL)
    assert str(shared) not in segments()
    with EmbeddedServer() as server, connect(server.dsn) as connection:
        # What is in files of the data folder needs no segment.
        assert connection.execute("SHOW dynamic_shared_memory_type").fetchone() == ("mmap",)


def test_databases_of_a_killed_run_are_named_and_removed(server: EmbeddedServer, sandbox: Sandbox) -> None:
    """On somebody's server: the next run says so, `harness clean` lists and drops them, and a living run keeps its."""
    process = sandbox.start("harness", "run", "--server", server.dsn, *LONG)
    with connect(server.dsn) as connection:
        marked = "SELECT count(*) FROM pg_database WHERE starts_with(datname, %s)"
        mine = f"harness_{process.pid}_"
        until(lambda: (connection.execute(marked, [mine]).fetchone() or (0,))[0] >= 2, process)
        assert not [each for each in leftovers.on_server(connection) if mine in each.name]
        process.kill()
        process.communicate()
        found = [each for each in leftovers.on_server(connection) if mine in each.name]
        assert len(found) >= 2
    told = sandbox.run("harness", "run", "--server", server.dsn, "--pattern", "unknown", "--clients", "2")
    assert told.returncode == ExitStatus.HELD
    assert "left here by runs that were killed: see `harness clean --server`" in told.stderr
    shown = sandbox.run("harness", "clean", "--server", server.dsn, "--dry-run").stdout
    assert all(f"would remove  {each}" in shown for each in found)
    removed = sandbox.run("harness", "clean", "--server", server.dsn)
    assert all(f"removed  {each}" in removed.stdout for each in found), removed.stderr
    with connect(server.dsn) as connection:
        assert connection.execute(marked, [mine]).fetchone() == (0,)


CREATES = """
import sys
from psycopg import sql
from harness.environment import leftovers
from harness.environment.servers import connect
with connect(sys.argv[1]) as connection:
    command = sql.SQL("CREATE DATABASE harness_0_killed TEMPLATE harness_0_busy").format()
    leftovers.create_database(connection, command, "harness_0_killed")
"""


def test_a_database_whose_maker_is_killed_while_it_is_made_is_marked(server: EmbeddedServer, sandbox: Sandbox) -> None:
    """The server goes on with CREATE DATABASE, and nobody else could tell whose it is."""
    with connect(server.dsn) as connection:
        connection.execute("CREATE DATABASE harness_0_busy")
        try:
            with connect(f"{server.dsn}&dbname=harness_0_busy"):  # the copy waits until nobody is in there
                process = sandbox.start(sys.executable, "-c", CREATES, server.dsn)
                waits = (
                    "SELECT FROM pg_stat_activity WHERE query LIKE 'CREATE DATABASE harness_0_killed%%' AND state = %s"
                )
                until(lambda: connection.execute(waits, ["active"]).fetchone() is not None, process)
                process.kill()
                process.communicate()
            assert awaited(lambda: [e for e in leftovers.on_server(connection) if e.name == "harness_0_killed"])
        finally:
            connection.execute("DROP DATABASE IF EXISTS harness_0_killed WITH (FORCE)")
            connection.execute("DROP DATABASE harness_0_busy WITH (FORCE)")


def test_the_platforms_roles_of_a_killed_run_are_removed_once_nobody_uses_them(
    server: EmbeddedServer, sandbox: Sandbox
) -> None:
    """Not while a run goes on that may need them; and not one that somebody has given rights since."""
    with connect(server.dsn) as connection, connect(server.dsn) as run:
        for name in ("left_alone", "in_use"):
            connection.execute(f"CREATE ROLE {name}".encode())
            connection.execute(f"COMMENT ON ROLE {name} IS 'created by pg-concurrency-harness'".encode())
        connection.execute("CREATE SCHEMA theirs AUTHORIZATION in_use")
        try:
            run.execute("SELECT pg_advisory_lock_shared(hashtext('harness uses roles'))")
            assert "left_alone" not in sandbox.run("harness", "clean", "--server", server.dsn).stdout
            run.close()
            shown = sandbox.run("harness", "clean", "--server", server.dsn, "--dry-run").stdout
            assert "would remove  role left_alone, of a run that has ended\n" in shown
            cleaned = sandbox.run("harness", "clean", "--server", server.dsn).stdout
            assert ("left_alone" in cleaned, "in_use" in cleaned) == (True, False)
            left = connection.execute(
                "SELECT rolname FROM pg_roles WHERE rolname IN ('left_alone', 'in_use')"
            ).fetchall()
            assert left == [("in_use",)]
        finally:
            connection.execute("DROP SCHEMA theirs")
            connection.execute("DROP ROLE IF EXISTS left_alone, in_use")


@pytest.mark.parametrize(
    ("changed", "is_dead"),
    [
        ({}, False),
        ({"started": "1"}, True),
        ({"pid": 2**22 + 1}, True),
        ({"host": "elsewhere"}, False),
        ({"pid": "no number"}, False),
    ],
)
def test_a_process_is_dead_when_that_is_known(changed: dict[str, object], is_dead: bool) -> None:
    """Not one with the same number that started at another time, and never one on another machine."""
    assert remains.dead({**remains.owner(), **changed}) is is_dead


def test_a_folder_without_an_owner_is_left_alone(sandbox: Sandbox) -> None:
    """Nobody knows whose it is."""
    for name, content in {"a": None, "b": "no JSON", "c": json.dumps([1])}.items():
        folder = sandbox.tmp / f"harness-pg-{name}"
        folder.mkdir()
        if content is not None:
            (folder / remains.OWNER).write_text(content)
    assert list(remains.left_in(sandbox.tmp)) == []


def test_a_guardian_ends_a_process_of_a_dead_run_and_no_other() -> None:
    """PostgREST, for one; a process that has the number now, and started later, is somebody else's."""
    with subprocess.Popen(["sleep", "600"]) as child:
        guardian = remains.Guardian("process", str(child.pid))
        os.close(guardian._writer)  # what the end of this process would do
        assert awaited(lambda: child.poll() is not None)
        guardian._process.wait(10)
    with subprocess.Popen(["sleep", "600"]) as other:
        done = subprocess.run(
            [*guardian._process.args[:-2], str(other.pid), "1"],
            stdin=subprocess.DEVNULL,
            check=False,  # type: ignore[index]
        )
        assert done.returncode == 0
        assert other.poll() is None
        other.kill()
