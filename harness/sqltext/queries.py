"""Named queries of .sql files: the one reader of `-- name:`, for the harness's own and for a project's.

The comment above a query names it, and may say more of it, a line for each thing::

    -- name: no_negative_stock
    -- claim: Stock never goes below zero.
    SELECT * FROM items WHERE stock < 0;
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.sqltext.scripts import Script

_HEADING = re.compile(r"^--\s*(\w+):\s*(.*?)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a file, with what the comment above it says."""

    headings: Mapping[str, str]
    """Word before the colon -> rest of the line."""
    text: str
    path: Path
    line: int

    @property
    def name(self) -> str:
        """Empty where it was given none."""
        return self.headings.get("name", "")


def read(script: Script) -> Iterator[Query]:
    """The queries of a file in order, named or not. Raises HarnessError where it cannot be split."""
    for statement in script.statements():
        yield Query(dict(_HEADING.findall(statement.leading)), statement.text, statement.path, statement.line)


@cache
def own(package: str, file: str = "queries.sql") -> Mapping[str, str]:
    """The harness's own named queries, by name: those of one file in a package."""
    from harness.sqltext.scripts import Script  # its parser takes 0.1 s to import, which `--help` can do without

    script = Script(Path(package, file), text(package, file))
    return {query.name: query.text for query in read(script)}


def text(package: str, file: str) -> str:
    """One of the harness's own .sql files as a whole: several statements, or a template with {places}."""
    return resources.files(package).joinpath(file).read_text(encoding="utf-8")
