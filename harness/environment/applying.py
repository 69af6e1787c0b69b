"""Applying files: as whom, in which transactions, and how long.

A file is one transaction, unless the server says that something in it cannot run in one; then it is applied again,
statement by statement.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from harness.environment.applied import Failure, failure_of
from harness.environment.own import is_loss
from harness.environment.supplying import MAY_LACK, Connection, Supplier
from harness.errors import HarnessError
from harness.sqltext import queries
from harness.sqltext.scripts import Script, Statement

_SQL = queries.own("harness.environment", "applying.sql")

_CANNOT_RUN_IN_TRANSACTION = (
    psycopg.errors.ActiveSqlTransaction,  # CREATE INDEX CONCURRENTLY, VACUUM, ALTER SYSTEM, ...
    psycopg.errors.InvalidTransactionTermination,  # COMMIT in a DO block or a procedure
    psycopg.errors.UnsafeNewEnumValueUsage,  # ALTER TYPE ... ADD VALUE, and the value's first use
)

_TO_STDOUT = re.compile(r"COPY\b.*\bTO\s+STDOUT\b", re.IGNORECASE | re.DOTALL)
_PLAIN = re.compile(r"(INSERT|UPDATE|DELETE|COPY)\b", re.IGNORECASE)
_ENDS = re.compile(r"(COMMIT|END|ROLLBACK|ABORT)\b(?!\s+(WORK\s+|TRANSACTION\s+)?TO\b)(?!\s+PREPARED)", re.IGNORECASE)
_BEGINS = re.compile(r"(BEGIN|START\s+TRANSACTION)\b", re.IGNORECASE)
_CONTROL = re.compile(
    r"(SAVEPOINT|RELEASE|ROLLBACK|COMMIT|END|ABORT|BEGIN|START|PREPARE\s+TRANSACTION|SET\s+TRANSACTION|"
    r"SET\s+(LOCAL\s+)?transaction_(isolation|read_only|deferrable))\b",
    re.IGNORECASE,
)
"""What is refused, or means something else, behind a savepoint."""

_ALTER_SYSTEM = re.compile(r"ALTER\s+SYSTEM\b", re.IGNORECASE)

_HEAD = 400
"""Characters of a statement in which what it is about is looked for."""
_PIECE = 1 << 18
"""Bytes of COPY data that are sent at once."""


@dataclass(slots=True)
class Applier:
    """Applies files to one database, through a connection in autocommit of its own.

    `limit`: seconds that one file may take.
    """

    supplier: Supplier
    keep_going: bool = False
    limit: float = 600.0
    failures: list[Failure] = field(default_factory=list)
    _outlasted: bool = False

    @property
    def connection(self) -> Connection:
        """Where files are applied."""
        return self.supplier.connection

    def apply(self, script: Script) -> bool:
        """Apply a file; whether all of it was. Raises HarnessError for a failure, unless going on was asked for."""
        supplier = self.supplier
        known, notes, failed = set(supplier.roles_made), Counter(supplier.notes), list(self.failures)
        before = len(failed)
        try:
            self._apply(script, transaction=True)
        except _CANNOT_RUN_IN_TRANSACTION:
            # Nothing of the file has been kept, so start it again.
            supplier.roles_made, supplier.notes, self.failures = known, notes, failed
            script.notes.clear()
            self._apply(script, transaction=False)
        for note in dict.fromkeys(script.notes):
            supplier.notes[note] += 1
        return len(self.failures) == before

    def _apply(self, script: Script, *, transaction: bool) -> None:
        connection = self.connection
        # As if each file had a session of its own: pg_dump, for one, empties the search_path and leaves it so.
        connection.execute("DISCARD ALL")
        connection.execute(_SQL["search_path"])
        if self.supplier.role is not None:
            self.supplier.become(self.supplier.role)
        if transaction:
            connection.execute("BEGIN")
        began: Statement | None = None
        variables: dict[str, str] = {}
        try:
            with self._limited():
                for statement in script.statements(variables):
                    ended = bool(_ENDS.match(statement.text))
                    if _BEGINS.match(statement.text):
                        began = statement
                    elif ended:
                        began = None
                    self._statement(statement, variables, whole=transaction)
                    transaction = transaction and not ended  # from here on something is kept
                if began is not None and connection.info.transaction_status != TransactionStatus.IDLE:
                    raise HarnessError(
                        f"{began.path}:{began.line}: BEGIN without COMMIT.",
                        tried="the end of the file, with its transaction still open",
                        next_step="add COMMIT; to its end, or take BEGIN out: a file is one transaction anyway",
                    )
                if connection.info.transaction_status == TransactionStatus.INTRANS:
                    self._commit(script, transaction=transaction)
        except HarnessError as error:
            if not self.keep_going or connection.closed:
                raise
            if not self.failures or str(self.failures[-1].error) != str(error):
                self.failures.append(Failure(script.path, 0, error.what, None, error.tried, error.next_step))
        finally:
            if not connection.closed:
                connection.rollback()

    def _commit(self, script: Script, *, transaction: bool) -> None:
        try:
            self.connection.execute("COMMIT")
        except psycopg.Error as error:
            if transaction and isinstance(error, _CANNOT_RUN_IN_TRANSACTION):
                raise
            if is_loss(error):
                raise
            # A deferred constraint speaks at COMMIT, of no statement in particular.
            raise HarnessError(
                f"{script.path}: COMMIT failed with SQLSTATE {error.sqlstate}.",
                tried=str(error).strip(),
                next_step="mend what the deferred constraint speaks of",
            ) from error

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Cancel what runs when the file has had its time: its own statement_timeout may be off."""

        def cancel() -> None:
            self._outlasted = True
            with suppress(psycopg.Error):
                self.connection.cancel_safe(timeout=5)

        timer = threading.Timer(self.limit, cancel)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    # -- one statement

    def _statement(self, statement: Statement, variables: dict[str, str], *, whole: bool) -> None:
        if _ALTER_SYSTEM.match(statement.text):
            what = "ALTER SYSTEM changes the whole server, and is not applied."
            self._refuse(statement, what, "take it out; give settings to the server itself")
            return
        text = self.supplier.sent(statement.text)
        if text is None:
            return
        # Only where something can be supplied: rows by the thousand need no savepoint each.
        plain = _PLAIN.match(text) and not MAY_LACK.search(text, 0, _HEAD)
        guarded = (self.keep_going or not plain) and not _CONTROL.match(text) and self._in_transaction
        try:
            if guarded:
                self.connection.execute("SAVEPOINT harness")
            self._execute(text, statement, variables)
        except psycopg.Error as error:
            self._failed(error, text, statement, variables, guarded=guarded, whole=whole)
        else:
            self._release(guarded=guarded)
            self.supplier.remember(text)

    @property
    def _in_transaction(self) -> bool:
        return self.connection.info.transaction_status == TransactionStatus.INTRANS

    def _release(self, *, guarded: bool) -> None:
        if guarded and self._in_transaction:
            self.connection.execute("RELEASE SAVEPOINT harness")

    def _execute(self, text: str, statement: Statement, variables: dict[str, str]) -> None:
        connection = self.connection
        if statement.data is not None:
            with connection.cursor() as cursor, cursor.copy(text.encode()) as copy:
                for at in range(0, len(statement.data), _PIECE):
                    copy.write(statement.data[at : at + _PIECE])
            return
        if _TO_STDOUT.match(text):
            with connection.cursor() as reader, reader.copy(text.encode()) as copy:
                for _ in copy:
                    pass
            return
        cursor = connection.execute(text.encode(), prepare=False)
        if statement.then and cursor.description:
            self._then(statement, cursor, variables)

    def _then(self, statement: Statement, cursor: psycopg.Cursor[Any], variables: dict[str, str]) -> None:
        if statement.then == "gexec":
            for row in cursor.fetchall():
                for value in row:
                    if value is not None:
                        inner = Statement(statement.path, statement.line, str(value), "")
                        self._statement(inner, variables, whole=True)
            return
        result = cursor.pgresult
        prefix = statement.then.partition(" ")[2]
        if result is not None and result.ntuples == 1 and cursor.description:
            for at, column in enumerate(cursor.description):  # as the server spells it, and not as Python does
                if (value := result.get_value(0, at)) is not None:
                    variables[prefix + column.name] = value.decode(errors="replace")

    def _refuse(self, statement: Statement, what: str, next_step: str) -> None:
        failure = Failure(statement.path, statement.line, what, None, statement.text, next_step)
        if not self.keep_going:
            raise HarnessError(f"{statement.path}:{statement.line}: {what}", tried=statement.text, next_step=next_step)
        self.failures.append(failure)

    # -- what to do about an error

    def _failed(
        self,
        error: psycopg.Error,
        text: str,
        statement: Statement,
        variables: dict[str, str],
        *,
        guarded: bool,
        whole: bool,
    ) -> None:
        if whole and isinstance(error, _CANNOT_RUN_IN_TRANSACTION):
            raise error
        if self.connection.closed:
            raise self._lost(statement, error) from error
        if guarded:
            try:
                self.connection.execute("ROLLBACK TO SAVEPOINT harness")
            except psycopg.Error:  # there may be none: a statement_timeout of 1 ms ends that too
                raise self._failure(statement, error).error from error
        if not self._outlasted and (guarded or not self._in_a_block):
            for _ in range(8):  # a statement may lack several things, one after the other
                try:
                    if not self.supplier.supply(error, text, lambda t: self._execute(t, statement, variables)):
                        break
                    self._release(guarded=guarded)
                    return
                except _CANNOT_RUN_IN_TRANSACTION:
                    raise
                except psycopg.Error as another:
                    if guarded:
                        self.connection.execute("ROLLBACK TO SAVEPOINT harness")
                    if str(another) == str(error):
                        break
                    error = another
        self._release(guarded=guarded)
        failure = self._failure(statement, error)
        if not self.keep_going:
            raise failure.error from error
        self.failures.append(failure)
        if self._outlasted:
            raise failure.error from error

    @property
    def _in_a_block(self) -> bool:
        return self.connection.info.transaction_status != TransactionStatus.IDLE

    def _lost(self, statement: Statement, error: psycopg.Error) -> HarnessError:
        return HarnessError(
            f"{statement.path}:{statement.line}: the connection was lost.",
            tried=" ".join(str(error).split()),
            next_step="see in the server's log what ended it",
        )

    def _failure(self, statement: Statement, error: psycopg.Error) -> Failure:
        outlasted = self.limit if self._outlasted else None
        return failure_of(statement, error, self.failures, ours=self.supplier.ours, outlasted=outlasted)
