"""Applying files: as whom, with what the platform allows beyond that, and what became of every statement.

A file is one transaction, unless the server says that something in it cannot run in one; then it is applied again,
statement by statement. What a statement lacks is supplied where that is safe to do, and said: a role that a dump names,
an extension that was turned on in a dashboard.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from harness.environment import platforms
from harness.environment.description import GONE_ON
from harness.environment.own import is_loss
from harness.errors import HarnessError, limit_of
from harness.sqltext import queries
from harness.sqltext.scripts import Script, Statement

Connection = psycopg.Connection[Any]

_SQL = queries.own("harness.environment", "applying.sql")

_BOOKKEEPING = queries.own("harness.environment.preludes", "bookkeeping.sql")
"""Tables of tools, by name."""

_CANNOT_RUN_IN_TRANSACTION = (
    psycopg.errors.ActiveSqlTransaction,  # CREATE INDEX CONCURRENTLY, VACUUM, ALTER SYSTEM, ...
    psycopg.errors.InvalidTransactionTermination,  # COMMIT in a DO block or a procedure
    psycopg.errors.UnsafeNewEnumValueUsage,  # ALTER TYPE ... ADD VALUE, and the value's first use
)
_DUPLICATES = (
    psycopg.errors.DuplicateSchema, psycopg.errors.DuplicateTable, psycopg.errors.DuplicateObject,
    psycopg.errors.DuplicateFunction, psycopg.errors.DuplicateColumn, psycopg.errors.InvalidTableDefinition,
)  # fmt: skip

_OBJECTS = (
    r"(CREATE|ALTER|DROP|COMMENT\s+ON)\s+(OR\s+REPLACE\s+)?(UNIQUE\s+)?(TABLE|VIEW|MATERIALIZED|INDEX|SEQUENCE|TYPE|"
    r"FUNCTION|PROCEDURE|SCHEMA|COLUMN|CONSTRAINT|AGGREGATE|ROUTINE|CAST|OPERATOR|LANGUAGE|TEXT)\b"
)

BEYOND: tuple[tuple[str, str], ...] = (
    ("extensions", r"(CREATE|ALTER|DROP|COMMENT\s+ON)\s+EXTENSION\b"),
    ("event triggers", r"(CREATE|ALTER|DROP|COMMENT\s+ON)\s+EVENT\s+TRIGGER\b"),
    ("publications", r"(CREATE|ALTER|DROP)\s+(PUBLICATION|SUBSCRIPTION)\b"),
    ("policies and triggers on the platform's tables", r"(CREATE|ALTER|DROP|COMMENT\s+ON)\s+(POLICY|TRIGGER)\b"),
    ("settings and memberships of roles", r"(CREATE|ALTER|DROP|COMMENT\s+ON)\s+(ROLE|USER|GROUP)\b"),
    ("settings of the database", r"(ALTER|COMMENT\s+ON)\s+DATABASE\b"),
    ("foreign data", r"(CREATE|ALTER|DROP|IMPORT)\s+(FOREIGN|SERVER|USER\s+MAPPING)\b"),
    ("owners", r"ALTER\s+.*\bOWNER\s+TO\b|REASSIGN\s+OWNED\b"),
    ("privileges", r"(GRANT|REVOKE|ALTER\s+DEFAULT\s+PRIVILEGES|SECURITY\s+LABEL)\b"),
    ("what the platform owns", _OBJECTS),
    ("DO blocks that do such a thing", r"DO\b"),
    ("settings", r"(SET|RESET)\b"),
)  # fmt: skip
"""What Supabase lets `postgres` do beyond its rights: what it is, and how a statement of the kind begins.

