"""Programs: what each session sends, one unit after another. The controller knows nothing else of sessions or calls.

A unit is what is sent in one go at the top level. Those that touch nothing (BEGIN, SET, SAVEPOINT) go with the unit
after them; each other one is a step. A statement that commits by itself becomes two: BEGIN with the statement, and the
COMMIT. Where something may be deferred, what is due at the commit is a step before it (SET CONSTRAINTS ALL IMMEDIATE).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pglast import ast, parse_sql, split
from pglast.enums import TransactionStmtKind
from pglast.parser import ParseError

from harness.schedules.measure import Keeps
from harness.sqltext.access import ADVISORY_LOCKS, Access

NOTHING = Access()


class Does(Enum):
    """What a unit is to its session."""

    BEGINS = "begins"
    PREPARES = "prepares"
    """Touches nothing that others see: SET, SAVEPOINT, PREPARE ..."""
    ACTS = "acts"
    GOES_BACK = "goes back"
    """ROLLBACK TO: lets go of locks."""
    CHECKS = "checks"
    """Has what is deferred to the commit done now."""
    COMMITS = "commits"
    ROLLS_BACK = "rolls back"
    ALONE = "alone"
    """Acts, and cannot run in a transaction block."""


@dataclass(frozen=True, slots=True)
class StatementAnswer:
    """What a session saw of one of its statements; of the last try where its transaction was run again."""

    columns: tuple[str, ...]
    """Empty for a command."""
    types: tuple[int, ...]
    """OIDs of the columns' types."""
    rows: tuple[tuple[str | None, ...], ...]
    """Values as the server's text."""
    command: str
    """Its tag, such as `UPDATE 1`; empty for an error."""
    code: str | None = None
    """SQLSTATE of an error."""
    message: str | None = None
    tries: int = 1


Text = str | Callable[[Sequence[StatementAnswer]], str]


@dataclass(frozen=True, slots=True)
class Query:
    """What one message to the server asks."""

    text: Text
    name: bytes = b""
    """Of the prepared statement that it is, if it is one."""
    parameters: Sequence[bytes | None] | None = ()
    """None: those of the program that it is in."""
    formats: Sequence[int] = ()
    result_format: int = 0


@dataclass(frozen=True, slots=True)
class Patience:
    """A lock_timeout that a session sets itself."""

    local: bool
    """For its transaction only."""
    ends: bool
    """A wait may run out; not where it is set to 0."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What a session sends in one go."""

    does: Does
    query: Query
    key: Hashable
    """Which step it is: equal for the same unit in another schedule."""
    label: str
    """Its text, for people."""
    access: Access = NOTHING
    """What its text says that it touches before the first statement inside of it that is a step, and after the last."""
    statement: int | None = None
    """The place among the session's statements of the one that it belongs to, whose answer an error of it is; None:
    it is the harness's own."""
    before: tuple[Query, ...] = ()
    """What goes before it in the same message."""
    own: bool = False
    """Its transaction is the harness's: it ends with it, also where it fails."""
    restart: int = 0
    """The unit that begins its transaction."""
    line: int = 0
    patience: Patience | None = None
    """How long it makes the session wait for a lock, where it sets that."""

    @property
    def answers(self) -> bool:
        """Whether what the server says of it is the answer to the session's statement."""
        return self.does is not Does.CHECKS and (not self.own or self.does is Does.ACTS)

    @property
    def quiet(self) -> bool:
        """Whether it goes with the unit after it."""
        return self.does in (Does.BEGINS, Does.PREPARES)


@dataclass(frozen=True, slots=True)
class Program:
    """All units of one session, and what it does about errors."""

    units: tuple[Unit, ...]
    retry: frozenset[str] = frozenset()
    retry_session: bool = False
    retries: int = 0
    stop_on_error: bool = False
    reset: Mapping[Keeps, Query] = field(default_factory=dict)
    """What is sent before a schedule, where the session's backend may have kept something of the last."""
    leaves_settings: bool = False
    closing: int = 0
    """How many units at the end stand for the end of its connection."""
    parameters: Sequence[bytes | None] = ()
    """What differs from one schedule to another: of the query that has none of its own."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a session, as the server gets it.

    A text that depends on the answers so far (psql's `\\gset`) is given as a function of them. It is read by a `sample`
    of it, with any values; without one, what it touches is measured, and taken at its strongest.
    """

    text: Text
    line: int = 0
    """In its file."""
    sample: str = ""
    label: str = ""
    """What people are shown; empty: its text."""

    @property
    def read(self) -> str:
        """The text by which it is known what it touches; empty where there is none."""
        return self.text if isinstance(self.text, str) else self.sample


