"""From a log to a scenario: the sessions with their transactions, and rows as they must have been before them.

What a log does not say is what was answered, and what the tables held. What was there is inferred from what was asked
for: a row that a statement names by its key was there, unless the log shows how it came; it had the values that
conditions ask for, else any that fit its columns. All of it is tried on the server before it is written.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pglast
import psycopg
from pglast import ast
from pglast.enums import TransactionStmtKind
from pglast.parser import ParseError, scan
from pglast.visitors import Visitor

from harness.errors import UsageError
from harness.scenarios.anonymous import SAID, Anonymous
from harness.scenarios.logs import Log, Logged, LoggedSession
from harness.scenarios.rows import Rows
from harness.scenarios.scenario import MOST_SESSIONS
from harness.sqltext import queries

_MATTERS = re.compile(
    r"(default_)?transaction_|search_path$|role$|session_authorization$|row_security$|(lock|statement)_timeout$|request\."
    r"|session_replication_role$|\w+\."
)
"""Settings that change what later statements do; others are chatter."""

_HARMLESS = frozenset({
    "version", "current_schema", "current_schemas", "current_database", "current_user", "pg_is_in_recovery",
    "pg_backend_pid", "now", "inet_server_addr", "inet_client_addr", "current_setting", "pg_postmaster_start_time",
})  # fmt: skip
"""Functions that a client asks for its own sake."""

_CATALOGUES = ("pg_catalog", "information_schema")


@dataclass(slots=True)
class ScenarioStatement:
    """One statement of a session, as it will stand in the scenario."""

    text: str
    statement: Any
    """Parsed."""
    error: str = ""
    original: str = ""
    """With `$1`, where it had values of its own."""
    values: Mapping[int, str | None] = field(default_factory=dict)


@dataclass(slots=True)
class Person:
    """One session."""

    name: str
    logged: LoggedSession
    steps: list[ScenarioStatement]


def scenario_of(
    connection: psycopg.Connection[Any], log: Log, source: Path, *, anonymize: bool = False
) -> tuple[str, list[str]]:
    """The text of a scenario in which the log's sessions do what they did, and what was left out or is to be known.

    Raises UsageError where nothing is left to be tried, or too many sessions are.
    """
    notes: Counter[str] = Counter()
    hide = None
    if anonymize:
        own = queries.own("harness.scenarios", "starting.sql")
        words, zones = (connection.execute(own[each]).fetchall() for each in ("words", "time_zones"))
        hide = Anonymous((str(text) for (text,) in words if text), (str(zone) for (zone,) in zones))
    sessions = _of_one_database(log.sessions, notes)
    people = [Person("", each, list(_steps(each, notes, hide))) for each in sessions]
    people = [each for each in people if any(not _is_transaction(step.statement) for step in each.steps)]
    proposals = Rows(connection)
    people, before = _who_came_before(people)
    people = _who_meet(people, proposals, notes)
    if not people:
        raise UsageError(
            f"{source} holds no statement that touches a table or calls a function.",
            tried="; ".join(f"{what}: {count}" for what, count in notes.items()),
            next_step="give other --from and --to",
        )
    if len(people) > MOST_SESSIONS:
        raise UsageError(
            f"{len(people)} sessions of {source} meet, and a scenario has {MOST_SESSIONS} at most.",
            tried=f"from {log.first} to {log.last}",
            next_step="say with --from and --to when it happened",
        )
    for number, person in enumerate(people, 1):
        person.name = f"s{number}"
    with connection.transaction(force_rollback=True):
        for person in people:
            person.steps = [_typed(connection, step) for step in person.steps]
        earlier = [
            _typed(connection, step)
            for person in before
            for step in person.steps
            if not step.error and not _is_transaction(step.statement) and not isinstance(step.statement, ast.SelectStmt)
        ]
        # Those that came before are looked at first: what they put there need not be proposed.
        said = [*earlier, *(step for person in people for step in person.steps)]
        setup = proposals.setup([(step.statement, not step.error) for step in said])
        setup += proposals.tried([f"{step.text};" for step in earlier])
        refused = {id(step): error for p in people for step in p.steps if (error := _refused(connection, step))}
    told = [f"left out, {what}: {count}" for what, count in notes.items()]
    told += [f"of the log: {note}" for note in log.notes]
    if refused:
        told.append(
            f"statements that the server refuses: {len(refused)}; are these the migrations of the log's database?"
        )
    if hide is not None:
        told.append(SAID)
    if len(people) > 4:
        told.append(f"{len(people)} sessions: every order is tried of four at most, so say --from and --to if you can")
    return "\n".join(_lines(people, setup, refused, source, log, hide is not None)), told


def _lines(
    people: Sequence[Person],
    setup: Sequence[str],
    refused: Mapping[int, str],
    source: Path,
    log: Log,
    anonymous: bool,
) -> Iterator[str]:
    whole = [step for person in people for step in person.logged.statements]
    when = min((each.when for each in whole if each.when), default="")
    yield f"-- scenario: what {len(people)} sessions did{f' at {when[:19]}' if when else ''} is as one after another"
    yield ""
    yield f"--  From {'a log' if anonymous else source.name} ({log.kind})."
    yield ""
    yield "-- setup"
    if setup:
        yield "--  Rows as they must have been, as far as statements and tables tell: set right what you know better."
    yield from setup
    for person in people:
        yield ""
        yield f"-- session: {person.name}"
        first = next((each.when for each in person.logged.statements if each.when), "")
        if not anonymous:
            yield f"--  {' '.join(each for each in ('Session', person.logged.name, 'from', first) if each)}"
        for step in person.steps:
            if step.error:
                yield f"--  In the log this ended in: {'an error' if anonymous else ' '.join(step.error.split())[:200]}"
            if id(step) in refused:
                yield f"--  The server says of this: {refused[id(step)]}"
            yield f"{step.text};"
    yield ""


def _of_one_database(sessions: Sequence[LoggedSession], notes: Counter[str]) -> Sequence[LoggedSession]:
    """Those of the database in which most was done, where the log says in which."""
    times = Counter[str]()
    for each in sessions:
        times[each.database] += len(each.statements)
    [(database, _)] = times.most_common(1)
    kept = [each for each in sessions if each.database == database]
    if len(kept) < len(sessions):
        notes[f"sessions of other databases than {database or 'none'}"] += len(sessions) - len(kept)
    return kept


# -- what a session did


def _steps(session: LoggedSession, notes: Counter[str], hide: Anonymous | None) -> Iterator[ScenarioStatement]:
    """Its statements as they will stand there, chatter and empty transactions left out."""
    found: list[ScenarioStatement] = []
    logged_too = {_plain(logged.text).rstrip("; ") for logged in session.statements}
    for text in session.prepared:
        if _plain(text).rstrip("; ") in logged_too:
            continue
        found += _read(Logged("", text), notes, hide)
    for logged in session.statements:
        found += _read(logged, notes, hide)
    yield from _whole_transactions(found, notes)


def _read(logged: Logged, notes: Counter[str], hide: Anonymous | None) -> Iterator[ScenarioStatement]:
    text = _plain(logged.text)
    if not text:
        return
    try:
        parsed = pglast.parse_sql(text)
    except ParseError:
        notes["statements that are no SQL" if logged.error else "statements that cannot be read"] += 1
        return
    several = len(parsed) > 1 and not any(isinstance(each.stmt, ast.TransactionStmt) for each in parsed)
    if several:  # sent as one, they are one transaction
        yield ScenarioStatement("BEGIN", pglast.parse_sql("BEGIN")[0].stmt)
    for at, each in enumerate(parsed):
        if why := _chatter(each.stmt):
            notes[why] += 1
            continue
        start = each.stmt_location or 0  # in characters
        end = start + each.stmt_len if each.stmt_len else len(text)
        piece = text[start:end].strip().rstrip(";").strip()
        error = logged.error if at == len(parsed) - 1 else ""
        yield from _filled(piece, each.stmt, logged.values, error, notes, hide)
    if several:
        yield ScenarioStatement("COMMIT", pglast.parse_sql("COMMIT")[0].stmt)


def _filled(
    text: str, statement: Any, values: Mapping[int, str | None], error: str, notes: Counter[str], hide: Anonymous | None
) -> Iterator[ScenarioStatement]:
    """The step with its values in place of `$1`; nothing where they are not known."""
    if hide is not None:
        text = hide.statement(text)
        values = {number: None if value is None else hide.text(value) for number, value in values.items()}
    numbers = _numbers(text)
    if isinstance(statement, ast.PrepareStmt):
        numbers = set()
    if missing := numbers - values.keys():
        notes[f"statements whose value ${min(missing)} the log does not have"] += 1
        return
    original = text if numbers else ""
    if numbers:
        text = with_values(text, {number: _literal(values[number]) for number in numbers})
    try:
        [parsed] = pglast.parse_sql(text)
    except (ParseError, ValueError):
        notes["statements that cannot be read"] += 1
        return
    yield ScenarioStatement(text, parsed.stmt, error, original, values)


def _plain(text: str) -> str:
    """The text without comments, which may look like headings, or say more than they should."""
    try:
        tokens = scan(text)
    except ParseError:
        return text.strip()
    pieces, at = [], 0
    for token in tokens:
        if token.name in ("SQL_COMMENT", "C_COMMENT"):
            pieces.append(text[at : token.start])
            at = token.end + 1
    return "".join([*pieces, text[at:]]).strip()


def _numbers(text: str) -> set[int]:
    return {int(text[t.start + 1 : t.end + 1]) for t in scan(text) if t.name == "PARAM"}


def with_values(text: str, values: Mapping[int, str]) -> str:
    """The text with values in place of `$1`, `$2`, ..."""
    pieces, at = [], 0
    for token in scan(text):
        if token.name == "PARAM":
            pieces += [text[at : token.start], values[int(text[token.start + 1 : token.end + 1])]]
            at = token.end + 1
    return "".join([*pieces, text[at:]])


def _literal(value: str | None) -> str:
    if value is None:
        return "NULL"
    escaped = value.replace("'", "''")
    return f" E'{escaped}'".replace("\\", "\\\\") if "\\" in value else f"'{escaped}'"


def _is_transaction(statement: Any) -> bool:
    return isinstance(statement, (ast.TransactionStmt, ast.VariableSetStmt))


_OPENING = (TransactionStmtKind.TRANS_STMT_BEGIN, TransactionStmtKind.TRANS_STMT_START)
_CLOSING = (TransactionStmtKind.TRANS_STMT_COMMIT, TransactionStmtKind.TRANS_STMT_ROLLBACK)
_PREPARED = (
    TransactionStmtKind.TRANS_STMT_PREPARE,
    TransactionStmtKind.TRANS_STMT_COMMIT_PREPARED,
    TransactionStmtKind.TRANS_STMT_ROLLBACK_PREPARED,
)


def _whole_transactions(steps: Sequence[ScenarioStatement], notes: Counter[str]) -> Iterator[ScenarioStatement]:
    """Transactions in which something is left; one whose beginning or end the log has not is made whole."""
    block: list[ScenarioStatement] | None = None
    ends = next((_kind(step) in _CLOSING for step in steps if _kind(step) in (*_OPENING, *_CLOSING)), False)
    if ends:
        notes["the beginning of a transaction, which was before: a BEGIN stands for it"] += 1
        steps = [ScenarioStatement("BEGIN", pglast.parse_sql("BEGIN")[0].stmt), *steps]
    blocks: list[list[ScenarioStatement]] = []
    for step in steps:
        kind = _kind(step)
        if kind in _OPENING:
            block = [step]
            blocks.append(block)
        elif block is None and kind in _CLOSING:
            continue
        elif block is None:
            blocks.append([step])
        else:
            block.append(step)
            block = None if kind in _CLOSING else block
    if block is not None:
        notes["the end of a transaction, which is not in the log: a COMMIT stands for it"] += 1
        block.append(ScenarioStatement("COMMIT", pglast.parse_sql("COMMIT")[0].stmt))
    blocks = [block for block in blocks if len(block) == 1 or any(not _is_transaction(s.statement) for s in block)]
    for block, following in zip(blocks, [*blocks[1:], []], strict=False):
        failed = next((at for at, each in enumerate(block) if each.error), None)
        at_commit = failed == len(block) - 1 and _kind(block[-1]) == TransactionStmtKind.TRANS_STMT_COMMIT
        if failed is None or (not at_commit and _kind(block[-1]) != TransactionStmtKind.TRANS_STMT_ROLLBACK):
            yield from block
        elif _alike(following[: failed + 1], block[: failed + 1]):
            notes["transactions that failed and were made again: the last try stands for all"] += 1
        elif at_commit:
            yield from block
        else:
            notes["a ROLLBACK after an error, without which there had been none: a COMMIT stands for it"] += 1
            yield from (*block[:-1], ScenarioStatement("COMMIT", pglast.parse_sql("COMMIT")[0].stmt))


def _alike(some: Sequence[ScenarioStatement], others: Sequence[ScenarioStatement]) -> bool:
    """Whether these are the same statements, whatever values they have: what was read may have been another."""
    return [pglast.fingerprint(each.text) for each in some] == [pglast.fingerprint(each.text) for each in others]


def _kind(step: ScenarioStatement) -> Any:
    return step.statement.kind if isinstance(step.statement, ast.TransactionStmt) else None


def _chatter(statement: Any) -> str:
    """Why a statement is no part of what happened; empty where it is."""
    match statement:
        case ast.VariableSetStmt():
            name = str(statement.name or "transaction_")
            return "" if _MATTERS.match(name.lower()) else "settings of the client's (SET, RESET)"
        case ast.VariableShowStmt():
            return "what a client asks for its own sake (SHOW, version(), SELECT 1)"
        case ast.DiscardStmt() | ast.DeallocateStmt():
            return "DISCARD and DEALLOCATE"
        case _ if type(statement).__name__.startswith(
            ("Create", "Alter", "Drop", "Grant", "Define", "Comment", "View")
        ):
            return "definitions (CREATE, ALTER, DROP, GRANT), which are the migrations'"
        case ast.IndexStmt() | ast.RenameStmt() | ast.RuleStmt() | ast.CompositeTypeStmt():
            return "definitions (CREATE, ALTER, DROP, GRANT), which are the migrations'"
        case ast.ListenStmt() | ast.UnlistenStmt() | ast.CheckPointStmt() | ast.VacuumStmt() | ast.ExplainStmt():
            return "LISTEN, EXPLAIN, ANALYZE and their like"
        case ast.CopyStmt() if statement.filename is None:
            return "COPY from or to the client, whose rows are not in the log"
        case ast.TransactionStmt() if statement.kind in _PREPARED:
            return "prepared transactions, which a scenario cannot have"
        case ast.SelectStmt():
            return _asks_for_itself(statement)
    return ""


def _asks_for_itself(query: Any) -> str:
    named = Named(query)
    if named.tables:
        if all(schema in _CATALOGUES or (not schema and name.startswith("pg_")) for schema, name in named.tables):
            return "queries of the catalogue"
        return ""
    if "set_config" in named.functions:
        matters = [v for v in named.texts if _MATTERS.match(v.lower())]
        return "" if matters else "settings of the client's (SET, RESET)"
    if named.functions <= _HARMLESS and not query.valuesLists:
        return "what a client asks for its own sake (SHOW, version(), SELECT 1)"
    return ""


class Named(Visitor):
    """Tables, written tables and functions that a statement names."""

    def __init__(self, statement: Any) -> None:
        self.tables: set[tuple[str, str]] = set()
        self.written: set[tuple[str, str]] = set()
        self.functions: set[str] = set()
        self.texts: list[str] = []
        self._with: set[str] = set()
        if isinstance(statement, (ast.InsertStmt, ast.UpdateStmt, ast.DeleteStmt, ast.MergeStmt)):
            self._write(statement)
        self(statement)
        self.tables = {each for each in self.tables if each[0] or each[1] not in self._with}

    def _write(self, statement: Any) -> None:
        self.written.add((statement.relation.schemaname or "", statement.relation.relname))

    def visit(self, ancestors: Any, node: Any) -> None:
        """Keep what a node names."""
        match node:
            case ast.RangeVar():
                self.tables.add((node.schemaname or "", str(node.relname)))
            case ast.CommonTableExpr():
                self._with.add(str(node.ctename))
            case ast.FuncCall():
                name: Any = (node.funcname or ())[-1]
                self.functions.add(str(name.sval))
            case ast.String():
                self.texts.append(str(node.sval))
            case ast.InsertStmt() | ast.UpdateStmt() | ast.DeleteStmt() | ast.MergeStmt():
                self._write(node)


def _who_came_before(people: list[Person]) -> tuple[list[Person], list[Person]]:
    """Those that met, and those that had ended when the first of the others began: what they did was there already."""
    times = {id(each): [one.when for one in each.logged.statements if one.when] for each in people}
    if not all(times.values()):
        return people, []
    by_time = sorted(people, key=lambda each: times[id(each)][0])
    before = 0
    while before < len(by_time) - 2 and times[id(by_time[before])][-1] < times[id(by_time[before + 1])][0]:
        before += 1
    return by_time[before:], by_time[:before]


def _who_meet(people: list[Person], rows: Rows, notes: Counter[str]) -> list[Person]:
    """Those who touch what somebody else touches, too, where one of them writes; all, where there is nobody."""
    touched: list[set[tuple[str, str]]] = []
    written: set[tuple[str, str]] = set()
    calls: list[bool] = []
    for person in people:
        named = [Named(step.statement) for step in person.steps]
        touched.append({rows.table(t) for each in named for t in each.tables})
        written |= {rows.table(t) for each in named for t in each.written}
        calls.append(any(each.functions & rows.functions for each in named))
    times = Counter(table for each in touched for table in each)
    shared = {table for table in written if times[table] > 1}
    kept = [person for person, tables, called in zip(people, touched, calls, strict=True) if called or tables & shared]
    if len(kept) < 2 or len(kept) == len(people):
        return people
    notes["sessions that touch nothing that others change"] += len(people) - len(kept)
    return kept


# -- what the server says


def _typed(connection: psycopg.Connection[Any], step: ScenarioStatement) -> ScenarioStatement:
    """The step with the types of its values written down, where the server cannot tell them without."""
    if not step.original or _refused(connection, step) == "":
        return step
    try:
        with connection.transaction():
            connection.pgconn.prepare(b"", step.original.encode())
            found = connection.pgconn.describe_prepared(b"")
            types = [found.param_type(at) for at in range(found.nparams)]
            row = connection.execute("SELECT ARRAY(SELECT format_type(t, NULL) FROM unnest(%s::oid[]) AS t)", [types])
            names: list[str] = (row.fetchone() or ([],))[0]
    except psycopg.Error:
        return step
    literals = {
        number: _literal(value) + (f"::{names[number - 1]}" if number <= len(names) else "")
        for number, value in step.values.items()
    }
    text = with_values(step.original, literals)
    return replace(step, text=text, statement=pglast.parse_sql(text)[0].stmt)


def _refused(connection: psycopg.Connection[Any], step: ScenarioStatement) -> str:
    """What the server says of a statement that it cannot even prepare; empty where it can."""
    if not isinstance(
        step.statement, (ast.SelectStmt, ast.InsertStmt, ast.UpdateStmt, ast.DeleteStmt, ast.MergeStmt, ast.CallStmt)
    ):
        return ""
    try:
        with connection.transaction(force_rollback=True):
            result = connection.pgconn.prepare(b"", step.text.encode())
            if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
                raise psycopg.errors.error_from_result(result)
    except psycopg.Error as error:
        return f"{error.diag.message_primary or error} (SQLSTATE {error.sqlstate})"
    return ""
