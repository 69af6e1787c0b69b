"""The public face: what `harness` lists is there, light to import, and explained; the old place warns."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import harness


@pytest.mark.parametrize("name", harness.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    """With a docstring, and for its public methods one each."""
    value = getattr(harness, name)
    if not isinstance(value, type) and not inspect.isroutine(value):
        return
    assert inspect.getdoc(value), name
    for member, each in vars(value).items() if isinstance(value, type) else ():
        if not member.startswith("_") and inspect.isfunction(each):
            assert inspect.getdoc(each), f"{name}.{member}"


def test_what_is_not_listed_is_no_public_name() -> None:
    """A name that is not there is an AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        harness.nothing  # noqa: B018
    assert set(harness.__all__) <= set(dir(harness))


def test_importing_the_package_imports_nothing_heavy() -> None:
    """Neither a driver nor a parser nor pytest: each comes with the name that needs it."""
    code = (
        "import sys, harness; print([m for m in ('psycopg', 'pglast', 'rich', 'pytest', 'click') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


OLD = """
from harness.contracts.contract import *
from harness.contracts.contract import Contract, Effect
"""


def test_the_old_place_goes_on_working_and_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All names, by star too; the warning says where they are now, at the line that imports them."""
    (tmp_path / "an_old_contract.py").write_text(OLD)
    monkeypatch.syspath_prepend(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        old = importlib.import_module("an_old_contract")
    assert old.Contract is harness.Contract
    assert old.Parameter is harness.Parameter
    assert {Path(each.filename).name for each in caught} == {"an_old_contract.py"}
    assert {str(each.message) for each in caught} == {
        "harness.contracts.contract is private now: write `from harness import ...`"
    }


def test_the_harness_itself_does_not_warn() -> None:
    """Its own imports, and what loads a contract by name, are silent under -W error."""
    code = "import harness.run, harness.contracts as c; print(c.load('scan_ticket').name)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "scan_ticket\n"), done.stderr