@dataclass(frozen=True, slots=True)
class Session:
    """What one person does: statements in order, in transactions of their own or not."""

    name: str
    statements: tuple[Statement, ...]
    begin: str = "BEGIN"
    """How a transaction is begun around a statement that commits by itself; may be several statements, such as an
    identity's `begin` (environment/identity.py)."""
    local: str = ""
    """What follows a BEGIN (and SET TRANSACTION) that the session wrote itself: an identity's `local`."""
    outside: str = ""
    """What goes before a statement that cannot run in a transaction block: an identity's `session`."""
    after: str = ""
    """What takes that back: its `reset`."""
    isolation: str = ""
    """The level that `begin` and `local` set; empty: the server's default."""
    retry: frozenset[str] = frozenset()
    """SQLSTATEs on which a transaction is run again from its start."""
    retry_session: bool = False
    """The whole session is run again."""
    retries: int = 0
    """The most repetitions of one transaction."""
    stop_on_error: bool = False
    """It ends with its first error, as psql with ON_ERROR_STOP."""
    leaves_locks: bool = False
    """It may hold advisory locks when it ends: that they go with its connection is a step."""
    leaves_settings: bool = False
    """Settings, roles, prepared statements, held cursors or channels of it may be left: they go before the next
    schedule."""


COMMIT_QUERY, ROLLBACK_QUERY = Query("COMMIT"), Query("ROLLBACK")
UNLOCK_QUERY = Query("SELECT pg_catalog.pg_advisory_unlock_all()")
CHECK_QUERY = Query("SET CONSTRAINTS ALL IMMEDIATE")
CHECK_LABEL = "what is deferred to the commit"

_FORGET = {
    Keeps.LOCKS: UNLOCK_QUERY,
    Keeps.SEQUENCES: Query("DISCARD SEQUENCES"),
    Keeps.TABLES: Query("DISCARD TEMP"),
}

RESET_QUERIES = tuple(
    Query(text)
    for text in (
        "CLOSE ALL",
        "SET SESSION AUTHORIZATION DEFAULT",
        "RESET ALL",
        "UNLISTEN *",
        # DEALLOCATE ALL would take the harness's own away, too.
        (
            "DO $$ DECLARE own text; BEGIN "
            "FOR own IN SELECT name FROM pg_catalog.pg_prepared_statements WHERE from_sql "
            "LOOP EXECUTE format('DEALLOCATE %I', own); END LOOP; END $$"
        ),
    )
)
"""What takes a session's settings, role, cursors, channels and prepared statements from its backend."""

Touches = Callable[[str], Access]
"""What a statement's text touches, by itself and in all that it reaches and that is no step of its own."""


def compiled(
    session: Session, number: int, touches: Touches, check: Access | None, commits_inside: Set[str] = frozenset()
) -> Program:
    """The units of a session.

    `check` is what deferred work may touch; None: nothing can be deferred. `commits_inside` are the names of the
    procedures that end a transaction, which cannot be called in one.
    """
    return _Compiler(session, number, touches, check, commits_inside).program()


def call(
    query: Query,
    label: str,
    access: Access,
    check: Access | None,
    begin: Sequence[Query] = (Query("BEGIN"),),
    retry: Set[str] = frozenset(),
    retries: int = 0,
) -> Program:
    """The units of one statement that commits by itself, as a contract's calls are; `begin` goes before it.

    On an SQLSTATE of `retry` it is made again, so often at most.
    """
    units = [Unit(Does.ACTS, query, "call", label, access, 0, tuple(begin), own=True)]
    if check is not None:
        units.append(Unit(Does.CHECKS, CHECK_QUERY, "check", CHECK_LABEL, check, 0, own=True))
    units.append(Unit(Does.COMMITS, COMMIT_QUERY, "commit", "commit", NOTHING, 0, own=True))
    # Keys are fresh for each schedule, so what a sequence gave before makes no difference.
    reset = {kind: _FORGET[kind] for kind in (Keeps.LOCKS, Keeps.TABLES)}
    return Program(tuple(units), frozenset(retry), retries=retries, reset=reset)


