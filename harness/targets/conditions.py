"""What answers mean where a file says so in SQL: the distinct ones are put to the server when the load is over.

Never a call at a time, and never while calls are in flight: an answer is kept as it came until then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from harness.contracts.contract import (
    BROKEN_ANSWER,
    FAILED,
    IN_DOUBT,
    Answered,
    Contract,
    Effect,
    Outcome,
    hashable,
)
from harness.contracts.declared import Load, Rule
from harness.environment import own
from harness.errors import HarnessError, UsageError
from harness.history import Log
from harness.sqltext import queries
from harness.targets.description import describe
from harness.targets.state import TIME_LIMIT, Connect
from harness.targets.values import JSON_TYPES, JsonText, json_text

_AT_ONCE = 500
"""Answers in one query."""

_LONGEST = 2**20
"""Characters in one query, about: its text is put together, quoted and parsed several times over."""

_UNREAD = "unread"
"""Code of a call whose answer came, and could not be put to the server any more."""

_SHOWN = 200
"""Characters shown of a value that no condition can read."""

_SQL = queries.own("harness.targets")

Row = Mapping[str, Any]


def check(connection: psycopg.Connection[Any], contract: Contract) -> dict[str, str]:
    """The types of the columns that decide what an answer means, by name; every condition is parsed against them.

    Raises UsageError, with the line, for a condition that names a column which no answer has, or that is no condition.
    """
    load = contract.declared
    if load is None:
        return {}
    found: dict[str, str] = {}
    for each in dict.fromkeys(call.function for call in load.calls):
        description = describe(connection, contract, each)
        found |= {c.name: c.kind.name for c in (*description.labels, *description.evidence)}
    for rule in load.rules:
        if unknown := sorted(rule.columns - found.keys()):
            raise UsageError(
                f"{load.place(rule.line)}: no answer has the column {unknown[0]!r}.",
                tried=f"columns of the answers: {', '.join(found) or 'none'}",
                next_step="name one of them, or give the call's answer that column",
            )
    types = {name: found[name] for rule in load.rules for name in sorted(rule.columns)}
    for rule in load.rules:
        if rule.sql:
            _check_rule(connection, load, rule, types)
    return types


def _check_rule(connection: psycopg.Connection[Any], load: Load, rule: Rule, types: Mapping[str, str]) -> None:
    nothing = dict.fromkeys(sorted(rule.columns))
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(_query([rule], [nothing], types).as_bytes(connection), prepare=False)
    except psycopg.Error as error:
        if own.is_loss(error):
            raise
        raise _wrong(load, rule, error) from error


def settle(logs: Sequence[Log], contract: Contract, connect: Connect | None) -> None:
    """Put every distinct answer of a load to the server, and its outcome in the answer's place.

    Where the server is gone, they stay in doubt. Raises UsageError for a condition that is wrong.
    """
    if contract.declared is None:
        return
    answers = list({id(o): o for log in logs for o in log.outcomes if type(o) is Answered}.values())
    if not answers:
        return
    outcomes: dict[int, Outcome] = {}
    try:
        if connect is None:
            raise HarnessError("There is no database to ask.")
        with connect() as connection:
            read = _reader(connection, contract)
            outcomes = dict(zip(map(id, answers), read([a.row for a in answers]), strict=True))
    except (psycopg.OperationalError, HarnessError) as error:
        if isinstance(error, UsageError):
            raise
        why = f"came, and could not be read: {' '.join(str(error).split())}"
        outcomes = dict.fromkeys(map(id, answers), Outcome(IN_DOUBT, Effect.IN_DOUBT, _UNREAD, why))
    for log in logs:
        log.outcomes[:] = [outcomes.get(id(outcome), outcome) for outcome in log.outcomes]


def at_once(contract: Contract, connect: Connect) -> Contract:
    """The contract with each new answer read as it comes: for calls that are carried out one by one."""
    load = contract.declared
    if load is None:
        return contract
    with connect() as connection:
        types = check(connection, contract)
    known: dict[Hashable, Outcome] = {}

    def ask(row: Row) -> Outcome:
        key = _key(row)
        if key not in known:
            with connect() as connection:
                [known[key]] = _outcomes(connection, load, types, [row])
        return known[key]

    return replace(contract, declared=replace(load, ask=ask))


def _reader(connection: psycopg.Connection[Any], contract: Contract) -> Callable[[Sequence[Row]], Iterator[Outcome]]:
    load = contract.declared
    assert load is not None
    types = check(connection, contract)
    connection.execute("SET default_transaction_read_only = on")
    connection.execute(f"SET statement_timeout = {math.ceil(TIME_LIMIT * 1000)}".encode())

    def read(rows: Sequence[Row]) -> Iterator[Outcome]:
        # Each connection has met most of the answers: they are asked once.
        distinct = {_key(row): row for row in rows}
        by_columns: dict[tuple[str, ...], list[tuple[Hashable, Row]]] = {}
        for key, row in distinct.items():
            by_columns.setdefault(tuple(row), []).append((key, row))
        known: dict[Hashable, Outcome] = {}
        for alike in by_columns.values():
            for some in _together(alike):
                found = _outcomes(connection, load, types, [row for _, row in some])
                known |= zip((key for key, _ in some), found, strict=True)
        return (known[_key(row)] for row in rows)

    return read


def _together(alike: Sequence[tuple[Hashable, Row]]) -> Iterator[Sequence[tuple[Hashable, Row]]]:
    """As many answers as one query takes: some hundred, of long ones fewer."""
    some: list[tuple[Hashable, Row]] = []
    size = 0
    for key, row in alike:
        if some and (len(some) == _AT_ONCE or size > _LONGEST):
            yield some
            some, size = [], 0
        some.append((key, row))
        size += sum(len(value) for value in row.values() if isinstance(value, str))
    if some:
        yield some


def _key(row: Row) -> Hashable:
    return tuple((name, type(value), hashable(value)) for name, value in row.items())


def _outcomes(
    connection: psycopg.Connection[Any], load: Load, types: Mapping[str, str], rows: Sequence[Row]
) -> list[Outcome]:
    """The outcomes of answers that have the same columns."""
    rules = [rule for rule in load.rules if rule.sql and rule.columns <= rows[0].keys()]
    try:
        with connection.transaction():
            query = _query(rules, rows, types).as_bytes(connection)
            found = connection.execute(query, prepare=False).fetchall()
    except (psycopg.DataError, psycopg.errors.RaiseException) as error:
        if len(rows) > 1:
            return [each for row in rows for each in _outcomes(connection, load, types, [row])]
        return [_failed(f"no condition can be evaluated of this answer: {_said(error)}", rows[0])]
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise UsageError(f"{load.path}: a condition cannot be evaluated.", tried=_said(error)) from error
    return [_outcome(rules, matching, row) for matching, row in zip(found, rows, strict=True)]


def _outcome(rules: Sequence[Rule], matching: Sequence[Any], row: Row) -> Outcome:
    true = [rule for rule, holds in zip(rules, matching[1:], strict=True) if holds]
    labels = dict.fromkeys(rule.label for rule in true)
    if not labels:
        return _failed("no line of the file says what this answer means", row)
    if len(labels) > 1:
        lines = " and ".join(f"{rule.label} (line {rule.line})" for rule in true)
        return _failed(f"{len(labels)} lines claim this answer, {lines}", row)
    [label] = labels
    return Outcome(label, Effect.APPLIED if true[0].kind == "applied" else Effect.REFUSED)


def _failed(why: str, row: Row) -> Outcome:
    shown = ", ".join(f"{n}={'NULL' if value is None else _cut(str(value))}" for n, value in row.items()) or "no column"
    return Outcome(FAILED, Effect.FAILED, BROKEN_ANSWER, f"{why}: {shown}")


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


def _query(rules: Sequence[Rule], rows: Sequence[Row], types: Mapping[str, str]) -> sql.Composed:
    """For each row its place, and whether each condition is true of it."""
    names = [name for name in rows[0] if name in types]
    values = [
        sql.SQL("({})").format(sql.SQL(", ").join([sql.Literal(at), *(_value(row[n], types[n]) for n in names)]))
        for at, row in enumerate(rows)
    ]
    return sql.SQL(_SQL["conditions"]).format(
        conditions=sql.SQL("").join(sql.SQL(", (\n{}\n) IS TRUE").format(sql.SQL(rule.sql)) for rule in rules),
        rows=sql.SQL(", ").join(values),
        names=sql.SQL("").join(sql.SQL(", ") + sql.Identifier(name) for name in names),
    )


def _value(value: Any, kind: str) -> sql.Composable:
    if kind in JSON_TYPES and value is not None and not isinstance(value, JsonText):
        value = json_text(value)
    literal = sql.Literal(value)
    return literal + sql.SQL("::text" if kind in ("record", "void") else f"::{kind}")


def _said(error: psycopg.Error) -> str:
    return f"{error.diag.message_primary or ' '.join(str(error).split())} (SQLSTATE {error.sqlstate})"


def _wrong(load: Load, rule: Rule, error: psycopg.Error) -> UsageError:
    return UsageError(
        f"{load.place(rule.line)}: the condition of `{rule.kind}:` cannot be evaluated.",
        tried=f"{rule.text}: {_said(error)}",
        next_step="write SQL over the answer's columns that is true or false",
    )
