"""`harness run` as a user runs it: exit statuses, the report, the record, the command that repeats a finding."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pty
import re
import shlex
import struct
import subprocess
import termios
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from harness.environment.embedded import EmbeddedServer
from harness.errors import ExitStatus
from harness.load.race import EVIDENCE
from tests.conftest import MIGRATIONS, ROOT, SEED, Sandbox

BROKEN = Path(__file__).parent.parent / "integration" / "scan_ticket" / "check_then_act.sql"
HELD = ("--pattern", "rescan", "--clients", "3")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (HELD, ExitStatus.HELD),
        (("--migrations", MIGRATIONS, "--migrations", BROKEN, "--pattern", "race"), ExitStatus.BROKEN),
        (("--clients", "0"), ExitStatus.USAGE),
        (("--migrations", "nowhere"), ExitStatus.ENVIRONMENT),
        # Through one connection no two calls ever overlap.
        (("--pattern", "race", "--clients", "3", "--rounds", "3", "--pool-size", "1"), ExitStatus.UNDECIDED),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_each_cause_has_its_exit_status(
    words: tuple[str | Path, ...], status: ExitStatus, server: EmbeddedServer, sandbox: Sandbox
) -> None:
    """0 every claim held, 1 one is broken, 2 wrong usage, 3 the environment failed, 4 undecided."""
    done = sandbox.run("harness", "run", "--server", server.dsn, *words)
    assert done.returncode == status, done.stdout + done.stderr


@pytest.fixture(scope="module")
def broken(server: EmbeddedServer) -> Any:
    """Report and record of a run that finds a bug, made once."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.json"
        done = Sandbox(Path(folder)).run(
            "harness", "run", "--server", server.dsn, "--migrations", MIGRATIONS, "--migrations", BROKEN,
            "--pattern", "race", "--clients", "5", "--rounds", "48", "--record", record,
        )  # fmt: skip
        assert done.returncode == ExitStatus.BROKEN, done.stderr
        return done.stdout, json.loads(record.read_text())


def test_the_record_holds_what_the_verdict_rests_on(broken: Any) -> None:
    """Environment, sha256 of every file, plan, metrics, findings with evidence; and how it was made."""
    _, record = broken
    assert record["format"] == 2
    assert record["truth"] == "broken"
    assert record["environment"]["kind"] == "external"
    assert record["environment"]["settings"]["fsync"] == "on"
    assert record["command"].startswith("harness run --server ")
    files = [*sorted(MIGRATIONS.glob("*.sql")), BROKEN]
    assert [f["sha256"] for f in record["migrations"]] == [hashlib.sha256(f.read_bytes()).hexdigest() for f in files]
    assert [Path(f["path"]).name for f in record["seeds"]] == sorted(p.name for p in SEED.glob("*.sql"))
    (run,) = record["runs"]
    assert (run["kind"], run["target"], run["plan"]["clients"], run["plan"]["rounds"]) == ("race", "sql", 5, 48)
    assert run["metrics"]["trends"]["accepted"]["count"] > 0
    assert run["metrics"]["counts"]["successful_scans"] > 0
    assert run["overlap"]["held_rounds"] == 16
    (finding,) = [f for f in run["findings"] if f["id"] == "at_most_one_accepted"]
    assert finding["truth"] == "broken"
    operations = finding["evidence"][0]["operations"]
    assert len({o["key"] for o in operations}) == 1
    assert len(operations) >= 2
    assert all(o["outcome"] == "accepted" for o in operations)


def test_v_shows_the_sections_of_the_original_summary(broken: Any, sandbox: Sandbox) -> None:
    """Configuration, results, response times, race handling, thresholds, claims, and the verdict as the last line."""
    (sandbox.tmp / "record.json").write_text(json.dumps(broken[1]))
    done = sandbox.run("harness", "report", "-v", sandbox.tmp / "record.json")
    assert done.returncode == ExitStatus.BROKEN, done.stderr
    report = done.stdout
    for section in ("configuration", "results", "response times (ms)", "race handling", "thresholds", "claims"):
        assert section in report
    for figure in ("avg", "p95", "p99", "max", "scan_duration: p(95)<200", "4 of 5 refused", "fsync=on"):
        assert figure in report
    assert report.strip().splitlines()[-1].startswith("verdict: broken")


