"""Invariants: queries on the database after a run, each of which returns the rows that violate it.

A file holds one or more queries. The comment above a query may name it and say what it claims::

    -- name: no_negative_stock
    -- claim: Stock never goes below zero.
    SELECT * FROM items WHERE stock < 0;

Without a name, the file's name and the query's place in it are taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.contracts.contract import Contract
from harness.environment import migrations
from harness.errors import HarnessError
from harness.sqltext import queries
from harness.sqltext.placeholders import named, names_in


@dataclass(frozen=True, slots=True)
class Invariant:
    """One query and the claim it puts to the test."""

    name: str
    claim: str
    query: str
    path: Path
    line: int


@dataclass(frozen=True, slots=True)
class Violations:
    """What the database said to one invariant."""

    rows: tuple[Mapping[str, str | None], ...] = ()
    """The first of those that violate it, as text."""
    count: int = 0
    unanswered: str = ""
    """Why it could not be asked; empty where it was answered."""
    waited: float | None = None
    """Seconds after which its query was given up."""


def load(paths: Sequence[Path], contract: Contract | None = None) -> tuple[Invariant, ...]:
    """The contract's invariants and those of files and folders, tables and columns named as the contract's options say.

    One that names something whose option is empty is left out: there is no such thing in that project. Raises
    HarnessError when a file is missing, holds no query or has a name twice.
    """
    own = () if contract is None or contract.invariants is None else (contract.invariants,)
    names: Mapping[str, str] = {} if contract is None else contract.names
    found: dict[str, Invariant] = {}
    left_out: list[str] = []
    if contract is not None and contract.declared is not None:
        found |= {each.name: each for each in contract.declared.conditions}
    for script in migrations.find((*own, *paths), "invariants", "--invariants").scripts:
        before = len(found)
        for number, query in enumerate(queries.read(script), 1):
            name = query.name or f"{script.path.stem}.{number}"
            claim = query.headings.get("claim") or f"{script.path.name}:{query.line} returns no row"
            if name in found:
                raise HarnessError(
                    f"Two invariants are named {name!r}.",
                    tried=f"{found[name].path}:{found[name].line} and {script.path}:{query.line}",
                    next_step="give each its own `-- name:`",
                )
            found[name] = Invariant(name, claim, named(query.text, names), script.path, query.line)
            if any(names.get(each) == "" for each in names_in(query.text)):
                left_out.append(name)
        if len(found) == before:
            raise HarnessError(f"{script.path} holds no query.", next_step="write queries that return violating rows")
    return tuple(invariant for name, invariant in found.items() if name not in left_out)
