"""What a project's files say: where it is looked for, what beats what, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from harness.configuration import Configuration, read
from harness.errors import UsageError
from harness.load import patterns
from harness.options import OPTIONS, Options, resolve

TABLE = (*OPTIONS, *patterns.options())


def options(found: Configuration, given: Any = (), **variables: str) -> Options:
    return resolve(dict(given), found.ini, variables, patterns.options(), found.project)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pytest.ini", "[pytest]\nharness_clients = 3\nharness_migrations =\n    a\n    b\n"),
        ("pytest.toml", '[pytest]\nharness_clients = 3\nharness_migrations = ["a", "b"]\n'),
        ("pyproject.toml", '[tool.pytest.ini_options]\nharness_clients = "3"\nharness_migrations = ["a", "b"]\n'),
        ("pyproject.toml", '[tool.pytest]\nharness_clients = "3"\nharness_migrations = ["a", "b"]\n'),
        ("pyproject.toml", '[tool.harness]\nclients = 3\nmigrations = ["a", "b"]\n'),
        ("pyproject.toml", '[tool.harness]\nclients = 3\nmigrations = "a\\nb"\n'),
        ("tox.ini", "[pytest]\nharness_clients = 3\nharness_migrations =\n    a\n    b\n"),
        ("setup.cfg", "[tool:pytest]\nharness_clients = 3\nharness_migrations =\n    a\n    b\n"),
    ],
)
@pytest.mark.parametrize("inner", [".", "deep/down"])
def test_each_file_that_pytest_reads_is_read(name: str, text: str, inner: str, tmp_path: Path) -> None:
    """From the working folder upwards; paths are relative to the file."""
    (tmp_path / name).write_text(text)
    (tmp_path / inner).mkdir(parents=True, exist_ok=True)
    found = read(tmp_path / inner, TABLE)
    assert options(found).load == {"clients": 3}
    assert options(found).migrations == (tmp_path / "a", tmp_path / "b")
    assert tmp_path in found.path


def test_command_line_beats_environment_beats_the_projects_section_beats_pytests_ini(tmp_path: Path) -> None:
    """The nearest source wins, and what the files say is remembered."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nharness_clients = 5\nharness_rate = 5\n")
    (tmp_path / "pyproject.toml").write_text("[tool.harness]\nclients = 4\n")
    found = read(tmp_path, TABLE)
    assert options(found, {"clients": "2"}, HARNESS_CLIENTS="3").load["clients"] == 2
    assert options(found, HARNESS_CLIENTS="3").load["clients"] == 3
    assert options(found, HARNESS_CLIENTS="3").configured == {"clients": 4, "rate": 5.0}
    assert options(found).load == {"clients": 4, "rate": 5.0}


def test_pytests_pythonpath_is_a_place_for_a_contract(tmp_path: Path) -> None:
    """A module that tests can import is found by the command, too."""
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath =\n    src\n")
    assert read(tmp_path, TABLE).path == (tmp_path, tmp_path / "src")


def test_names_of_columns_can_be_a_table(tmp_path: Path) -> None:
    """And a switch is true or false, as TOML has it."""
    (tmp_path / "pyproject.toml").write_text(
        '[tool.harness]\ncontract-option = {used = "was_scanned"}\nhttp = true\ntimeout = 2.5\n'
    )
    found = options(read(tmp_path, TABLE))
    assert (found.contract_option, found.http, found.timeout) == (("used=was_scanned",), True, 2.5)


def test_without_files_nothing_is_said(tmp_path: Path) -> None:
    """Nor by a pyproject.toml of a project that knows neither pytest nor the harness."""
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert options(read(tmp_path, TABLE)) == Options()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.harness]\nclientz = 3\n", "not an option: clientz.*did you mean clients"),
        ("[tool.harness]\nclients = [3]\n", r"clients in \[tool.harness\].*which is not a positive integer"),
        ("[tool.harness]\nclients = 0\n", r"clients in \[tool.harness\] is '0', which is not a positive integer"),
        ("[tool.harness]\nmigrations = {a = 1}\n", "which is not a path"),
        ("[tool.harness\n", "cannot be read"),
    ],
)
def test_what_is_wrong_names_the_file_or_the_key(text: str, said: str, tmp_path: Path) -> None:
    """A key that is not an option would be passed over in silence, and a misspelt limit would never limit."""
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        options(read(tmp_path, TABLE))
    assert re.search(said, str(caught.value), re.DOTALL), caught.value
    assert caught.value.next_step