def test_a_broken_run_leads_with_the_finding(broken: Any) -> None:
    """Claim, the first calls, where it is defined, the remedy, and the command that repeats it, before all else."""
    report, _ = broken
    assert report.startswith("✗ broken: At most one call per ticket is accepted.\n  at_most_one_accepted, race (sql): ")
    proof = report[: report.index("\n\n")]
    parts = ("callers were let in on one ticket\n    #", f"where: {BROKEN}:", "remedy: Take the row lock before")
    places = [proof.index(part) for part in (*parts, "repeat: harness run --pattern race")]
    assert places == sorted(places)
    assert report.splitlines()[-1].startswith("verdict: broken - ")


@pytest.mark.parametrize("word", ["-q", "--quiet"])
def test_q_prints_the_verdict_alone(word: str, broken: Any, sandbox: Sandbox) -> None:
    """One line, and the same exit status."""
    (sandbox.tmp / "record.json").write_text(json.dumps(broken[1]))
    done = sandbox.run("harness", "report", word, sandbox.tmp / "record.json")
    assert done.returncode == ExitStatus.BROKEN
    assert done.stdout == broken[0].splitlines()[-1] + "\n"
    assert sandbox.run("harness", "report", word, "-v", sandbox.tmp / "record.json").returncode == ExitStatus.USAGE


def test_a_report_from_the_file_equals_what_the_run_printed(broken: Any, sandbox: Sandbox) -> None:
    """`harness report` draws the page from the record alone, and ends with the run's exit status."""
    printed, record = broken
    (sandbox.tmp / "record.json").write_text(json.dumps(record))
    again = sandbox.run("harness", "report", sandbox.tmp / "record.json")
    assert (again.returncode, again.stdout) == (ExitStatus.BROKEN, printed), again.stderr


def test_a_record_that_is_none_has_no_report(sandbox: Sandbox) -> None:
    """What is wrong with it, and how to make one that can be read."""
    (sandbox.tmp / "old.json").write_text('{"schema_version": 1}')
    done = sandbox.run("harness", "report", sandbox.tmp / "old.json")
    assert done.returncode == ExitStatus.USAGE
    assert "is a record of format 1, and this version of the harness reads format 2" in done.stderr
    assert "next:" in done.stderr


def test_a_record_is_not_lost_by_its_own_report(broken: Any, sandbox: Sandbox) -> None:
    """A page written over the record, also by another name, would be the end of it."""
    record = sandbox.tmp / "record.json"
    record.write_text(json.dumps(broken[1]))
    (sandbox.tmp / "page.html").symlink_to(record)
    done = sandbox.run("harness", "report", record, "--html", sandbox.tmp / "page.html")
    assert done.returncode == ExitStatus.USAGE
    assert "--html would overwrite the record" in done.stderr
    assert json.loads(record.read_text()) == broken[1]


def test_a_claim_says_where_the_function_is_defined(broken: Any) -> None:
    """The file that is applied last and defines it, and the line; for the claims that hold, too."""
    report, record = broken
    for finding in record["runs"][0]["findings"]:
        place = {"file": str(BROKEN), "line": 1, "function": "scan_ticket_atomic", "step": None}
        assert finding["location"] | {"line": 1} == place
        assert "scan_ticket_atomic" in BROKEN.read_text().splitlines()[finding["location"]["line"] - 1]
    assert f"where: {BROKEN}:" in report


def test_a_record_that_cannot_be_written_hides_no_verdict(server: EmbeddedServer, sandbox: Sandbox) -> None:
    """What was found is printed; then comes the error."""
    record = Path("/dev/full")  # found out only when it is written
    words = ("--server", server.dsn, "--pattern", "unknown", "--clients", "2", "--record", record)
    done = sandbox.run("harness", "run", *words)
    assert done.returncode == ExitStatus.ENVIRONMENT
    assert "\nverdict: held" in done.stdout
    assert not any(line.endswith(" ") for line in done.stdout.splitlines())
    assert f"The record cannot be written to {record}." in done.stderr
    assert "next:" in done.stderr


def test_the_command_that_repeats_a_finding_does_repeat_it(broken: Any, sandbox: Sandbox) -> None:
    """Copied from the record and run as it stands, it breaks the same claim."""
    _, record = broken
    (finding,) = [f for f in record["runs"][0]["findings"] if f["id"] == "at_most_one_accepted"]
    words = shlex.split(finding["replay"])
    again = sandbox.tmp / "again.json"
    done = sandbox.run(*words, "--record", again)
    assert done.returncode == ExitStatus.BROKEN, done.stderr
    (run,) = json.loads(again.read_text())["runs"]
    assert {f["id"]: f["truth"] for f in run["findings"]}["at_most_one_accepted"] == "broken"
    assert run["plan"] == record["runs"][0]["plan"]


