"""The README's commands and examples are run, as they stand."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from harness.environment.embedded import EmbeddedServer
from harness.errors import ExitStatus
from harness.load import patterns
from harness.options import OPTIONS
from tests.conftest import ROOT, Sandbox

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    words
    for language, text in BLOCKS
    if language in ("sh", "console")
    for line in text.splitlines()
    if (words := shlex.split(line.removeprefix("$ "), comments=True))
]
# Long runs are made short by variables, which the commands' own words beat.
SHORT = {"HARNESS_DURATION": "0.3", "HARNESS_ROUNDS": "24"}


def of(command: str) -> list[list[str]]:
    return [words for words in COMMANDS if words[0] == command]


def quick(words: list[str]) -> bool:
    """Whether it is run here; a comparison with PostgREST takes its time, and its own tests run it."""
    return words[1] == "run" and "--http" not in words


def test_every_command_is_of_a_kind_that_is_tested_here() -> None:
    """A new command in the README needs a test."""
    assert {words[0] for words in COMMANDS} <= {"make", "pip", "pytest", "harness"}
    assert {words[0] for words in COMMANDS} >= {"make", "pytest", "harness"}
    assert {words[1] for words in of("harness")} <= {"run", "explore", "overhead", "overload", "report", "check"}


@pytest.mark.parametrize("words", of("make"), ids=" ".join)
def test_make_targets_are_there(words: list[str], sandbox: Sandbox) -> None:
    """Each target the README names is one of the Makefile, and runs what it says."""
    done = sandbox.run("make", "--dry-run", *words[1:], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    expected = {"harness": "pytest harness/", "test": "bin/pytest \n", "bench": "-m bench"}
    assert expected.get(words[1], "") in done.stdout


@pytest.mark.parametrize("words", of("pip"), ids=" ".join)
def test_the_package_is_named_as_it_is(words: list[str]) -> None:
    """What the README installs is this project, by its name or as the checkout that it stands in."""
    if words == ["pip", "install", "-e", "."]:
        return
    name = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"]
    assert words[1] == "install"
    assert words[-1].partition("[")[0] == name


@pytest.mark.parametrize("words", [w for w in of("harness") if quick(w)], ids=" ".join)
def test_harness_run_commands_run(words: list[str], server: EmbeddedServer, sandbox: Sandbox) -> None:
    """Each does what the README says, in a short form, on a server that is there."""
    words = [server.dsn if word.startswith("postgresql://") else word for word in words]
    words = [str(sandbox.tmp / word) if word.endswith(".json") else word for word in words]
    done = sandbox.run(*words, HARNESS_SERVER=server.dsn, **SHORT)
    # A race this short may be undecided.
    assert done.returncode in (ExitStatus.HELD, ExitStatus.UNDECIDED), done.stdout + done.stderr
    assert ("dry run: " if "--dry-run" in words else "verdict: ") in done.stdout


@pytest.mark.parametrize("words", [w for w in of("harness") if not quick(w)], ids=" ".join)
def test_other_commands_know_their_options(words: list[str], sandbox: Sandbox) -> None:
    """Their own tests run them; here, that the options the README gives are theirs."""
    done = sandbox.run("harness", words[1], "--help")
    assert done.returncode == 0
    for word in words[2:]:
        if word.startswith("--"):
            assert word.partition("=")[0] in done.stdout


@pytest.mark.parametrize("words", of("pytest"), ids=" ".join)
def test_pytest_commands_run_in_a_users_project(
    words: list[str], example: Path, server: EmbeddedServer, sandbox: Sandbox
) -> None:
    """With the test that the README shows, in place of the example's own."""
    if words[1].startswith("harness"):
        example = ROOT
    else:
        (shown,) = [text for language, text in BLOCKS if language == "python" and "def test_" in text]
        (example / "tests" / "test_gate.py").write_text(shown)
    done = sandbox.run(*words, "-p", "no:cacheprovider", cwd=example, HARNESS_SERVER=server.dsn, HARNESS_DURATION="0.5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verdict: held" in done.stdout


def test_the_seed_that_is_shown_fits_the_contract(server: EmbeddedServer, sandbox: Sandbox) -> None:
    """With the event that its tickets refer to, it is all that a run on the shipped migrations asks of a seed."""
    (shown,) = [text for language, text in BLOCKS if language == "sql" and "new_tickets" in text]
    event = re.search(r"'([0-9a-f-]{36})'", shown)
    assert event is not None
    insert = f"INSERT INTO events (id, name, starts_at) VALUES ('{event[1]}', 'one', now());\n"
    (sandbox.tmp / "seed.sql").write_text(insert + shown)
    words = ("run", "--pattern", "rescan", "--seed", str(sandbox.tmp / "seed.sql"))
    done = sandbox.run("harness", *words, cwd=ROOT, HARNESS_SERVER=server.dsn)
    assert done.returncode == ExitStatus.HELD, done.stdout + done.stderr


def test_every_option_is_in_the_readme_with_its_default() -> None:
    """The table of options cannot fall behind the options."""
    for option in (*OPTIONS, *patterns.options()):
        assert f"`{option.flag}" in README, option.flag
    rows = dict(re.findall(r"^\| `(--[\w-]+)[^|]*\|[^|]*\| ([^|]*?) ?\|$", README, re.MULTILINE))
    for option in OPTIONS:
        if option.default and option.flag in rows:
            assert rows[option.flag] == option.default


def test_every_exit_status_is_in_the_readme() -> None:
    """A number that the command may end with is explained."""
    said = README[README.index("Exit status:") :].split("\n\n")[0]
    assert {int(n) for n in re.findall(r"\b\d+\b", said)} == {int(status) for status in ExitStatus}
