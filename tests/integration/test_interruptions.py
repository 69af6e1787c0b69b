"""Ctrl-C and SIGTERM in the middle: the record so far is written, marked interrupted, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from harness.environment.database import Database, Template
from harness.environment.embedded import EmbeddedServer
from harness.environment.servers import connect
from harness.errors import ExitStatus
from harness.signals import uninterrupted
from tests.conftest import ROOT, Sandbox

STATUS = {
    signal.SIGINT: ExitStatus.INTERRUPTED,
    signal.SIGTERM: ExitStatus.TERMINATED,
    signal.SIGHUP: ExitStatus.TERMINATED,
}


def until(there: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait for evidence of what the command is at."""
    deadline = time.monotonic() + 60
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.005)


def await_calls(dsn: Callable[[], str | None], process: subprocess.Popen[str], run: int = 1) -> None:
    """Wait until calls of the command's run with that number have let people in."""

    def made() -> bool:
        address = dsn()
        return address is not None and _let_in(address, run) >= 20

    until(made, process)


def _let_in(address: str, run: int) -> int:
    try:
        with psycopg.connect(address, autocommit=True, connect_timeout=2) as connection:
            query = "SELECT datname FROM pg_database WHERE datname ~ %s"
            found = connection.execute(query, [f"^harness_.*_{run}$"]).fetchone()
        if found is None:
            return 0
        with psycopg.connect(make_conninfo(address, dbname=found[0]), autocommit=True) as connection:
            row = connection.execute("SELECT count(*) FROM scan_logs").fetchone()
            return int(row[0]) if row else 0
    except psycopg.Error:
        return 0  # it is still booting


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    return process.communicate(timeout=30)


@pytest.mark.parametrize("number", STATUS)
def test_a_command_that_is_ended_keeps_its_record_and_leaves_nothing(
    number: signal.Signals, server: EmbeddedServer, sandbox: Sandbox, databases: Callable[[], set[str]]
) -> None:
    """On a server of somebody else's: its scratch databases are dropped, its databases are as before."""
    before, record = databases(), sandbox.tmp / "record.json"
    words = ("--pattern", "rescan", "--pattern", "burst", "--duration", "60", "--pause", "0.01", "--clients", "4")
    process = sandbox.start("harness", "run", "--server", server.dsn, "--record", record, *words)
    await_calls(lambda: server.dsn, process, run=2)
    process.send_signal(number)
    out, err = ended(process)
    assert process.returncode == STATUS[number], err
    assert "everything that was started has been removed" in err
    assert "Traceback" not in err
    assert "interrupted" in out
    value = json.loads(record.read_text())
    assert value["interrupted"] is True
    assert value["runs"][-1]["interrupted"] is True
    assert value["runs"][-1]["metrics"]["calls"] > 0
    assert value["truth"] == "undecided"
    assert databases() == before
    assert sandbox.left_behind() == []


def test_a_run_that_is_ended_while_it_is_judged_is_kept(
    server: EmbeddedServer, sandbox: Sandbox, databases: Callable[[], set[str]]
) -> None:
    """A query that takes for ever: Ctrl-C ends it, and what the calls alone prove is in the record."""
    before, record, forever = databases(), sandbox.tmp / "record.json", sandbox.tmp / "forever.sql"
    forever.write_text("SELECT pg_sleep(600) FROM harness.operations;")
    words = ("--pattern", "rescan", "--clients", "3", "--invariants", forever, "--record", record)
    process = sandbox.start("harness", "run", "--server", server.dsn, *words)
    with connect(server.dsn) as connection:
        asked = "SELECT true FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(600)%' AND state = 'active'"
        until(lambda: connection.execute(asked).fetchone(), process)
    process.send_signal(signal.SIGINT)
    _, err = ended(process)
    assert process.returncode == ExitStatus.INTERRUPTED, err
    [run] = json.loads(record.read_text())["runs"]
    assert (run["interrupted"], run["metrics"]["counts"]["already_scanned"]) == (True, 30)
    assert databases() == before


