"""`harness explore` as a user runs it: what it prints for held and broken, and the command that repeats a finding."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from harness.environment.embedded import EmbeddedServer
from harness.errors import ExitStatus
from tests.conftest import MIGRATIONS, Sandbox

FUNCTIONS = Path(__file__).parent.parent / "integration" / "functions"


def test_a_correct_function_is_said_to_hold_in_every_order(server: EmbeddedServer, sandbox: Sandbox) -> None:
    """The shipped function: exit status 0, how many interleavings there are, and what they do not cover."""
    done = sandbox.run("harness", "explore", "--server", server.dsn)
    assert done.returncode == ExitStatus.HELD, done.stdout + done.stderr
    assert "all 660 interleavings of 2 concurrent calls at statement level hold (930 before reduction)" in done.stdout
    assert "not tried: explore (sql): more than 2 calls at once (but for " in done.stdout


def test_a_broken_function_is_shown_and_repeated(server: EmbeddedServer, sandbox: Sandbox) -> None:
    """The report prints the shortest schedule and a command; that command shows the same schedule and status."""
    record = sandbox.tmp / "record.json"
    migrations = ("--migrations", MIGRATIONS, "--migrations", FUNCTIONS / "broken" / "check_then_act.sql")
    words = ("--server", server.dsn, *migrations, "--record", record)
    # An option of load, which the command would not take.
    done = sandbox.run("harness", "explore", *words, HARNESS_TIMEOUT="5")
    assert done.returncode == ExitStatus.BROKEN, done.stdout + done.stderr
    assert "call A" in done.stdout
    assert "SELECT * INTO v_ticket FROM tickets" in done.stdout
    findings = {f["id"]: f for f in json.loads(record.read_text())["runs"][0]["findings"]}
    command = findings["at_most_one_accepted"]["replay"]
    assert command.endswith("--replay ABBBBAAA")
    assert command.rpartition(" ")[2] in done.stdout

    report = sandbox.run("harness", "report", record)
    assert (report.returncode, report.stdout) == (done.returncode, done.stdout), report.stderr

    again = sandbox.run(*shlex.split(command))

    assert again.returncode == ExitStatus.BROKEN, again.stdout + again.stderr
    assert "ABBBBAAA" in again.stdout


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--replay", "ABBA"), ExitStatus.USAGE, "the text ends"),
        (("--replay", "nonsense"), ExitStatus.USAGE, "is not a replay text"),
        (("--replay", "AABE"), ExitStatus.USAGE, "use the letters A to D"),
        (("--calls", "9"), ExitStatus.USAGE, "9"),
        (("--max-schedules", "2"), ExitStatus.UNDECIDED, "not exhausted"),
        (("--search", "random", "--max-schedules", "5"), ExitStatus.UNDECIDED, "not exhausted"),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_each_cause_has_its_exit_status(
    words: tuple[str, ...], status: ExitStatus, said: str, server: EmbeddedServer, sandbox: Sandbox
) -> None:
    """A text that does not fit is wrong usage; a search that was cut short is undecided."""
    done = sandbox.run("harness", "explore", "--server", server.dsn, *words)
    assert done.returncode == status, done.stdout + done.stderr
    assert said in " ".join((done.stdout + done.stderr).split())