def call_alone(query: Query, label: str, access: Access, before: Sequence[str], after: Sequence[str]) -> Program:
    """The same of a procedure that ends transactions by itself, and so is called in none; `before` and `after` are
    what makes the session somebody else's, and takes that back."""

    def around(texts: Sequence[str], place: str) -> list[Unit]:
        return [Unit(Does.PREPARES, Query(text), (place, at), text) for at, text in enumerate(texts)]

    acts = Unit(Does.ALONE, query, "call", label, access, 0)
    units = (*around(before, "before"), acts, *around(after, "after"))
    return Program(units, reset={kind: _FORGET[kind] for kind in (Keeps.LOCKS, Keeps.TABLES)})


def sent(text: str) -> tuple[Query, ...]:
    """Several statements in one text, each as a query of its own."""
    return tuple(Query(statement) for statement in split(text)) if text.strip() else ()


@dataclass
class _Compiler:
    session: Session
    number: int
    touches: Touches
    check: Access | None
    commits_inside: Set[str]
    units: list[Unit] = field(default_factory=list)
    in_block: bool = False
    begun: int = 0

    def program(self) -> Program:
        statements = self.session.statements
        for at, statement in enumerate(statements):
            does = _does(statement.read, self.commits_inside)
            if does is Does.BEGINS and not self.in_block:
                self.in_block, self.begun = True, len(self.units)
                self._add(does, at, statement)
                if at + 1 == len(statements) or not _sets_transaction(statements[at + 1].read):
                    self._local()
            elif self.in_block:
                if does is Does.COMMITS:
                    self._checks(at)
                self._add(Does.ACTS if does is Does.ALONE else does, at, statement)
                if _sets_transaction(statement.read):
                    self._local()
                self.in_block = does not in (Does.COMMITS, Does.ROLLS_BACK)
            else:
                self.begun = len(self.units)
                if does is Does.ACTS:
                    self._add(does, at, statement, before=sent(self.session.begin), own=True)
                    self._checks(at, own=True)
                    self._add_own(Does.COMMITS, COMMIT_QUERY, "commit", at=at, own=True)
                elif does is Does.ALONE:
                    for query in sent(self.session.outside):
                        self._add_own(Does.PREPARES, query, str(query.text))
                    self._add(does, at, statement)
                    for query in sent(self.session.after):
                        self._add_own(Does.PREPARES, query, str(query.text))
                else:  # SET for the session; COMMIT or SAVEPOINT without a transaction, which the server answers
                    self._add(Does.PREPARES, at, statement)
        s, before = self.session, len(self.units)
        if self.in_block:
            self._add_own(
                Does.ROLLS_BACK, ROLLBACK_QUERY, "its connection closes: what is open is rolled back", own=True
            )
        if s.leaves_locks:
            self.begun = len(self.units)
            label = "its connection closes: advisory locks are let go"
            self._add_own(Does.ALONE, UNLOCK_QUERY, label, Access(writes=frozenset({ADVISORY_LOCKS})))
        closing = len(self.units) - before
        return Program(
            tuple(self.units),
            s.retry,
            s.retry_session,
            s.retries,
            s.stop_on_error,
            _FORGET,
            s.leaves_settings,
            closing,
        )

    def _local(self) -> None:
        for query in sent(self.session.local):
            self._add_own(Does.PREPARES, query, str(query.text))

    def _checks(self, at: int, *, own: bool = False) -> None:
        if self.check is not None:
            self._add_own(Does.CHECKS, CHECK_QUERY, CHECK_LABEL, self.check, at, own=own)

    def _add(self, does: Does, at: int, statement: Statement, **more: Any) -> None:
        label = " ".join((statement.label or statement.read).split()) or "a statement made of earlier answers"
        access = NOTHING
        if does in (Does.ACTS, Does.ALONE):
            access = self.touches(statement.read) if statement.read else Access(unread=True)
        patience, capped = _patience(statement.text)
        self.units.append(
            Unit(
                does,
                Query(capped),
                (self.number, len(self.units)),
                label,
                access,
                at,
                restart=self.begun,
                line=statement.line,
                patience=patience,
                **more,
            )
        )

    def _add_own(
        self,
        does: Does,
        query: Query,
        label: str,
        access: Access = NOTHING,
        at: int | None = None,
        *,
        own: bool = False,
    ) -> None:
        key = (self.number, len(self.units))
        self.units.append(Unit(does, query, key, label, access, at, restart=self.begun, own=own))


