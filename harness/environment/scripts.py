"""SQL files: found, read, split into statements with their lines, and applied."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pglast
import psycopg
from pglast.parser import ParseError
from psycopg.pq import TransactionStatus

from harness.errors import HarnessError

_ATOMIC = re.compile(r"\bBEGIN\s+ATOMIC\b", re.IGNORECASE)

_CANNOT_RUN_IN_TRANSACTION = (
    psycopg.errors.ActiveSqlTransaction,  # CREATE INDEX CONCURRENTLY, VACUUM, ALTER SYSTEM, ...
    psycopg.errors.InvalidTransactionTermination,  # COMMIT in a DO block or a procedure
    psycopg.errors.UnsafeNewEnumValueUsage,  # ALTER TYPE ... ADD VALUE, and the value's first use
)


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


def find(paths: Sequence[Path], what: str, option: str) -> tuple[Script, ...]:
    """The scripts at `paths`, in the order given; a folder gives its *.sql in name order.

    Raises HarnessError for a path that is missing and a folder without .sql files.
    """
    found: list[Script] = []
    for path in paths:
        if path.is_dir():
            files = sorted(path.glob("*.sql"))
            if not files:
                raise HarnessError(
                    f"The {what} folder {path} holds no .sql file.",
                    next_step=f"put the files there, or name another folder or file with {option}",
                )
        elif path.is_file():
            files = [path]
        else:
            raise HarnessError(
                f"No {what} at {path}: there is no such file or folder.",
                tried=str(path.absolute()),
                next_step=f"name a folder or .sql file that exists with {option}",
            )
        for file in files:
            try:
                found.append(Script(file, file.read_bytes().decode()))
            except (OSError, UnicodeDecodeError) as error:
                raise HarnessError(f"{file} cannot be read.", tried=str(error)) from error
    return tuple(found)


def apply(connection: psycopg.Connection[tuple[Any, ...]], script: Script) -> None:
    """Apply a script in one transaction, or outside of one where the server says that it must be.

    `connection` is in autocommit. Raises HarnessError with file, line, SQLSTATE and the statement that failed.
    """
    try:
        _apply(connection, script, transaction=True)
    except _CANNOT_RUN_IN_TRANSACTION:
        # Nothing of the file has been kept, so start it again.
        _apply(connection, script, transaction=False)


def _apply(connection: psycopg.Connection[tuple[Any, ...]], script: Script, *, transaction: bool) -> None:
    if transaction:
        connection.execute("BEGIN")
    try:
        for statement in script.statements():
            try:
                connection.execute(statement.text.encode(), prepare=False)
            except psycopg.Error as error:
                if transaction and isinstance(error, _CANNOT_RUN_IN_TRANSACTION):
                    raise
                if connection.info.transaction_status == TransactionStatus.ACTIVE:
                    connection.close()  # the server waits for rows, or for somebody to take them
                    raise HarnessError(
                        f"{statement.path}:{statement.line}: COPY from or to a client cannot be in a file of SQL.",
                        tried=statement.text,
                        next_step="write INSERT statements (pg_dump --inserts)",
                    ) from error
                raise _failed(statement, error) from error
        # Also what a file began itself and left open.
        if connection.info.transaction_status == TransactionStatus.INTRANS:
            connection.execute("COMMIT")
    except psycopg.Error as error:
        if transaction and isinstance(error, _CANNOT_RUN_IN_TRANSACTION):
            raise
        # A deferred constraint speaks at COMMIT, of no statement in particular.
        raise HarnessError(
            f"{script.path}: COMMIT failed with SQLSTATE {error.sqlstate}.", tried=str(error).strip()
        ) from error
    finally:
        if not connection.closed:
            connection.rollback()


def _failed(statement: Statement, error: psycopg.Error) -> HarnessError:
    position = int(error.diag.statement_position or 0)
    line = statement.line + statement.text.count("\n", 0, max(position - 1, 0))
    hint = f" ({error.diag.message_hint})" if error.diag.message_hint else ""
    shown = statement.text if len(statement.text) <= 1200 else statement.text[:1200] + "\n..."
    return HarnessError(
        f"{statement.path}:{line}: {error.diag.message_primary or str(error).strip()}{hint} "
        f"(SQLSTATE {error.sqlstate or 'none'})",
        tried="\n    " + shown.replace("\n", "\n    "),
        next_step="mend the statement; nothing of this database is kept",
    )
