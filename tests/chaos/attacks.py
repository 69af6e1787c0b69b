"""One function for each attack. Each asserts what must be true afterwards, and returns what it saw in a word or two."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from harness.environment.servers import Server, connect
from tests.conftest import Sandbox

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("run", "--pattern", "race", "--rounds", "10000", "--clients", "4"),
    ("run", "--pattern", "burst", "--duration", "60", "--pause", "0.005", "--clients", "4"),
    ("run", "--pattern", "arrivals", "--duration", "60", "--clients", "4"),
    ("run", "--pattern", "burst", "--duration", "60", "--pause", "0.005", "--clients", "6", "--pool-size", "2"),
    ("run", "--pattern", "rescan", "--pattern", "unknown", "--pattern", "race", "--rounds", "10000", "--clients", "3"),
    ("explore", "--calls", "3"),
    ("apply",),
)
"""Longer than any attack waits, but for the last."""


@dataclass
class Chaos:
    """Where the attacks are made, and what they draw their chances from."""

    sandbox: Sandbox
    server: Server
    """Somebody's server, for attacks on runs with a DSN."""
    chance: random.Random
    seen: list[str] = field(default_factory=list)

    def signal(self) -> str:
        """A signal at a random moment of a random command, on either kind of server, perhaps twice."""
        number, words = self.chance.choice(SIGNALS), self.chance.choice(COMMANDS)
        server = self.chance.choice(("embedded", self.server.dsn))
        wait, again = self.chance.uniform(0.0, 4.0), self.chance.choice((None, 0.003, 0.05, 0.5))
        before, record = self.databases(), self.sandbox.tmp / "record.json"
        record.unlink(missing_ok=True)
        asked = () if words[0] == "apply" else ("--record", record)
        process = self.sandbox.start("harness", *words, "--server", server, *asked)
        self._handles_signals(process)
        time.sleep(wait)  # the moment itself is what is drawn
        os.killpg(process.pid, number)
        if again is not None:
            time.sleep(again)
            os.killpg(process.pid, number)
        out, err = process.communicate(timeout=60)
        what = f"{signal.Signals(number).name} to {words} after {wait:.2f} s, {again}: {out[-800:]}{err[-1500:]}"
        finished = words[0] == "apply" and process.returncode == 0
        assert finished or process.returncode == STATUS[number], f"{process.returncode}: {what}"
        assert "Traceback" not in err, what
        if record.exists():
            assert json.loads(record.read_text())["truth"] == "undecided", what
        self.nothing_left(what)
        assert self.databases() <= before, what
        return "finished" if finished else "ended"

    def sigkill(self) -> str:
        """SIGKILL at a random moment; what it leaves is gone after the guardian, or after `harness clean`."""
        theirs = self.chance.choice((True, False))
        before, words = self.databases(), self.chance.choice(COMMANDS[:-1])
        process = self.sandbox.start("harness", *words, "--server", self.server.dsn if theirs else "embedded")
        time.sleep(self.chance.uniform(0.4, 4.0))
        process.kill()
        process.communicate(timeout=60)
        if theirs:
            # Nobody of its sessions is needed any more; a living run's databases stay.
            done = self.sandbox.run("harness", "clean", "--server", self.server.dsn)
            assert done.returncode == 0, done.stderr
            assert self.databases() <= before, (words, self.databases() - before)
        self.nothing_left(f"SIGKILL to {words}")
        return "databases" if theirs else "a server"

    def kill_backends(self, number: int = 10) -> str:
        """Backends of a run's clients are terminated: each call that it hits is lost, and the verdict is not broken."""
        record = self.sandbox.tmp / "record.json"
        record.unlink(missing_ok=True)
        pattern = self.chance.choice(("race", "burst"))
        words = ("--rounds", "3000") if pattern == "race" else ("--duration", "4", "--pause", "0.01")
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

    def kill_server(self) -> str:
        """The postmaster is killed: exit status 3, the record says undecided, no memory is left."""
        return self._attack_server(lambda pids: os.kill(pids[0], signal.SIGKILL))

    def freeze_server(self) -> str:
        """Every process of the server is stopped: the run ends within seconds of its --timeout, with status 3."""

        def freeze(pids: list[int]) -> None:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)

        return self._attack_server(freeze, within=25.0)

    def _attack_server(self, attack: Callable[[list[int]], None], within: float = 60.0) -> str:
        words = self.chance.choice(COMMANDS[:-1])
        timeout = ("--timeout", "2") if words[0] == "run" else ()
        record = self.sandbox.tmp / "record.json"
        record.unlink(missing_ok=True)
        process = self.sandbox.start("harness", *words, *timeout, "--server", "embedded", "--record", record)
        pids = self._started(process)
        time.sleep(self.chance.uniform(0.2, 2.5))
        segments = _segments()
        attack(self._family(pids))
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
        self.nothing_left(what)
        assert len(_segments()) < len(segments) or not segments, what
        return f"{words[0]} {took:.0f} s"

    def outputs(self) -> str:
        """Standard output is full or closed, a record goes to a device: a sentence, and nothing is left."""
        words = ["harness", "run", "--pattern", "unknown", "--clients", "2", "--server", "embedded"]
        redirect, status = self.chance.choice(
            ((">/dev/full", 3), (">&-", 0), (">&- 2>&-", 0), ("--record /dev/full", 3), ("--record /dev/null", 0))
        )
        done = self.sandbox.run("sh", "-c", " ".join([*words, redirect]))
        assert done.returncode == status, f"{redirect}: {done.returncode} {done.stderr}"
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
        self.nothing_left(redirect)
        return redirect

    def databases(self) -> set[str]:
        with connect(self.server.dsn) as connection:
            return {str(row[0]) for row in connection.execute("SELECT datname FROM pg_database").fetchall()}

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

    def _started(self, process: subprocess.Popen[str]) -> int:
        deadline = time.monotonic() + 60
        while True:
            for path in self.sandbox.tmp.glob("harness-pg-*/data-*/postmaster.pid"):
                lines = path.read_text().splitlines()
                if len(lines) > 7 and lines[7].strip() == "ready" and self._calls(path.parent.parent):
                    return int(lines[0])
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

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
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        return [postmaster, *map(int, children)]


def _segments() -> set[str]:
    try:
        return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}
    except OSError:
        return set()
