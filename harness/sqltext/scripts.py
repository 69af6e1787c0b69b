"""A file of SQL, split into statements with their lines."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pglast
from pglast.parser import ParseError

from harness.errors import HarnessError

_ATOMIC = re.compile(r"\bBEGIN\s+ATOMIC\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a file; `line` is that of its first word, `leading` the comments right above it."""

    path: Path
    line: int
    text: str
    leading: str


@dataclass(frozen=True, slots=True)
class Script:
    """One SQL file as it was applied."""

    path: Path
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def statements(self) -> Iterator[Statement]:
        """The file's statements in order. Raises HarnessError where it cannot be cut into tokens."""
        sql = self.text.removeprefix("\ufeff")
        try:
            slices = _slices(sql)
        except ParseError as error:
            raise HarnessError(
                f"{self.path} cannot be split into statements.",
                tried=str(error),
                next_step="look for an unclosed quote, comment or $$ (psql's backslash commands are not SQL)",
            ) from error
        end = 0
        for piece in slices:
            line = sql.count("\n", 0, piece.start) + 1
            yield Statement(self.path, line, sql[piece], sql[end : piece.start].lstrip(";"))
            end = piece.stop


def _slices(sql: str) -> list[slice]:
    """Where each statement begins and ends, without comments around it. Raises ParseError at an unclosed quote.

    Cut by tokens and not by a parser, so that the server gets to see a statement with a mistake in it, and can say
    where the mistake is. (libpg_query's own splitter does the same, and drops statements that hold no keyword.)
    """
    found: list[slice] = []
    start: int | None = None
    end = depth = 0
    for token in pglast.parser.scan(sql):
        if token.name in ("SQL_COMMENT", "C_COMMENT"):
            continue
        depth += (token.name == "ASCII_40") - (token.name == "ASCII_41")
        if token.name == "ASCII_59" and (depth <= 0 or start is None):
            if start is not None:
                found.append(slice(start, end))
            start, depth = None, 0
            continue
        start, end = token.start if start is None else start, token.end + 1
    if start is not None:
        found.append(slice(start, end))
    return list(_whole(sql, found))


def _whole(sql: str, slices: Sequence[slice]) -> Iterator[slice]:
    """The slices, with each body in BEGIN ATOMIC ... END, which its semicolons have cut, put together again."""
    at = 0
    while at < len(slices):
        piece = slices[at]
        if _ATOMIC.search(sql, piece.start, piece.stop):
            for last in range(at, len(slices)):
                if _parses(sql[piece.start : slices[last].stop]):
                    piece, at = slice(piece.start, slices[last].stop), last
                    break
        yield piece
        at += 1


def _parses(statement: str) -> bool:
    try:
        pglast.parse_sql(statement)
    except ParseError:
        return False
    return True
