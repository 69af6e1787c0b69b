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

from harness.environment import migrations
from harness.errors import HarnessError
from harness.sqltext import queries


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


def load(paths: Sequence[Path]) -> tuple[Invariant, ...]:
    """The invariants of files and folders. Raises HarnessError when one is missing, empty or has a name twice."""
    found: dict[str, Invariant] = {}
    for script in migrations.find(paths, "invariants", "--invariants").scripts:
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
            found[name] = Invariant(name, claim, query.text, script.path, query.line)
        if len(found) == before:
            raise HarnessError(f"{script.path} holds no query.", next_step="write queries that return violating rows")
    return tuple(found.values())