_TRANSACTION = {
    TransactionStmtKind.TRANS_STMT_BEGIN: Does.BEGINS,
    TransactionStmtKind.TRANS_STMT_START: Does.BEGINS,
    TransactionStmtKind.TRANS_STMT_COMMIT: Does.COMMITS,
    TransactionStmtKind.TRANS_STMT_PREPARE: Does.COMMITS,
    TransactionStmtKind.TRANS_STMT_ROLLBACK: Does.ROLLS_BACK,
    TransactionStmtKind.TRANS_STMT_SAVEPOINT: Does.PREPARES,
    TransactionStmtKind.TRANS_STMT_RELEASE: Does.PREPARES,
    TransactionStmtKind.TRANS_STMT_ROLLBACK_TO: Does.GOES_BACK,
    TransactionStmtKind.TRANS_STMT_COMMIT_PREPARED: Does.ALONE,
    TransactionStmtKind.TRANS_STMT_ROLLBACK_PREPARED: Does.ALONE,
}
_QUIET = (ast.VariableSetStmt, ast.VariableShowStmt, ast.PrepareStmt, ast.DeallocateStmt, ast.ListenStmt)
_ALONE = (ast.CreatedbStmt, ast.DropdbStmt, ast.AlterSystemStmt, ast.DiscardStmt)


def _parsed(text: Text) -> Any:
    if not isinstance(text, str):
        return None
    try:
        statements = parse_sql(text)
    except ParseError:
        return None
    return statements[0].stmt if len(statements) == 1 else None


def ends_transactions(text: str, commits_inside: Set[str]) -> bool:
    """Whether a statement begins and ends transactions of its own, so that it can be in none."""
    return _does(text, commits_inside) is Does.ALONE


def _does(text: Text, commits_inside: Set[str]) -> Does:
    statement: Any = _parsed(text)
    kind = type(statement)
    if kind is ast.CallStmt:
        return Does.ALONE if statement.funccall.funcname[-1].sval in commits_inside else Does.ACTS
    if kind is ast.TransactionStmt:
        return _TRANSACTION[statement.kind]
    if isinstance(statement, _QUIET):
        return Does.PREPARES
    if isinstance(statement, ast.VacuumStmt):
        return Does.ALONE if statement.is_vacuumcmd else Does.ACTS
    return Does.ALONE if isinstance(statement, _ALONE) or getattr(statement, "concurrent", False) else Does.ACTS


_MOST_PATIENCE = "100ms"
"""As in turnstile.sql: which of the other sessions' steps the end of a wait falls between matters, not its length."""


def _patience(text: Text) -> tuple[Patience | None, Text]:
    """What a statement says of lock_timeout, and the statement with a short one."""
    statement = _parsed(text)
    if not (isinstance(statement, ast.VariableSetStmt) and (statement.name or "").lower() == "lock_timeout"):
        return None, text
    local = bool(statement.is_local)
    [value] = [getattr(constant, "val", None) for constant in statement.args or ()] or [None]
    spelt = str(getattr(value, "ival", None) or getattr(value, "sval", None) or "0")
    if not spelt.strip("0ms "):
        return Patience(local, ends=False), text
    return Patience(local, ends=True), f"SET {'LOCAL' if local else 'SESSION'} lock_timeout = '{_MOST_PATIENCE}'"


def _sets_transaction(text: Text) -> bool:
    statement = _parsed(text)
    return isinstance(statement, ast.VariableSetStmt) and (statement.name or "").lower() == "transaction"


def isolation_named(text: Text) -> bool:
    """Whether a statement may set an isolation level: the session's own is then not that of all its transactions."""
    return isinstance(text, str) and "isolation" in text.lower()