@pytest.mark.parametrize(
    "words",
    [
        (
            *("--pattern", "burst", "--pattern", "arrivals", "--pattern", "unknown", "--pattern", "rescan"),
            *("--duration", "0.3", "--pause", "0.01", "--timeout", "5", "--rate", "150", "--duplicates", "0.2"),
            *("--pool-size", "2"),
        ),
        ("--pattern", "arrivals", "--duration", "0.4", "--distribution", "constant"),
        ("--pattern", "rescan", "--pattern", "burst", "--calls", "4"),
        ("--profile", "soak", "--duration", "1", "--rounds", "3"),
        ("--profile", "seed", "--duration", "0.5", "--pattern", "burst", "--pattern", "race", "--rounds", "5"),
    ],
    ids=["of the quick profile", "with a distribution", "a number of calls", "soak", "seed"],
)
def test_every_pattern_can_be_repeated(words: tuple[str, ...], server: EmbeddedServer, sandbox: Sandbox) -> None:
    """The command of a finding makes the same plan again, whatever the pattern and the profile were."""
    check = sandbox.tmp / "never.sql"
    check.write_text("-- name: never\nSELECT 1;")  # broken on purpose: only what is not held has a command
    records = [sandbox.tmp / "first.json", sandbox.tmp / "second.json"]
    given = ("--server", server.dsn, "--invariants", check, "--clients", "3")
    first = sandbox.run("harness", "run", *given, *words, "--record", records[0])
    assert first.returncode == ExitStatus.BROKEN, first.stdout + first.stderr
    for run in json.loads(records[0].read_text())["runs"]:
        (replay,) = {f["replay"] for f in run["findings"] if f["id"] == "invariant.never"}
        second = sandbox.run(*shlex.split(replay), "--record", records[1])
        assert second.returncode == ExitStatus.BROKEN, second.stdout + second.stderr
        (again,) = json.loads(records[1].read_text())["runs"]
        assert again["plan"] == run["plan"]


def test_the_quick_profile_gives_the_whole_verdict(server: EmbeddedServer, sandbox: Sandbox) -> None:
    """Burst, race, rescan and unknown tickets, in one record, within seconds."""
    record = sandbox.tmp / "record.json"
    done = sandbox.run("harness", "run", "--server", server.dsn, "--duration", "0.5", "--record", record)
    assert done.returncode == ExitStatus.HELD, done.stdout + done.stderr
    runs = json.loads(record.read_text())["runs"]
    assert [run["kind"] for run in runs] == ["burst", "race", "rescan", "unknown"]
    assert [run["plan"]["clients"] for run in runs] == [10] * 4
    assert runs[1]["plan"]["rounds"] == 100


def test_the_seed_profile_is_the_original_load_test(server: EmbeddedServer, sandbox: Sandbox) -> None:
    """Ten clients with a 0.1 s pause on distinct tickets, then ten on one ticket, rounds enough to be evidence."""
    record = sandbox.tmp / "record.json"
    done = sandbox.run(
        "harness", "run", "--server", server.dsn, "--profile", "seed", "--duration", "1", "--record", record
    )
    assert done.returncode in (ExitStatus.HELD, ExitStatus.UNDECIDED), done.stdout + done.stderr
    burst, race = json.loads(record.read_text())["runs"]
    assert (burst["plan"]["clients"], burst["plan"]["pause"]) == (10, 0.1)
    assert burst["truth"] == "held"
    assert 60 <= burst["metrics"]["calls"] <= 100
    assert (race["plan"]["clients"], race["plan"]["rounds"], race["plan"]["mixed"]) == (10, EVIDENCE, False)
    assert race["metrics"]["counts"]["successful_scans"] == EVIDENCE
    assert race["metrics"]["counts"]["race_conditions_caught"] == 9 * EVIDENCE


