"""One function for each attack. Each asserts what must be true afterwards, and returns what it saw in a word or two."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from harness.environment.postgrest import FETCHED
from harness.environment.servers import Server, connect
from tests.conftest import ROOT, Sandbox

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("run", "--pattern", "race", "--rounds", "10000", "--clients", "4"),
    ("run", "--pattern", "burst", "--duration", "60", "--pause", "0.005", "--clients", "4"),
    ("run", "--pattern", "arrivals", "--duration", "60", "--clients", "4"),
    ("run", "--pattern", "burst", "--duration", "60", "--pause", "0.005", "--clients", "6", "--pool-size", "2"),
    ("run", "--pattern", "rescan", "--pattern", "unknown", "--pattern", "race", "--rounds", "10000", "--clients", "3"),
    ("explore", "--calls", "3"),
    ("check", "harness/scenarios/examples"),
    ("explore", "--calls", "3", "--jobs", "2"),
    ("check", "--matrix", "harness/scenarios/examples"),
    ("apply",),
)
"""Longer than any attack waits, but for the last."""

HTTP: tuple[tuple[str, ...], ...] = (
    ("overhead", "--pairs", "50", "--seconds", "0.3"),
    ("overload", "--rounds", "10000", "--clients", "20"),
)
"""Those that need a PostgREST."""

PYTEST = ("pytest",)

MENDED = [ROOT / "harness/scenarios/examples" / f"{each}.race.sql" for each in ("transfer", "stock", "job_queue")]
"""Scenarios that hold."""


@dataclass
class Chaos:
    """Where the attacks are made, and what they draw their chances from."""

    sandbox: Sandbox
    server: Server
    """Somebody's server, for attacks on runs with a DSN."""
    chance: random.Random
    patience: float = 4.0
    """Seconds within which the moment of an attack is drawn."""

    def signal(self) -> str:
        """A signal at a random moment of a random command, on either kind of server, perhaps twice."""
        number, words = self.chance.choice(SIGNALS), self.chance.choice((*self._commands(), PYTEST))
        server = self.chance.choice(("embedded", self.server.dsn))
        wait, again = self.chance.uniform(0.0, self.patience), self.chance.choice((None, 0.003, 0.05, 0.5))
        before, record = self.theirs(), self._record()
        if words == PYTEST:
            process = self._pytest(server, record)
        else:
            asked = () if words[0] == "apply" else ("--record", record)
            process = self.sandbox.start("harness", *words, "--server", server, *asked)
            self._handles_signals(process)
        time.sleep(wait)  # the moment itself is what is drawn
        self._signal(process, number)
        if again is not None:
            time.sleep(again)
            self._signal(process, number)
        out, err = process.communicate(timeout=60)
        what = f"{signal.Signals(number).name} to {words} after {wait:.2f} s, {again}: {out[-800:]}{err[-1500:]}"
        wanted = pytest.ExitCode.INTERRUPTED if words == PYTEST else STATUS[number]
        # A signal that comes while the interpreter ends, after all is done, ends it as any other program.
        finished = words[0] == "apply" and process.returncode in (0, -number)
        assert finished or process.returncode == wanted, f"{process.returncode}: {what}"
        assert "Traceback" not in err, what
        assert words != PYTEST or " failed" not in out, what
        if record.exists():
            assert json.loads(record.read_text())["truth"] == "undecided", what
        self.nothing_left(what)
        assert self.theirs() <= before, what
        return "finished" if finished else "ended"

    def sigkill(self) -> str:
        """SIGKILL at a random moment; what it leaves is gone after the guardian, or after `harness clean`."""
        theirs = self.chance.choice((True, False))
        before, words = self.theirs(), self.chance.choice(self._commands())
        segments = _segments()
        process = self.sandbox.start("harness", *words, "--server", self.server.dsn if theirs else "embedded")
        time.sleep(self.chance.uniform(0.4, self.patience))
        shared = self._shared_memory()
        process.kill()
        process.communicate(timeout=60)
        if theirs:
            # The server may still be at CREATE DATABASE for a client that is dead.
            deadline = time.monotonic() + 20
            while True:
                done = self.sandbox.run("harness", "clean", "--server", self.server.dsn)
                assert done.returncode == 0, done.stderr
                if (left := self.theirs()) <= before or time.monotonic() > deadline:
                    break
            assert left <= before, (words, left - before)
        self.nothing_left(f"SIGKILL to {words}")
        assert not (shared - segments) & _segments(), words
        return "databases" if theirs else "a server"

    def kill_backends(self, number: int = 10) -> str:
        """Backends of a run's clients are terminated: each call that it hits is lost, and the verdict is not broken."""
        record = self._record()
        pattern = self.chance.choice(("race", "burst"))
        words = ("--rounds", "80000", "--limit", "3") if pattern == "race" else ("--duration", "3", "--pause", "0.01")
        process = self.sandbox.start(
            "harness", "run", "--pattern", pattern, *words, "--clients", "12", "--server", self.server.dsn,
            "--record", record,
        )  # fmt: skip
        killed = 0
        query = (
            "SELECT pid FROM pg_stat_activity WHERE starts_with(datname, %s) AND query LIKE '%%scan_ticket_atomic%%' "
            "AND query NOT LIKE '%%new_tickets%%'"
        )
        with connect(self.server.dsn) as connection:
            while killed < number and process.poll() is None:
                found = connection.execute(query, [f"harness_{process.pid}_"]).fetchall()
                if len(found) > 3:
                    pid = self.chance.choice(found)[0]
                    killed += bool((connection.execute("SELECT pg_terminate_backend(%s)", [pid]).fetchone() or (0,))[0])
                time.sleep(0.1)
        out, err = process.communicate(timeout=90)
        assert process.returncode in (0, 3, 4), f"{process.returncode} after {killed} of {pattern}: {out}{err}"
        assert "Traceback" not in err, err
        if record.exists():
            value = json.loads(record.read_text())
            assert value["truth"] != "broken", out
            assert value["exit_status"] == process.returncode, (value["exit_status"], process.returncode)
        return f"{killed} killed"

    def kill_sessions(self) -> str:
        """Backends of a check or an exploration are terminated: what they left is nobody's result."""
        record, before = self._record(), self.theirs()
        words = self.chance.choice((("check", *map(str, MENDED)), ("explore", "--calls", "3", "--seconds", "5")))
        process = self.sandbox.start("harness", *words, "--server", self.server.dsn, "--record", record)
        killed = 0
        query = "SELECT pid FROM pg_stat_activity WHERE datname ~ %s AND pid <> pg_backend_pid()"
        with connect(self.server.dsn) as connection:
            while process.poll() is None:
                time.sleep(self.chance.uniform(0.2, 1.5))
                if found := connection.execute(query, [f"^harness_{process.pid}_.*_([2-9]|..)$"]).fetchall():
                    killed += 1
                    connection.execute("SELECT pg_terminate_backend(%s)", [self.chance.choice(found)[0]])
        out, err = process.communicate(timeout=90)
        assert process.returncode in (0, 3, 4), f"{process.returncode} after {killed} of {words[0]}: {out}{err}"
        assert "Traceback" not in err, err
        if record.exists():
            value = json.loads(record.read_text())
            assert value["exit_status"] == process.returncode, (value["exit_status"], process.returncode)
            findings = [finding for run in value["runs"] for finding in run["findings"]]
            assert not [finding for finding in findings if finding["truth"] == "broken"], out
        assert self.theirs() <= before, words
        return f"{words[0]}, {process.returncode}"

    def kill_server(self) -> str:
        """The postmaster is killed: exit status 3, the record says undecided, no memory is left."""
        return self._attack_server(lambda pids: os.kill(pids[0], signal.SIGKILL))

    def freeze_server(self, words: tuple[str, ...] | None = None) -> str:
        """Every process of the server is stopped: the run ends within seconds of its --timeout, with status 3."""

        def freeze(pids: list[int]) -> None:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)

        return self._attack_server(freeze, words, within=25.0)

    def _attack_server(
        self, attack: Callable[[list[int]], None], words: tuple[str, ...] | None = None, within: float = 60.0
    ) -> str:
        words = words or self.chance.choice(self._commands()[:-1])
        timeout = ("--timeout", "2") if words[0] in ("run", "check") else ()
        record = self._record()
        process = self.sandbox.start("harness", *words, *timeout, "--server", "embedded", "--record", record)
        postmaster = self._started(process)
        time.sleep(self.chance.uniform(0.2, self.patience / 2))
        shared = self._shared_memory()
        attack(self._family(postmaster))
        return self._lost(process, record, words, within, shared)

    def _lost(
        self, process: subprocess.Popen[str], record: Path, words: tuple[str, ...], within: float, shared: set[str]
    ) -> str:
        """What the run needs is gone: status 3, and text, record and status agree; nothing is left."""
        began = time.monotonic()
        out, err = process.communicate(timeout=90)
        took = time.monotonic() - began
        what = f"{words}, {took:.1f} s: {out[-1500:]}{err[-1500:]}"
        assert process.returncode == 3, f"{process.returncode}: {what}"
        assert took < within, what
        assert "Traceback" not in err, what
        if record.exists():
            value = json.loads(record.read_text())
            assert (value["truth"], value["exit_status"]) == ("undecided", 3), what
            assert "verdict: undecided - " in out, what
            assert "; until then " in out, what
        self.nothing_left(what)
        assert not shared & _segments(), what
        return f"{words[0]} {took:.0f} s"

    def kill_postgrest(self) -> str:
        """PostgREST is killed under a run: exit status 3, nobody is blamed, its login role is gone."""
        words, before, record = self.chance.choice(HTTP), self.theirs(), self._record()
        process = self.sandbox.start("harness", *words, "--server", self.server.dsn, "--record", record)
        pid = self._await(process, lambda: self._child_of(process.pid, "postgrest"))
        time.sleep(self.chance.uniform(0.2, self.patience))
        os.kill(pid, signal.SIGKILL)
        said = self._lost(process, record, words, 60.0, set())
        assert self.theirs() <= before, words
        return said

    def kill_container(self) -> str:
        """The container is killed or paused: exit status 3, and it is removed."""
        words, record = self.chance.choice(COMMANDS[:5]), self._record()
        how, before = self.chance.choice(("kill", "pause")), _containers()
        image = ("--postgres-image", os.environ.get("HARNESS_POSTGRES_IMAGE", "postgres:17"))
        process = self.sandbox.start(
            "harness", *words, "--timeout", "2", "--server", "container", *image, "--record", record
        )
        assert process.stderr is not None
        told = process.stderr.readline()
        assert "container" in told, told + process.communicate()[1]
        time.sleep(self.chance.uniform(0.5, self.patience))
        mine = [each for each in _containers() - before if f'"pid": {process.pid},' in _owner(each)]
        subprocess.run(["docker", how, *mine], check=True, stdout=subprocess.DEVNULL)
        said = self._lost(process, record, words, 60.0, set())
        assert not _containers() & set(mine), said
        return f"{how}: {said}"

    def fill_disk(self) -> str:
        """The disk of the temporary folder fills up: exit status 3 in a sentence, and nothing is left there."""
        size, folder = self.chance.choice((10, 30, 60, 90, 120)), self.sandbox.tmp / "small"
        folder.mkdir(exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", folder]
        if subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode:
            return "skipped: no rights to mount"
        try:
            folder.chmod(0o777)
            words = ("run", "--pattern", "burst", "--duration", "20", "--clients", "4", "--server", "embedded")
            done = self.sandbox.run("harness", *words, TMPDIR=str(folder))
            assert done.returncode == 3, f"{size} MB: {done.returncode} {done.stdout[-800:]}{done.stderr}"
            assert "Traceback" not in done.stderr, done.stderr
            assert "next: " in done.stderr or "the server was lost" in done.stdout, done.stdout + done.stderr
            self.nothing_left(f"{size} MB")
            assert list(folder.iterdir()) == []
        finally:
            subprocess.run(["umount", "-l", folder], check=True)
        return f"{size} MB"

    def outputs(self) -> str:
        """Standard output is full or closed, a record goes to a device: a sentence, and nothing is left."""
        words = ["harness", "run", "--pattern", "unknown", "--clients", "2", "--server", f"'{self.server.dsn}'"]
        redirect, status = self.chance.choice(
            ((">/dev/full", 3), (">&-", 0), (">&- 2>&-", 0), ("--record /dev/full", 3), ("--record /dev/null", 0))
        )
        done = self.sandbox.run("sh", "-c", " ".join([*words, redirect]))
        assert done.returncode == status, f"{redirect}: {done.returncode} {done.stderr}"
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
        self.nothing_left(redirect)
        return redirect

    def theirs(self) -> set[str]:
        """Databases and roles of somebody's server."""
        with connect(self.server.dsn) as connection:
            query = "SELECT 'database ' || datname FROM pg_database UNION SELECT 'role ' || rolname FROM pg_roles"
            return {str(row[0]) for row in connection.execute(query).fetchall()}

    def nothing_left(self, what: str) -> None:
        """Neither folder nor process, once a guardian has had its time."""
        deadline = time.monotonic() + 20
        while left := self.sandbox.left_behind():
            assert time.monotonic() < deadline, f"{left} after {what}"
            time.sleep(0.05)

    def _handles_signals(self, process: subprocess.Popen[str]) -> None:
        """Wait until the command's own code runs: before that the interpreter ends as any would, or loses a SIGINT."""
        term = 1 << (signal.SIGTERM - 1)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            status = Path(f"/proc/{process.pid}/status").read_text()
            if int(status.partition("SigCgt:")[2].split()[0], 16) & term:
                return
            time.sleep(0.005)

    def _signal(self, process: subprocess.Popen[str], number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)

    def _commands(self) -> tuple[tuple[str, ...], ...]:
        """The last of them ends by itself."""
        return (*(HTTP if FETCHED.exists() else ()), *COMMANDS)

    def _record(self) -> Path:
        record = self.sandbox.tmp / "record.json"
        record.unlink(missing_ok=True)
        return record

    def _pytest(self, server: str, record: Path) -> subprocess.Popen[str]:
        """A session whose tests have a server each, and time until something is asked of it."""
        folder = self.sandbox.tmp / "project"
        folder.mkdir(exist_ok=True)
        begun = folder / "begun"
        begun.unlink(missing_ok=True)
        (folder / "test_it.py").write_text(
            f"import pathlib\n\npathlib.Path({str(begun)!r}).touch()\n\n"
            "def test_race(harness): harness.race(clients=4, rounds=10000)\n"
            "def test_burst(harness): harness.burst(clients=4, duration=60, pause=0.005)\n"
        )
        process = self.sandbox.start(
            "pytest", "-p", "no:cacheprovider", folder, "--harness-server", server, "--harness-record", record,
            "--harness-migrations", ROOT / "sql/migrations", "--harness-seed", ROOT / "sql/seed", cwd=folder,
        )  # fmt: skip
        self._await(process, begun.exists)  # before that it is pytest alone
        return process

    def _await(self, process: subprocess.Popen[str], there: Callable[[], T]) -> T:
        deadline = time.monotonic() + 60
        while not (found := there()):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "it never came to that"
            time.sleep(0.02)
        return found

    def _child_of(self, parent: int, program: str) -> int:
        for child in _children(parent):
            with suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text().strip() == program:
                    return child
        return 0

    def _shared_memory(self) -> set[str]:
        """The System V segments of the run's server."""
        found = set()
        for path in self.sandbox.tmp.glob("harness-pg-*/data-*/postmaster.pid"):
            with suppress(OSError, IndexError):
                found.add(path.read_text().splitlines()[6].split()[1])
        return found

    def _started(self, process: subprocess.Popen[str]) -> int:
        def postmaster() -> int:
            for path in self.sandbox.tmp.glob("harness-pg-*/data-*/postmaster.pid"):
                lines = path.read_text().splitlines()
                if len(lines) > 7 and lines[7].strip() == "ready" and self._calls(path.parent.parent):
                    return int(lines[0])
            return 0

        return self._await(process, postmaster)

    def _calls(self, folder: Path) -> bool:
        """Whether the run's template is there: what comes before that is a boot, which fails as one."""
        address = make_conninfo(host=str(folder), user="supabase_admin", dbname="postgres")
        try:
            with psycopg.connect(address, connect_timeout=2) as connection:
                query = "SELECT FROM pg_database WHERE datname ~ '^harness_.*_1$'"
                return connection.execute(query).fetchone() is not None
        except psycopg.Error:
            return False

    def _family(self, postmaster: int) -> list[int]:
        return [postmaster, *_children(postmaster)]


def _children(process: int) -> list[int]:
    with suppress(OSError):
        return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def _containers() -> set[str]:
    words = ["docker", "ps", "-aq", "--no-trunc", "--filter", "label=pg-concurrency-harness.owner"]
    return set(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.split())


def _owner(container: str) -> str:
    words = ["docker", "inspect", "-f", '{{index .Config.Labels "pg-concurrency-harness.owner"}}', container]
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False).stdout


def _segments() -> set[str]:
    try:
        return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}
    except OSError:
        return set()