Such a statement is tried with the rights that there are, and only where they do not suffice made by the superuser."""

_BEYOND = tuple((what, re.compile(begins, re.IGNORECASE | re.DOTALL)) for what, begins in BEYOND)
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
_NAME = r'("(?:[^"]|"")+"|[\w$]+)'
_OF_DATABASE = tuple(
    re.compile(begins + _NAME, re.IGNORECASE | re.DOTALL)
    for begins in (
        r"(ALTER\s+DATABASE\s+)", r"(COMMENT\s+ON\s+DATABASE\s+)", r"((?:GRANT|REVOKE)\b[^;]*?\bON\s+DATABASE\s+)",
        r"(ALTER\s+(?:ROLE|USER)\s+\S+\s+IN\s+DATABASE\s+)", r"(SECURITY\s+LABEL\s+ON\s+DATABASE\s+)",
    )
)  # fmt: skip
_WHOLE_DATABASE = re.compile(r"(CREATE|DROP)\s+DATABASE\b", re.IGNORECASE)
_MOVES_DATABASE = re.compile(r"ALTER\s+DATABASE\s+\S+\s+(OWNER|RENAME|SET\s+TABLESPACE|REFRESH)\b", re.IGNORECASE)
_DROP_SCHEMA = re.compile(rf"DROP\s+SCHEMA\s+(?:IF\s+EXISTS\s+)?{_NAME}", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"CREATE\s+OR\s+REPLACE\s+VIEW\s+\S+\s+AS\s+SELECT\s+NULL::", re.IGNORECASE)
_ALTER_SYSTEM = re.compile(r"ALTER\s+SYSTEM\b", re.IGNORECASE)
_EXTENSION = re.compile(rf"CREATE\s+EXTENSION\s+(?:IF\s+NOT\s+EXISTS\s+)?{_NAME}", re.IGNORECASE)
_TOUCHES_EXTENSION = re.compile(rf"(?:ALTER|DROP|COMMENT\s+ON)\s+EXTENSION\s+(?:IF\s+EXISTS\s+)?{_NAME}", re.IGNORECASE)
_INTO_SCHEMA = re.compile(rf"\bSCHEMA\s+{_NAME}", re.IGNORECASE)
_VERSION = re.compile(r"\bVERSION\s+('[^']*'|\"[^\"]*\"|\S+)", re.IGNORECASE)
_CREATE_ROLE = re.compile(r"CREATE\s+(ROLE|USER|GROUP)\b(?!\s+MAPPING)", re.IGNORECASE)
_ROLE_CREATED = re.compile(rb'CREATE\s+(?:ROLE|USER|GROUP)\s+("[^"]+"|[\w$]+)', re.IGNORECASE)
_SETS_ROLE = re.compile(rf"(ALTER\s+(?:ROLE|USER)\s+{_NAME})(\s+(?:SET|RESET)\b.*)", re.IGNORECASE | re.DOTALL)
_SETTING = re.compile(r"SET\s+(SESSION\s+|LOCAL\s+)?[\w.\"]+\s*(=|TO\b)", re.IGNORECASE)
_MEANS_POSTGRES = re.compile(
    rf"\b(OWNER\s+TO|AUTHORIZATION|FOR\s+(?:ROLE|USER))\s+(?:{platforms.ROLE}\b|\"{platforms.ROLE}\")", re.IGNORECASE
)
_OF_ROW = re.compile(r"^COPY .*, line (\d+)", re.MULTILINE)
_MISSING_ROLE = re.compile(r'role "(.*)" does not exist')
_MISSING_SCHEMA = re.compile(r'schema "([^"]*)" does not exist|relation "([^".]*)\.[^"]*" does not exist')
_MISSING_TABLE = re.compile(r'relation "(?:public\.)?(\w+)" does not exist')
_MISSING_METHOD = re.compile(r'access method "(\w+)" does not exist')
_PLAIN_INDEX = re.compile(r"CREATE\s+INDEX\b", re.IGNORECASE)
_UNSET = re.compile(r'syntax error at or near ":"')
_VARIABLE = re.compile(r""":['"]?(\w+)""")
_MISSING_CLASS = re.compile(r'has no default operator class for access method "(gist|gin)"')
_MISSING_NAME = re.compile(
    r'(?:type|operator class) "?([\w.]+)(?:\[\])*"? does not exist|function ([\w".]+)\(.*\) does not exist'
)
_CREATES = re.compile(
    r"(?:CREATE\s+(?:OR\s+REPLACE\s+)?(?:UNIQUE\s+|TEMP\s+|TEMPORARY\s+|UNLOGGED\s+|GLOBAL\s+|LOCAL\s+|CONSTRAINT\s+|"
    r"MATERIALIZED\s+|RECURSIVE\s+|FOREIGN\s+)*(?:TABLE|VIEW|INDEX|SEQUENCE|TYPE|DOMAIN|FUNCTION|PROCEDURE|AGGREGATE|SCHEMA|"
    r"TRIGGER|POLICY|EXTENSION|ROLE)|ADD\s+COLUMN|RENAME\s+TO)\s+(?:CONCURRENTLY\s+)?(?:IF\s+NOT\s+EXISTS\s+)?"
    r'((?:"[^"]+"|[\w$]+)(?:\s*\.\s*(?:"[^"]+"|[\w$]+))*)',
    re.IGNORECASE,
)
_QUOTED = re.compile(r'"([^"]+)"|function ([\w.]+)\(')
_PLATFORM_SCHEMA = re.compile(
    r'(?<![\w."])"?(?P<schema>' + "|".join(sorted(platforms.SCHEMAS | {"public"})) + r')"?(?:\s*\.|\s|$)', re.IGNORECASE
)
_MAY_LACK = re.compile(
    rf'\b"?(?:{"|".join(platforms.IN_SCHEMA)})"?\s*\.|\b(?:{"|".join(_BOOKKEEPING)})\b', re.IGNORECASE
)
"""What rows may go to that is supplied where it is not there."""
_HEAD = 400
"""Characters of a statement in which what it is about is looked for."""
_PIECE = 1 << 18
"""Bytes of COPY data that are sent at once."""
_SHOWN = 1200
"""Characters of a statement that an error shows."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One statement that could not be applied."""

    path: Path
    line: int
    message: str
    sqlstate: str | None
    statement: str
    next_step: str
    follows: str = ""
    """`FILE:LINE` of a failure before it that this one comes from, where it names what that one was to create."""

    @property
    def error(self) -> HarnessError:
        """As the error that ends a run."""
        shown = self.statement if len(self.statement) <= _SHOWN else self.statement[:_SHOWN] + "\n..."
        follows = f"; it follows from {self.follows}" if self.follows else ""
        if not self.line:  # of the file as a whole
            return HarnessError(self.message, tried=shown, next_step=self.next_step)
        return HarnessError(
            f"{self.path}:{self.line}: {self.message} (SQLSTATE {self.sqlstate or 'none'}){follows}",
            tried="\n    " + shown.replace("\n", "\n    "),
            next_step=self.next_step,
        )


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of all files."""

    files: int
    applied: int
    """Migration files in which no statement failed."""
    platform: str
    """Which, and by what it was recognised."""
    role: str
    """As whom the migrations ran."""
    order: tuple[str, ...] = ()
    """For each folder, in what order its files were taken, and which were left out."""
    stand_ins: tuple[platforms.StandIn, ...] = ()
    notes: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    seeds: tuple[int, int] = (0, 0)
    """How many seed files were applied, of how many; `files` and `applied` are the migrations'."""

    @property
    def beside(self) -> tuple[str, ...]:
        """What stood in for what the server lacks, and what was done for the files."""
        stand_ins = (f"stand-in: {each.name}: {each.says}" for each in self.stand_ins)
        return (*stand_ins, *(f"note: {note}" for note in self.notes))

    @property
    def prelude(self) -> tuple[str, ...]:
        """What was there beside the files, and what is missing of them: sentences that every report shows.

        Empty where that is nothing: no platform, no stand-in, nothing supplied, nothing that failed.
        """
        found = [*self.beside]
        if self.failures:
            first = self.failures[0]
            failed = f"{len(self.failures)} of the files' statements failed"
            found.append(f"{GONE_ON}: {failed}; first {first.path}:{first.line}: {first.message}")
        if not found and self.platform.startswith("none"):
            return ()
        return (f"platform: {self.platform}; migrations ran as {self.role}", *found)

    @property
    def causes(self) -> tuple[tuple[str, int, int], ...]:
        """Each message, how many statements failed with it and in how many files; the most frequent first."""
        messages = Counter(failure.message for failure in self.failures)
        files = {message: len({f.path for f in self.failures if f.message == message}) for message in messages}
        return tuple((message, count, files[message]) for message, count in messages.most_common())

    @property
    def whole(self) -> bool:
        """Whether every file and every statement of it was applied."""
        return not self.failures and self.applied == self.files and self.seeds[0] == self.seeds[1]


@dataclass(slots=True)
class Applier:
    """Applies files to one database, through a connection in autocommit of its own.

    `role` is whom the statements run as, where that is not the one who is connected: then that one is a superuser, and
    `beyond` says that it may step in, as the platform does. `limit`: seconds that one file may take.
    """

    connection: Connection
    role: str | None = None
    beyond: bool = False
    ours: bool = True
    """Whether the server was booted here: on somebody else's, settings of roles stay within the database."""
    keep_going: bool = False
    limit: float = 600.0
    failures: list[Failure] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    stood_in: set[str] = field(default_factory=set)
    """Extensions whose stand-in's script was run."""
    roles_made: set[str] = field(default_factory=set)
    _outlasted: bool = False
    _base: str = ""

    def apply(self, script: Script) -> bool:
        """Apply a file; whether all of it was. Raises HarnessError for a failure, unless going on was asked for."""
        known, notes, failed = set(self.roles_made), Counter(self.notes), list(self.failures)
        before = len(failed)
        try:
            self._apply(script, transaction=True)
        except _CANNOT_RUN_IN_TRANSACTION:
            # Nothing of the file has been kept, so start it again.
            self.roles_made, self.notes, self.failures = known, notes, failed
            script.notes.clear()
            self._apply(script, transaction=False)
        for note in dict.fromkeys(script.notes):
            self.notes[note] += 1
        return len(self.failures) == before

    def _apply(self, script: Script, *, transaction: bool) -> None:
        connection = self.connection
        # As if each file had a session of its own: pg_dump, for one, empties the search_path and leaves it so.
        connection.execute("DISCARD ALL")
        connection.execute(_SQL["search_path"])
        if self.role is not None:
            self._become(self.role)
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
        text = self._sent_to_ours(statement)
        if text is None:
            return
        # Only where something can be supplied: rows by the thousand need no savepoint each.
        plain = _PLAIN.match(text) and not _MAY_LACK.search(text, 0, _HEAD)
        guarded = (self.keep_going or not plain) and not _CONTROL.match(text) and self._in_transaction
        try:
            if guarded:
                self.connection.execute("SAVEPOINT harness")
            self._execute(text, statement, variables)
        except psycopg.Error as error:
            self._failed(error, text, statement, variables, guarded=guarded, whole=whole)
        else:
            self._release(guarded=guarded)
            self._remember(text)

    @property
    def _in_transaction(self) -> bool:
        return self.connection.info.transaction_status == TransactionStatus.INTRANS

    def _release(self, *, guarded: bool) -> None:
        if guarded and self._in_transaction:
            self.connection.execute("RELEASE SAVEPOINT harness")

    def _anew(self) -> None:
        """What was supplied stays, also where the statement then lacks something else."""
        if self._in_transaction:
            self.connection.execute("RELEASE SAVEPOINT harness; SAVEPOINT harness")

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

    def _remember(self, text: str) -> None:
        if _CREATE_ROLE.match(text) and (name := re.search(rf"(?:ROLE|USER|GROUP)\s+{_NAME}", text, re.IGNORECASE)):
            self.roles_made.add(_unquoted(name[1]))

    def _sent_to_ours(self, statement: Statement) -> str | None:
        """The statement as it is sent; None where the scratch database takes its place.

        Raises HarnessError for ALTER SYSTEM.
        """
        text = statement.text
        if _ALTER_SYSTEM.match(text):
            what = "ALTER SYSTEM changes the whole server, and is not applied."
            self._refuse(statement, what, "take it out; give settings to the server itself")
            return None
        if _WHOLE_DATABASE.match(text) or _MOVES_DATABASE.match(text):
            self.notes["CREATE, DROP and moves of a database are left out: the scratch database takes its place"] += 1
            return None
        if self.beyond and (dropped := _DROP_SCHEMA.match(text)) and _unquoted(dropped[1]) in platforms.SCHEMAS:
            self.notes[f"DROP SCHEMA {dropped[1]} is left out: it is the platform's"] += 1
            return None
        ours = f'"{self.connection.info.dbname}"'
        for named in _OF_DATABASE:
            if found := named.match(text):
                if found[2].lower() not in ("current_database", ours):
                    self.notes[f"what names the database {_unquoted(found[2])} is sent to the scratch database"] += 1
                text = found[1] + ours + text[found.end() :]
                break
        if not self.ours and (sets := _SETS_ROLE.match(text)) and _unquoted(sets[2]) not in self.roles_made:
            # The role is somebody else's: the setting holds in the scratch database and its clones, and goes with them.
            text = f"{sets[1]} IN DATABASE {ours}{sets[3]}"
        return text

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
                    if not self._supply(error, text, statement, variables):
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

    def _supply(self, error: psycopg.Error, text: str, statement: Statement, variables: dict[str, str]) -> bool:
        """Supply what a statement lacks and run it again, or leave it out; whether either was done.

        Raises psycopg.Error where it fails again.
        """

        def again(text: str = text) -> bool:
            self._execute(text, statement, variables)
            self._remember(text)
            return True

        message = error.diag.message_primary or str(error)
        if (isinstance(error, _DUPLICATES) or "is already a partition" in message) and self._is_there(text):
            return True
        if _PLACEHOLDER.match(text) and isinstance(
            error, (psycopg.errors.UndefinedObject, psycopg.errors.InvalidSchemaName)
        ):
            return True  # pg_dump --clean, of a view that is dropped next
        if self.beyond and isinstance(error, psycopg.errors.InvalidGrantOperation):
            self.notes["left out: privileges granted back to whom the object belongs to"] += 1
            return True
        if created := _EXTENSION.match(text):
            return self._stand_in(error, text, _unquoted(created[1]), again)
        if (touched := _TOUCHES_EXTENSION.match(text)) and self._only_stands_in(_unquoted(touched[1])):
            self.notes[f"ALTER, DROP and COMMENT on the stand-in for {_unquoted(touched[1])} are left out"] += 1
            return True
        if (missing := _MISSING_ROLE.search(message)) and not re.match(r"(DROP|ALTER)\s+(ROLE|USER|GROUP)", text, re.I):
            return self._make_role(missing[1], again)
        if isinstance(error, psycopg.errors.UndefinedObject) and _SETTING.match(text) and "configuration" in message:
            self.notes[f"left out, this server has no such setting: {text}"] += 1
            return True
        if (
            (missing := _MISSING_TABLE.search(message))
            and missing[1] in _BOOKKEEPING
            and not re.match("DROP", text, re.I)
        ):
            self.connection.execute(_BOOKKEEPING[missing[1]].encode())
            self._anew()
            self.notes[f"the table {missing[1]}, in which a tool keeps its books, was made, and is empty"] += 1
            return again()
        if self.beyond and "security label provider" in message:
            self.notes[f"left out, nothing is encrypted here: {message}"] += 1
            return True
        if (method := _MISSING_METHOD.search(message)) and _PLAIN_INDEX.match(text):
            self.notes[f"left out: indexes by {method[1]}, which this server has not; only speed depends on them"] += 1
            return True
        schema = _MISSING_SCHEMA.search(message)
        if self.beyond and schema and (schema[1] or schema[2]) in platforms.IN_SCHEMA:
            return self._turn_on(platforms.IN_SCHEMA[schema[1] or schema[2]], again)
        if self.beyond and (lacking := _MISSING_CLASS.search(message)):
            return self._turn_on(f"btree_{lacking[1]}", again)
        if self.beyond and (named := _MISSING_NAME.search(message)) and (extension := _extension_of(named)):
            into = (named[1] or named[2]).replace('"', "").lower().rpartition(".")[0]
            return self._turn_on(extension, again, into)
        if self.beyond and not self.role and isinstance(error, psycopg.errors.InsufficientPrivilege):
            renamed = _MEANS_POSTGRES.sub(r"\1 CURRENT_USER", text)
            if renamed != text:
                self.notes[f"{platforms.ROLE}, whom statements name, is taken to be who is connected"] += 1
                return again(renamed)
        if self.beyond and self.role and isinstance(error, psycopg.errors.InsufficientPrivilege):
            for what, begins in _BEYOND:
                if begins.match(text):
                    with self._as_admin():
                        again()
                        if begins.pattern.startswith("DO") or what == "foreign data":
                            self.connection.execute(_SQL["hand_over"].encode())
                    self.notes[f"beyond the rights of {self.role}, as the platform allows: {what}"] += 1
                    return True
        return False

    def _is_there(self, text: str) -> bool:
        """Leave out what makes something that the platform, or the server, has already."""
        if _CREATE_ROLE.match(text):
            self.notes["a role that is there already is taken as it is"] += 1
            return True
        if re.match(r"CREATE\s+SCHEMA\s+\"?public\b", text, re.I):
            return True
        makes = re.match(r"(CREATE|ALTER)\b", text, re.I)
        if self.beyond and makes and (
            re.match(r"CREATE\s+PUBLICATION\s+\"?supabase_realtime", text, re.I)
            or ((head := _PLATFORM_SCHEMA.search(text[:300])) and head["schema"].lower() != "public")
        ):  # fmt: skip
            self.notes["what a dump makes of the platform's own is there already"] += 1
            return True
        return False

    def _stand_in(self, error: psycopg.Error, text: str, name: str, again: Callable[..., bool]) -> bool:
        """What a CREATE EXTENSION lacks: the right to, the version, its schema, the extension itself."""
        if isinstance(error, psycopg.errors.InsufficientPrivilege) and self.role is not None:
            with self._as_admin():
                return again()
        if isinstance(error, psycopg.errors.InvalidParameterValue) and _VERSION.search(text):
            with self._as_admin():
                return again(_VERSION.sub("", text))  # a version that this server has not
        into = _INTO_SCHEMA.search(text)
        if isinstance(error, psycopg.errors.InvalidSchemaName) and into and self.beyond:
            # The real one brings its schema.
            with self._as_admin():
                self.connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(_unquoted(into[1]))))
                return again(_VERSION.sub("", text))
        stand_in = platforms.stand_ins().get(name)
        if stand_in is None:
            return False
        if isinstance(error, psycopg.errors.InvalidSchemaName) and stand_in.schema:
            # A dump empties the search_path, and the real one's own file says to which schema it goes.
            with self._as_admin():
                platforms.create_extension(self.connection, name, "public")
            return True
        lacking = isinstance(error, (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile))
        if lacking or isinstance(error, psycopg.errors.InsufficientPrivilege):  # which the platform would let him
            if name in self.stood_in:
                return True
            with self._as_admin():
                platforms.run_stand_in(self.connection, name, _unquoted(into[1]) if into else None)
            self.stood_in.add(name)
            return True
        if "required extension" in str(error):
            with self._as_admin():
                for required in stand_in.requires:
                    platforms.create_extension(self.connection, required, "extensions" if self.beyond else None)
                return again()
        return False

    def _only_stands_in(self, extension: str) -> bool:
        found = self.connection.execute(_SQL["extension"], [extension]).fetchone()
        return extension in platforms.stand_ins() and (found is None or found[0] == platforms.STAND_IN)

    def _turn_on(self, extension: str, again: Callable[[], bool], schema: str = "") -> bool:
        """An extension that no file creates: projects turn it on in the dashboard."""
        stand_in = platforms.stand_ins().get(extension)
        there = self.connection.execute(_SQL["extension"], [extension]).fetchone() is not None
        if there or extension in self.stood_in:
            return False
        with self._as_admin():
            real = platforms.create_extension(
                self.connection, extension, None if stand_in is not None and stand_in.schema else schema or "extensions"
            )
        self._anew()
        if not real:
            self.stood_in.add(extension)
        self.notes[f"{extension} is created by no file before its use; taken as turned on in the dashboard"] += 1
        return again()

    def _make_role(self, name: str, again: Callable[[], bool]) -> bool:
        with self._as_admin():
            try:
                self.connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name)))
                if self.role is None and not self.ours:
                    self.connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(name)))
                elif self.role is not None:
                    grant = sql.SQL("GRANT {} TO {} WITH ADMIN OPTION")
                    self.connection.execute(grant.format(sql.Identifier(name), sql.Identifier(self.role)))
            except psycopg.errors.InsufficientPrivilege:
                return False
        self._anew()
        self.roles_made.add(name)
        self.notes[f"the role {name} does not exist, and was created without rights"] += 1
        return again()

    @contextmanager
    def _as_admin(self) -> Iterator[None]:
        """As the one who is connected, and then as before. After an error the transaction's end sets it back."""
        if self.role is None:
            yield
            return
        self.connection.execute("SET SESSION AUTHORIZATION DEFAULT")
        try:
            yield
        finally:
            if self.connection.info.transaction_status != TransactionStatus.INERROR:
                self._become(self.role)

    def _become(self, role: str) -> None:
        self.connection.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(role)))

    def _failure(self, statement: Statement, error: psycopg.Error) -> Failure:
        position = int(error.diag.statement_position or 0)
        line = statement.line + statement.text.count("\n", 0, max(position - 1, 0))
        if statement.data is not None and (row := _OF_ROW.search(error.diag.context or "")):
            line = statement.line + statement.text.count("\n") + int(row[1])
        hint = f" ({error.diag.message_hint})" if error.diag.message_hint else ""
        message = f"{error.diag.message_primary or str(error).strip()}{hint}"
        next_step = "mend the statement; nothing of this database is kept"
        if self._outlasted:
            message = f"the file was not done after {self.limit:g} s, and was cancelled: {message}"
            next_step = "see what it waits for, or give --apply-timeout more seconds"
        elif found := _EXTENSION.match(statement.text):
            if isinstance(error, (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile)):
                message = f"the extension {_unquoted(found[1])} is not on this server, and there is no stand-in for it"
                next_step = "use a server that has it (--postgres-image, or a DSN), or --keep-going to go on without it"
            elif "base type" in message:  # of a stand-in's
                name = _unquoted(found[1])
                message = f"the extension {name} is not on this server, and its stand-in needs a superuser"
                next_step = "have it installed there, give the DSN of a superuser, or --keep-going to go on without it"
        elif error.sqlstate == "42601" and _UNSET.search(message):
            found = _VARIABLE.match(statement.text, position - 1)
            name = found[1] if found else "..."
            message = f"nothing sets the variable {name} of psql: {message}"
            next_step = f"\\set {name} in the file, or in one that includes it with \\ir"
        elif (named := _MISSING_NAME.search(message)) and (missing := _extension_of(named)):
            next_step = f"CREATE EXTENSION {missing} in a file before this one (a dump of one schema leaves it out)"
        elif "ICU is not supported" in message:
            next_step = "use a server with ICU: --server container, or a DSN; the embedded one has none"
        elif limit := limit_of(error.sqlstate, message):
            next_step = f"raise {limit}, which this file or the server sets"
        elif error.sqlstate == "42501":
            next_step = "grant that to the role, or give the DSN of one that may"
            if self.ours:
                next_step = "see whether the platform allows it: what only a superuser may, it does not"
        elif error.sqlstate in ("42P01", "42703", "3F000", "42883", "42704"):
            next_step = "see that what it names is created by a file before this one"
        return Failure(
            statement.path, line, message, error.sqlstate, statement.text, next_step, self._follows(message, statement)
        )

    def _follows(self, message: str, statement: Statement) -> str:
        names = {(a or b).rpartition(".")[2] for a, b in _QUOTED.findall(message)}
        for earlier in self.failures:
            if names & _made_by(earlier.statement):
                same = earlier.path.name == statement.path.name and earlier.path != statement.path
                named = f"{earlier.path.parent.name}/" if same else ""  # every one of Prisma's is called migration.sql
                return f"{named}{earlier.path.name}:{earlier.line}"
        return ""


@cache
def _made_by(statement: str) -> frozenset[str]:
    return frozenset(_unquoted(re.split(r"\s*\.\s*", name)[-1]) for name in _CREATES.findall(statement))


def roles_created(script: Script) -> set[str]:
    """The roles that a file creates, in whatever kind of statement."""
    found = _ROLE_CREATED.findall(script.source)
    return {_unquoted(name.decode(errors="replace")) for name in found}


def _extension_of(named: re.Match[str]) -> str | None:
    """The extension that a missing type, operator class or function is of, where that is known."""
    return platforms.OF_NAME.get((named[1] or named[2]).replace('"', "").lower().rpartition(".")[2])


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name[:1] == '"' else name.lower()
