"""The public face: what `harness` lists is there, light to import, and explained; the old place warns."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
import warnings
from collections.abc import Iterator
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


def _own_names(tree: ast.Module) -> Iterator[tuple[str, str, ast.FunctionDef | ast.ClassDef]]:
    """Class (or nothing), name and node of every public function, class and method that is written out."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield "", node.name, node
            for inner in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                    yield node.name, inner.name, inner


def _bases(node: ast.ClassDef) -> set[str]:
    named = (base.value if isinstance(base, ast.Subscript) else base for base in node.bases)
    return {
        base.attr if isinstance(base, ast.Attribute) else base.id
        for base in named
        if hasattr(base, "id") or hasattr(base, "attr")
    }


def test_every_name_without_an_underscore_says_what_it_means() -> None:
    """In a docstring of its own; a method that a base class, a protocol or an abstract class describes need not say it
    again."""
    package = Path(harness.__file__).parent
    trees = {path.relative_to(package): ast.parse(path.read_text()) for path in package.rglob("*.py")}
    classes = {node.name: node for tree in trees.values() for node in tree.body if isinstance(node, ast.ClassDef)}

    def described(owner: str, name: str) -> bool:
        node = classes.get(owner)
        return node is not None and (
            any(isinstance(m, ast.FunctionDef) and m.name == name and ast.get_docstring(m) for m in node.body)
            or any(described(base, name) for base in _bases(node))
        )

    open_to_all = [owner for owner, node in classes.items() if _bases(node) & {"Protocol", "ABC"}]
    silent = [
        (path, owner, name)
        for path, tree in trees.items()
        for owner, name, node in _own_names(tree)
        if not ast.get_docstring(node) and not any(described(each, name) for each in (owner, *open_to_all))
    ]
    assert not silent
