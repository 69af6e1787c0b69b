"""Invariants: queries on the database after a run, each of which returns the rows that violate it.

A file holds one or more queries. The comment above a query may name it and say what it claims::

    -- name: no_negative_stock
    -- claim: Stock never goes below zero.
    SELECT * FROM items WHERE stock < 0;

Without a name, the file's name and the query's place in it are taken.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.rows import dict_row

from harness.contracts.contract import Operation
from harness.environment import migrations
from harness.errors import HarnessError
from harness.sqltext import queries
from harness.verdict.findings import SHOWN, Finding, Truth

_OPERATIONS = queries.text("harness.verdict", "operations.sql").encode()

_LINES_AT_ONCE = 1000

_ENCODE = json.JSONEncoder(default=str).encode

_PLAIN = frozenset({UUID, datetime})
"""Types whose text needs no escaping: most of what a call answers, and the encoder takes thrice as long."""

_TIME_LIMIT = 60.0
"""Seconds for one query."""

_UNANSWERED = (psycopg.OperationalError, psycopg.DataError)

Connect = Callable[[], psycopg.Connection[Any]]


@dataclass(frozen=True, slots=True)
class Invariant:
    """One query and the claim it puts to the test."""

    name: str
    claim: str
    query: str
    path: Path
    line: int


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
                    f"{invariant.path}:{invariant.line}: the invariant {invariant.name!r} is no query.",
                    tried=invariant.query,
                    next_step="write a SELECT that returns the rows that violate it",
                )


def ask(
    invariants: Sequence[Invariant], operations: Sequence[Operation], connect: Connect
) -> Callable[[], list[Finding]]:
    """Load the operations into `harness.operations` and put every query to the server.

    It answers on a thread, while the operations are judged here. Calling what is given back waits for one finding each;
    a database that cannot be asked any more makes them undecided, and a query that takes too long itself. That call
    raises HarnessError for a query that fails.
    """
    try:
        connection = _loaded(operations, connect)
    except HarnessError as error:
        return partial(_undecided, invariants, error.tried or error.what)
    except _UNANSWERED as error:
        return partial(_undecided, invariants, str(error))
    answers = Future[list[Finding]]()

    def answer() -> None:
        try:
            with connection:
                connection.execute("ANALYZE harness.operations (key, label)")
                connection.execute("SET default_transaction_read_only = on")  # to judge is not to change
                connection.execute(f"SET statement_timeout = {math.ceil(_TIME_LIMIT * 1000)}".encode())
                found = [_judged(connection, invariant) for invariant in invariants]
        except _UNANSWERED as error:
            found = _undecided(invariants, str(error))
        except BaseException as error:
            answers.set_exception(error)
            return
        answers.set_result(found)

    threading.Thread(target=answer, name="invariants", daemon=True).start()
    return answers.result


def _loaded(operations: Sequence[Operation], connect: Connect) -> psycopg.Connection[Any]:
    """A connection to the database, which has the operations now."""
    connection = connect()
    try:
        connection.execute(_OPERATIONS)
        with connection.cursor().copy("COPY harness.operations FROM STDIN") as copy:
            lines = _lines(operations)
            while block := "".join(islice(lines, _LINES_AT_ONCE)):
                copy.write(block)
    except BaseException:
        connection.close()
        raise
    return connection


def _lines(operations: Sequence[Operation]) -> Iterator[str]:
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


def _judged(connection: psycopg.Connection[Any], invariant: Invariant) -> Finding:
    name = f"invariant.{invariant.name}"
    try:
        with _explained(invariant), connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(invariant.query.encode(), prepare=False).fetchall()
    except psycopg.errors.QueryCanceled:
        return Finding(
            name,
            invariant.claim,
            Truth.UNDECIDED,
            f"no answer within {_TIME_LIMIT:g} s",
            "0 rows",
            remedy=f"See what the query at {invariant.path}:{invariant.line} waits for, or let it read less.",
        )
    if not rows:
        return Finding(name, invariant.claim, Truth.HELD, "0 rows violate it", "0 rows")
    evidence = tuple({n: None if v is None else str(v) for n, v in row.items()} for row in rows[:SHOWN])
    return Finding(
        name,
        invariant.claim,
        Truth.BROKEN,
        f"{len(rows)} rows violate it",
        "0 rows",
        evidence,
        f"The rows are those of the query at {invariant.path}:{invariant.line}; look at who writes these tables.",
    )


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
            next_step="let the seed create views with these names and columns, or give a --contract of your own"
            if missing
            else "mend the query",
        ) from error


def _undecided(invariants: Sequence[Invariant], reason: str) -> list[Finding]:
    reason = f"the database could not be asked: {' '.join(reason.split())}"
    return [Finding(f"invariant.{i.name}", i.claim, Truth.UNDECIDED, reason, "0 rows") for i in invariants]