def test_options_come_from_the_environment_too(server: EmbeddedServer, sandbox: Sandbox) -> None:
    """HARNESS_* variables are read, and the command line beats them."""
    record = sandbox.tmp / "record.json"
    done = sandbox.run(
        "harness", "run", "--pattern", "rescan", "--clients", "2",
        HARNESS_SERVER=server.dsn, HARNESS_CLIENTS="7", HARNESS_RECORD=str(record), HARNESS_TIMEOUT="3",
        HARNESS_MIGRATIONS=f"{MIGRATIONS}/0001_events_tickets_scan_logs.sql:{MIGRATIONS}/0002_scan_ticket_atomic.sql",
    )  # fmt: skip
    assert done.returncode == ExitStatus.HELD, done.stderr
    value = json.loads(record.read_text())
    assert value["runs"][0]["plan"] | {"clients": 2, "timeout": 3.0} == value["runs"][0]["plan"]
    assert len(value["migrations"]) == 2


def test_a_contract_of_ones_own_runs_from_the_command(server: EmbeddedServer, sandbox: Sandbox) -> None:
    """module:attribute where one stands, with migrations, seed and invariants; one that oversells is found out."""
    folder = ROOT / "tests" / "inventory"
    words = (
        "harness", "run", "--server", server.dsn, "--contract", "tests.inventory:INVENTORY", "--seed", folder / "seed",
        "--clients", "8", "--pattern", "race", "--rounds", "96", "--migrations", folder / "migrations",
    )  # fmt: skip
    held = sandbox.run(*words)
    assert held.returncode == ExitStatus.HELD, held.stdout + held.stderr
    broken = sandbox.run(*words, "--migrations", folder / "oversells.sql")
    assert broken.returncode == ExitStatus.BROKEN, broken.stdout + broken.stderr
    assert "never_oversold, race (sql)" in broken.stdout


def test_a_run_that_meets_a_defect_does_not_take_the_others_with_it(server: EmbeddedServer, sandbox: Sandbox) -> None:
    """A contract that cannot classify an answer: status 3, and the record has the run before it."""
    (sandbox.tmp / "mine.py").write_text(
        "from dataclasses import replace\nfrom harness.contracts.scan_ticket import SCAN_TICKET\n\n\n"
        "def classify(row):\n    assert 'not found' not in (row['error_message'] or ''), 'a defect of mine'\n"
        "    return SCAN_TICKET.classify(row)\n\n\nMINE = replace(SCAN_TICKET, classify=classify)\n"
    )
    done = sandbox.run(
        "harness", "run", "--server", server.dsn, "--contract", "mine:MINE", "--record", "record.json", "--migrations",
        MIGRATIONS, "--seed", SEED, *HELD, "--pattern", "unknown", cwd=sandbox.tmp,
    )  # fmt: skip
    assert done.returncode == ExitStatus.ENVIRONMENT
    assert "a defect of mine" in done.stderr
    record = json.loads((sandbox.tmp / "record.json").read_text())
    assert [run["kind"] for run in record["runs"]] == ["rescan"]


def test_what_is_undecided_says_what_to_do(server: EmbeddedServer, sandbox: Sandbox) -> None:
    """The remedy and the command that repeats it, as for what is broken."""
    words = ("--pattern", "race", "--clients", "3", "--rounds", "24", "--pool-size", "1")
    done = sandbox.run("harness", "run", "--server", server.dsn, *words)
    assert done.returncode == ExitStatus.UNDECIDED
    after = done.stdout[done.stdout.index("? undecided: ") :]
    assert "race_overlapped, race (sql)" in after
    assert "remedy: Raise --clients or --rounds" in after
    assert "repeat: harness run --pattern race" in after


def test_a_race_that_held_says_what_may_have_escaped(server: EmbeddedServer, sandbox: Sandbox) -> None:
    """The upper bound per round, at 95 % confidence."""
    done = sandbox.run("harness", "run", "--server", server.dsn, "--pattern", "race", "--clients", "3")
    assert done.returncode == ExitStatus.HELD, done.stdout
    assert re.search(
        r"a fault that shows in \d+(\.\d+)? % or more of such rounds would have been seen \(95 %\)", done.stdout
    )


