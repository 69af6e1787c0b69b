"""SQL files of a project: found, read, and applied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from harness.errors import HarnessError
from harness.sqltext.scripts import Script, Statement

_CANNOT_RUN_IN_TRANSACTION = (
    psycopg.errors.ActiveSqlTransaction,  # CREATE INDEX CONCURRENTLY, VACUUM, ALTER SYSTEM, ...
    psycopg.errors.InvalidTransactionTermination,  # COMMIT in a DO block or a procedure
    psycopg.errors.UnsafeNewEnumValueUsage,  # ALTER TYPE ... ADD VALUE, and the value's first use
)


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