@pytest.mark.parametrize("pattern", ["race", "arrivals", "burst"])
def test_an_embedded_server_is_gone_after_ctrl_c(pattern: str, sandbox: Sandbox) -> None:
    """In the middle of any pattern: its processes and its directory are removed, even when Ctrl-C comes twice."""
    record = sandbox.tmp / "record.json"
    words = {
        "race": ("--rounds", "10000"),
        "arrivals": ("--duration", "60"),
        "burst": ("--duration", "60", "--pause", "0.01"),
    }[pattern]
    process = sandbox.start(
        "harness", "run", "--server", "embedded", "--clients", "4", "--pattern", pattern, "--record", record, *words
    )

    def dsn() -> str | None:
        found = list(sandbox.tmp.glob("harness-pg-*/.s.PGSQL.5432"))
        return f"host={found[0].parent} user=supabase_admin dbname=postgres" if found else None

    await_calls(dsn, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to the whole group
    time.sleep(0.05)  # somebody impatient
    os.killpg(process.pid, signal.SIGINT)
    out, err = ended(process)
    assert process.returncode == ExitStatus.INTERRUPTED, err
    assert "verdict: " in out
    # Calls that were given up in the middle are not the function's fault.
    value = json.loads(record.read_text())
    assert value["truth"] == "undecided", [f for f in value["runs"][-1]["findings"] if f["truth"] == "broken"]
    assert sandbox.left_behind() == []


@pytest.mark.parametrize("moment", range(4))
def test_an_interrupted_boot_leaves_nothing(moment: int, sandbox: Sandbox) -> None:
    """Before the first call, too: while the cluster is made, while the server starts, while migrations are applied."""
    process = sandbox.start("harness", "run", "--server", "embedded", "--pattern", "burst", "--duration", "60")
    evidence = ("harness-pg-*", "harness-pg-*/data-*/base", "harness-pg-*/log", "harness-pg-*/.s.PGSQL.5432")[moment]
    until(lambda: list(sandbox.tmp.glob(evidence)), process)
    process.send_signal(signal.SIGTERM)
    _, err = ended(process)
    assert process.returncode == ExitStatus.TERMINATED, err
    assert "Traceback" not in err
    assert sandbox.left_behind() == []


@pytest.mark.parametrize("number", STATUS)
def test_pytest_that_is_ended_keeps_its_record_and_leaves_nothing(
    number: signal.Signals, server: EmbeddedServer, sandbox: Sandbox, databases: Callable[[], set[str]]
) -> None:
    """The fixtures are torn down: databases dropped, the record so far written and marked interrupted."""
    before, record = databases(), sandbox.tmp / "record.json"
    (sandbox.tmp / "test_it.py").write_text(
        "def test_first(harness): assert harness.rescan(clients=3).verdict.held\n"
        "def test_it(harness): harness.burst(clients=4, duration=60, pause=0.01)\n"
    )
    process = sandbox.start(
        "pytest", "-p", "no:cacheprovider", sandbox.tmp, "--harness-server", server.dsn, "--harness-record", record,
        "--harness-migrations", ROOT / "sql/migrations", "--harness-seed", ROOT / "sql/seed", cwd=sandbox.tmp,
    )  # fmt: skip

    await_calls(lambda: server.dsn, process, run=2)
    process.send_signal(number)
    out, err = ended(process)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, out + err
    value = json.loads(record.read_text())
    assert value["interrupted"] is True
    assert [run["interrupted"] for run in value["runs"]][-1] is True
    assert databases() == before
    assert sandbox.left_behind() == []


def test_pytest_that_is_ended_between_loads_marks_its_record_too(server: EmbeddedServer, sandbox: Sandbox) -> None:
    """Ctrl-C while schedules are explored: the runs before it are all held, and the record still says interrupted."""
    record, begun = sandbox.tmp / "record.json", sandbox.tmp / "begun"
    (sandbox.tmp / "test_it.py").write_text(
        "import pathlib\n\ndef test_first(harness): assert harness.rescan(clients=3).verdict.held\n"
        f"def test_it(harness):\n    pathlib.Path({str(begun)!r}).touch()\n    harness.explore(calls=4)\n"
    )
    process = sandbox.start(
        "pytest", "-p", "no:cacheprovider", sandbox.tmp, "--harness-server", server.dsn, "--harness-record", record,
        "--harness-migrations", ROOT / "sql/migrations", "--harness-seed", ROOT / "sql/seed", cwd=sandbox.tmp,
    )  # fmt: skip
    until(begun.exists, process)
    process.send_signal(signal.SIGINT)
    out, err = ended(process)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, out + err
    value = json.loads(record.read_text())
    assert [run["kind"] for run in value["runs"]] == ["rescan"]
    assert value["interrupted"] is True


@pytest.fixture
def python_handles_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_handles_ctrl_c")
@pytest.mark.parametrize("fails", [False, True])
def test_ctrl_c_while_a_process_is_started_comes_right_after(fails: bool) -> None:
    """Else the child would run on, known to nobody; an error in its start, which may be handled, does not lose it."""
    went_on: list[str] = []

    def start() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            went_on.append("child")
            if fails:
                raise OSError("no such program")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert went_on == ["child"]


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_ctrl_c_while_the_servers_directory_is_made_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known to the server before anything else happens."""
    make = tempfile.mkdtemp

    def interrupted(prefix: str, **_: Path) -> str:
        made = make(prefix=prefix, dir=tmp_path)
        signal.raise_signal(signal.SIGINT)
        return made

    monkeypatch.setattr(tempfile, "mkdtemp", interrupted)
    with pytest.raises(KeyboardInterrupt), EmbeddedServer():
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_ctrl_c_while_a_database_is_dropped_ends_the_run(
    template: Template, monkeypatch: pytest.MonkeyPatch, databases: Callable[[], set[str]]
) -> None:
    """After the drop, which is done all the same; nothing that comes after it is begun."""
    before, drop = databases(), Database.drop

    def interrupted(self: Database) -> None:
        signal.raise_signal(signal.SIGINT)
        drop(self)

    monkeypatch.setattr(Database, "drop", interrupted)
    with pytest.raises(KeyboardInterrupt), template.checkout():
        pass
    monkeypatch.undo()
    assert databases() - before <= {template._made.result().name if template._made else ""}


def test_a_server_killed_under_the_command_is_the_environments_fault(sandbox: Sandbox) -> None:
    """Status 3, calls in doubt, and a record that says so; the directory of the dead server is removed."""
    record = sandbox.tmp / "record.json"
    process = sandbox.start(
        "harness", "run", "--server", "embedded", "--pattern", "burst", "--duration", "60", "--pause", "0.01",
        "--clients", "4", "--record", record,
    )  # fmt: skip

    def dsn() -> str | None:
        found = list(sandbox.tmp.glob("harness-pg-*/.s.PGSQL.5432"))
        return f"host={found[0].parent} user=supabase_admin dbname=postgres" if found else None

    await_calls(dsn, process)
    (pid_file,) = sandbox.tmp.glob("harness-pg-*/data-*/postmaster.pid")
    os.kill(int(Path(pid_file).read_text().splitlines()[0]), signal.SIGKILL)
    out, err = ended(process)
    assert process.returncode == ExitStatus.ENVIRONMENT, out + err
    assert "the server was lost during the run" in out
    (made,) = json.loads(record.read_text())["runs"]
    assert made["server_lost"] is True
    assert made["metrics"]["counts"]["in_doubt"] == 4
    assert sandbox.left_behind() == []


def test_a_command_that_is_ended_between_two_databases_drops_both(
    server: EmbeddedServer, sandbox: Sandbox, databases: Callable[[], set[str]]
) -> None:
    """Whenever SIGTERM comes while scratch databases are made and dropped, none is left."""
    before = databases()
    for wanted in (1, 2, 1):
        process = sandbox.start(
            "harness", "run", "--server", server.dsn, "--pattern", "rescan", "--pattern", "unknown", "--clients", "2"
        )
        while process.poll() is None and len(databases() - before) < wanted:
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        ended(process)
        assert databases() == before
        with connect(server.dsn) as connection:
            assert (
                connection.execute("SELECT 1 FROM pg_stat_activity WHERE datname LIKE 'harness\\_%'").fetchone() is None
            )