def on_a_terminal(
    words: Sequence[str | Path], columns: int, environment: dict[str, str], cwd: Path = ROOT
) -> tuple[int, str]:
    """Status and all that a command writes where somebody looks at it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    process = subprocess.Popen(
        ["harness", *words], cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    said = b""
    with suppress(OSError):  # a terminal that nobody holds any more
        while piece := os.read(ours, 65536):
            said += piece
    os.close(ours)
    return process.wait(), said.decode()


def test_on_a_terminal_a_bar_shows_the_calls_and_makes_way_for_the_report(
    server: EmbeddedServer, sandbox: Sandbox
) -> None:
    """It is taken away before anything else is printed."""
    words = ("run", "--server", server.dsn, "--pattern", "burst", "--duration", "1", "--clients", "3")
    status, said = on_a_terminal(words, 160, sandbox.environment(TERM="xterm"))
    assert status == ExitStatus.HELD
    *_, bar, report = said.split("\x1b[2K")  # where a line is taken away
    assert re.search(r"burst.*\d+ calls", bar), said
    assert re.match(r"(\x1b\[[\d;]*m)*server ", report), said


def test_the_bar_of_scenarios_says_what_is_found_so_far(server: EmbeddedServer, sandbox: Sandbox) -> None:
    """Which one is checked, how many are, and what came of them."""
    text = "-- scenario: {0}\n-- setup\nCREATE TABLE {0} (n int);\n-- session: p x 2\nINSERT INTO {0} VALUES (1);\n"
    for name in ("one", "two"):
        (sandbox.tmp / f"{name}.race.sql").write_text(text.format(name))
    (sandbox.tmp / "empty.sql").write_text("SELECT 1;")
    words = ("check", "--server", server.dsn, "--migrations", "empty.sql", "--by", "explore", ".")
    status, said = on_a_terminal(words, 160, sandbox.environment(TERM="xterm"), sandbox.tmp)
    assert status == ExitStatus.HELD, said
    plain = re.sub(r"\x1b\[[\d;]*m", "", said)
    assert re.search(r"one .*0 of 2 checked", plain)
    assert re.search(r"two .*1 of 2 checked; so far 1 held", plain)


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_are_for_a_terminal_that_wants_them(
    variables: dict[str, str], coloured: bool, broken: Any, sandbox: Sandbox
) -> None:
    """NO_COLOR and a dumb terminal get none; lines end at the terminal's width."""
    (sandbox.tmp / "record.json").write_text(json.dumps(broken[1]))
    environment = sandbox.environment(**{"TERM": "xterm", **variables})
    environment.pop("COLUMNS", None)
    status, said = on_a_terminal(["report", sandbox.tmp / "record.json"], 80, environment)
    assert status == ExitStatus.BROKEN
    assert ("\x1b[" in said) is coloured
    plain = re.sub(r"\x1b\[[\d;]*m", "", said)
    assert "✗ broken: At most one call per ticket is accepted." in plain
    assert max(len(line) for line in plain.splitlines() if "repeat: " not in line and str(BROKEN) not in line) <= 80
    _, figures = on_a_terminal(["report", "-v", sandbox.tmp / "record.json"], 80, environment)
    assert ("\x1b[" in figures) is coloured


def test_help_and_version_need_no_server(sandbox: Sandbox) -> None:
    """Every option is in the help, with its variable."""
    from harness.options import OPTIONS

    done = sandbox.run("harness", "run", "--help")
    assert done.returncode == 0
    for option in OPTIONS:
        assert option.flag in done.stdout
        assert option.variable in done.stdout
    assert sandbox.run("harness", "--version").stdout.startswith("harness, version ")


def test_help_that_finds_no_room_is_said(sandbox: Sandbox) -> None:
    """What click prints itself is no exception: a sentence, and no status that means broken."""
    done = sandbox.run("sh", "-c", "harness --help >/dev/full")
    assert done.returncode == ExitStatus.ENVIRONMENT
    assert "error: The system refused something." in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_migration_says_is_no_command_of_the_workflow(tmp_path: Path, sandbox: Sandbox) -> None:
    """GitHub reads the log of `harness apply`: a message of the server stays text in it, also its escapes."""
    (tmp_path / "1.sql").write_text("DO $$ BEGIN RAISE EXCEPTION E'no\\n::stop-commands::on \\x1b[2J'; END $$;\n")
    words = ("harness", "apply", "--server", "embedded", "--migrations", tmp_path, "--keep-going")
    done = sandbox.run(*words, GITHUB_ACTIONS="true")
    said = done.stdout + done.stderr
    assert done.returncode == ExitStatus.ENVIRONMENT, said
    assert "stop-commands" in said
    assert "\x1b" not in said
    assert [line for line in said.splitlines() if line.strip().startswith("::")] == []
