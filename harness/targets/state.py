"""The state that a run leaves: its calls are stored beside it, and the invariants' queries are put to the database."""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime
from functools import cache, partial
from itertools import islice
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.rows import dict_row

from harness.contracts.contract import Operation
from harness.contracts.invariants import Invariant, Violations
from harness.errors import HarnessError
from harness.sqltext import queries

_OPERATIONS = queries.text("harness.targets", "operations.sql").encode()

_SQL = queries.own("harness.targets")

_COPY = "COPY harness.operations FROM STDIN"
"""Here and not in queries.sql, where a reader of SQL takes what follows it for the data."""

_LINES_AT_ONCE = 1000

_KEPT = 5
"""Violating rows kept of one invariant; the count is always whole."""

_ENCODE = json.JSONEncoder(default=str).encode

_PLAIN = frozenset({UUID, datetime})
"""Types whose text needs no escaping: most of what a call answers, and the encoder takes thrice as long."""

TIME_LIMIT = 60.0
"""Seconds for one query."""

_UNANSWERED = (psycopg.OperationalError, psycopg.DataError)

Connect = Callable[[], psycopg.Connection[Any]]


def check(invariants: Sequence[Invariant], connection: psycopg.Connection[Any]) -> None:
    """Have the server parse every query, before a run is spent on it. Raises HarnessError for an error in one."""
    with connection.transaction(force_rollback=True):
        connection.execute(_OPERATIONS)
        for invariant in invariants:
            with _explained(invariant):
                # Prepared and not carried out: parsed, its names looked up, its columns known.
                result = connection.pgconn.prepare(b"", invariant.query.encode())
                if result.status != ExecStatus.COMMAND_OK:
                    raise error_from_result(result)
            found = connection.pgconn.describe_prepared(b"")
            if found.nparams or not found.nfields:
                raise HarnessError(
                    f"{invariant.path}:{invariant.line}: the invariant {invariant.name!r} is not a query.",
                    tried=invariant.query,
                    next_step="write a SELECT that returns the rows that violate it",
                )


def ask(
    invariants: Sequence[Invariant], operations: Iterable[Operation] | None, connect: Connect
) -> Callable[[], list[Violations]]:
    """Load the operations into `harness.operations` and put every query to the server; None: they are there.

    It answers on a thread, while the operations are judged here. Calling what is given back waits for what became of
    each: a database that cannot be asked any more leaves them unanswered, and a query that takes too long itself. That
    call raises HarnessError for a query that fails.
    """
    if not invariants:
        return list
    try:
        connection = connect() if operations is None else _loaded(operations, connect)
    except HarnessError as error:
        return partial(_unanswered, invariants, error.tried or error.what)
    except _UNANSWERED as error:
        return partial(_unanswered, invariants, str(error))
    answers = Future[list[Violations]]()

    def answer() -> None:
        try:
            with connection:
                connection.execute(_SQL["analyze_operations"])
                connection.execute("SET default_transaction_read_only = on")  # to judge is not to change
                connection.execute(f"SET statement_timeout = {math.ceil(TIME_LIMIT * 1000)}".encode())
                found = [_asked(connection, invariant) for invariant in invariants]
        except _UNANSWERED as error:
            found = _unanswered(invariants, str(error))
        except BaseException as error:
            answers.set_exception(error)
            return
        answers.set_result(found)

    threading.Thread(target=answer, name="invariants", daemon=True).start()
    return answers.result


def made(connection: psycopg.Connection[Any]) -> None:
    """Make `harness.operations` anew, without a row."""
    connection.execute("DROP TABLE IF EXISTS harness.operations")
    connection.execute(_OPERATIONS)


def add(operations: Iterable[Operation], connection: psycopg.Connection[Any]) -> None:
    """Load some more into `harness.operations`."""
    with connection.cursor().copy(_COPY) as copy:
        lines = _lines(operations)
        while block := "".join(islice(lines, _LINES_AT_ONCE)):
            copy.write(block)


def violating(invariant: Invariant, connect: Connect) -> Counter[str]:
    """Every row that violates an invariant, as JSON, with how often it is there. Raises HarnessError as `ask` does."""
    with connect() as connection, _explained(invariant):
        query = sql.SQL("SELECT to_jsonb(violating)::text FROM ({}\n) AS violating")
        rows = connection.execute(query.format(sql.SQL(invariant.query.rstrip().rstrip(";"))), prepare=False)
        return Counter(str(row[0]) for row in rows)


def _loaded(operations: Iterable[Operation], connect: Connect) -> psycopg.Connection[Any]:
    """A connection to the database, which has the operations now."""
    connection = connect()
    try:
        connection.execute(_OPERATIONS)
        add(operations, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _lines(operations: Iterable[Operation]) -> Iterator[str]:
    """The operations in COPY's text format (manual, "COPY", "File Formats").

    Written here, and not by the driver's row by row: a long run has a million of them.
    """
    # Clients share their arguments and outcomes between calls: one text for each.
    arguments: dict[int, str] = {}
    outcomes: dict[int, str] = {}
    for number, client, key, asked, _, _, _, outcome, answer, phase, _, rolled_back, _ in operations:
        given = arguments.get(id(asked))
        if given is None:
            given = arguments[id(asked)] = _json(asked)
        came = outcomes.get(id(outcome))
        if came is None:
            fields = (outcome.label, outcome.effect.value, outcome.code)
            came = outcomes[id(outcome)] = "\t".join("\\N" if f is None else _escaped(f) for f in fields)
        name = str(key) if type(key) in _PLAIN else _escaped(str(key))
        undone = "t" if rolled_back else "f"
        yield f"{number}\t{client}\t{phase}\t{name}\t{came}\t{given}\t{_json(answer)}\t{undone}\n"


def _json(values: Mapping[str, Any]) -> str:
    return f"{{{', '.join([_name(name) + _encoded(value) for name, value in values.items()])}}}"


@cache
def _name(name: str) -> str:
    return f"{_encoded(name)}: "


def _encoded(value: Any) -> str:
    if type(value) in _PLAIN:
        return f'"{value}"'
    return "null" if value is None else _escaped(_ENCODE(value))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _asked(connection: psycopg.Connection[Any], invariant: Invariant) -> Violations:
    try:
        with _explained(invariant), connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(invariant.query.encode(), prepare=False).fetchall()
    except psycopg.errors.QueryCanceled:
        return Violations(waited=TIME_LIMIT)
    kept = tuple({name: None if v is None else str(v) for name, v in row.items()} for row in rows[:_KEPT])
    return Violations(kept, len(rows))


@contextmanager
def _explained(invariant: Invariant) -> Iterator[None]:
    """Errors of the server in an invariant's query say where it stands and what to do."""
    try:
        yield
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        missing = isinstance(error, (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn))
        raise HarnessError(
            f"{invariant.path}:{invariant.line}: the invariant {invariant.name!r} cannot be asked "
            f"(SQLSTATE {error.sqlstate}).",
            tried=str(error).strip(),
            next_step="where yours are called otherwise, say so with --contract-option NAME=VALUE (docs/calls.md "
            "has the names that the shipped contract needs), or give a --contract of your own"
            if missing
            else "mend the query",
        ) from error


def _unanswered(invariants: Sequence[Invariant], reason: str) -> list[Violations]:
    return [Violations(unanswered=" ".join(reason.split()))] * len(invariants)
