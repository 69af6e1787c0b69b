"""Rewrites a function, and whatever it reaches, in one database: every statement that touches data gets a turnstile.

A function is replaced in place, so that triggers, callers, grants and its own identity stay; the database must be a
scratch copy. What a step touches includes what the functions and triggers called in it touch, and for a step inside
of such a function also what the statement around it touches, since that goes on after it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from harness.errors import UsageError
from harness.sqltext import plpgsql, queries
from harness.sqltext.access import NOTIFICATIONS, SEQUENCES, Access, ForeignKey, Touched, Written
from harness.sqltext.plpgsql import Found, UnsplittableError


@dataclass(frozen=True, slots=True)
class Step:
    """A statement before which a call waits for its turn."""

    number: int
    function: str
    """With its parameter types, as the server spells it."""
    line: int
    """Line within the function's body, counted as the server counts it in error contexts."""
    text: str
    access: Access
    guarded: bool
    """It is inside a block with an EXCEPTION clause."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What was rewritten: all steps, numbered from 0."""

    steps: tuple[Step, ...]
    start: Access
    """What a call touches before its first step: nothing, unless the function could not be split."""
    commit: Access
    """What a commit may touch beside ending the transaction: everything where a check is deferrable."""
    remarks: tuple[str, ...]
    """What is not a step of its own, and why."""


@dataclass(frozen=True, slots=True)
class _Function:
    oid: int
    name: str
    label: str
    language: str
    volatile: bool
    body: str
    definition: str
    touched: Touched


class _Catalogue:
    """What the database says of its functions, triggers and foreign keys."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.functions: dict[int, _Function] = {}
        self.named: dict[str, list[_Function]] = defaultdict(list)
        for row in raw["functions"]:
            body = plpgsql.body_of(row["definition"], row["body"])
            touched = plpgsql.touched_by(row["language"], row["definition"], body)
            if row["language"] in ("c", "internal"):
                touched = Touched()  # extensions' functions compute; those that do not are refused by name
            function = _Function(**{**row, "body": body}, touched=touched)
            self.functions[function.oid] = function
            self.named[function.name].append(function)
        self.triggers: dict[str, list[_Function]] = defaultdict(list)
        for table, oid in raw["triggers"]:
            if oid in self.functions:
                self.triggers[table].append(self.functions[oid])
        self.foreign_keys: dict[str, tuple[ForeignKey, ...]] = {}
        for table, columns, referenced, referenced_columns in raw["foreign_keys"]:
            key = ForeignKey(table, frozenset(columns), referenced, frozenset(referenced_columns))
            for end in {table, referenced}:
                self.foreign_keys[end] = (*self.foreign_keys.get(end, ()), key)
        self.deferred: bool = raw["deferred"]
        self.stand_ins: dict[str, set[str]] = defaultdict(set)
        for named, meant in raw["stand_ins"]:
            self.stand_ins[named].add(meant)
        self.touching = self._touching()

    def _touching(self) -> frozenset[str]:
        """Names of the functions that touch data, themselves or through others."""
        names: set[str] = set()
        while True:
            more = {f.name for f in self.functions.values() if f.touched.matters(names)}
            if more <= names:
                return frozenset(names)
            names |= more

    def called(self, touched: Touched) -> list[_Function]:
        """The functions and triggers that a text calls; every overload of a name."""
        functions = {f.oid: f for name in touched.calls for f in self.named.get(name, ())}
        for written in touched.written:
            if written.command != "lock":
                for table in self._meant({written.table}):
                    functions.update({f.oid: f for f in self.triggers.get(table, ())})
        return list(functions.values())

    def access(self, touched: Touched) -> Access:
        """What a text touches by itself, its foreign keys and what stands behind views included."""
        expanded = Touched(
            set(self._meant(touched.reads)),
            {Written(t, w.command, w.columns) for w in touched.written for t in self._meant({w.table})},
            everything=touched.everything,
        )
        return expanded.access(self.foreign_keys)

    def total(self, functions: Iterable[_Function]) -> Access:
        """What some functions touch, with all that they call."""
        total, seen, due = Access(), set(), list(functions)
        while due:
            function = due.pop()
            if function.oid not in seen:
                seen.add(function.oid)
                total |= self.access(function.touched)
                due += self.called(function.touched)
        return total

    def reached(self, target: _Function) -> list[_Function]:
        """The function and every function or trigger it may come to, as far as the texts say."""
        found: dict[int, _Function] = {}
        due = [target]
        while due:
            function = due.pop(0)
            if function.oid not in found:
                found[function.oid] = function
                due += self.called(function.touched)
        return list(found.values())

    def _meant(self, tables: Iterable[str]) -> Set[str]:
        found, due = set(), list(tables)
        while due:
            table = due.pop()
            if table not in found:
                found.add(table)
                due += self.stand_ins.get(table, ())
        return found


def rewrite(connection: psycopg.Connection[Any], oid: int, space: int) -> Rewritten:
    """Rewrite the function with an oid and what it reaches; `space` is the turnstile's advisory lock key space.

    Raises UsageError for a function whose concurrency cannot be controlled: one that ends its transaction itself, or
    acts through a connection of its own.
    """
    catalogue = _Catalogue(json.loads(_one(connection, queries.text("harness.schedules", "catalogue.sql"))))
    target = catalogue.functions[oid]
    reached = catalogue.reached(target)
    _refuse(reached)

    remarks: list[str] = []
    founds: list[tuple[_Function, Found]] = []
    replaced: list[str] = []
    whole = {target.oid}
    for function in reached:
        if not (function.name in catalogue.touching or function is target):
            continue
        if not function.volatile:
            remarks.append(f"{function.label} is not VOLATILE: it reads with its caller's snapshot")
            continue
        try:
            done = plpgsql.split(
                function.language,
                function.definition,
                function.body,
                first=len(founds),
                functions=catalogue.touching,
            )
        except UnsplittableError as reason:
            remarks.append(f"{function.label} is one step: {reason}")
            continue
        remarks += [f"{function.label} {remark}" for remark in done.remarks]
        founds += [(function, found) for found in done.steps]
        whole.discard(function.oid)
        if done.steps:
            head, _, tail = function.definition.rpartition(function.body)
            replaced.append(head + done.body + tail)

    connection.execute(sql.SQL(queries.text("harness.schedules", "turnstile.sql")).format(space=sql.Literal(space)))
    for definition in replaced:
        # Sent as it is: a % in a function is no placeholder.
        connection.execute(definition.encode())
    remarks += _remarks(reached)
    return Rewritten(
        _steps(catalogue, founds),
        _start(catalogue, target) if whole else Access(),
        Access(everything=catalogue.deferred),
        tuple(remarks),
    )


def _start(catalogue: _Catalogue, target: _Function) -> Access:
    """What a function that is one step touches."""
    known = target.language in ("plpgsql", "sql")
    return catalogue.total([target]) if known else Access(everything=True)


def _steps(catalogue: _Catalogue, founds: list[tuple[_Function, Found]]) -> tuple[Step, ...]:
    """Steps with all that they may touch, the calls inside them and the statements around them included."""
    own = [catalogue.access(f.touched) | catalogue.total(catalogue.called(f.touched)) for _, f in founds]
    around: dict[int, Access] = defaultdict(Access)
    while True:
        before = dict(around)
        for (function, found), access in zip(founds, own, strict=True):
            for called in catalogue.called(found.touched):
                around[called.oid] |= access | around[function.oid]
        if dict(around) == before:
            break
    return tuple(
        Step(number, function.label, found.line, found.text, access | around[function.oid], found.guarded)
        for number, ((function, found), access) in enumerate(zip(founds, own, strict=True))
    )


def _refuse(reached: list[_Function]) -> None:
    for function in reached:
        outside = sorted(name for name in function.touched.calls if name.startswith("dblink"))
        if outside:
            raise UsageError(
                f"{function.label} calls {outside[0]}: it acts through a connection of its own.",
                tried="exploring it: only statements on the call's own connection can be made to wait their turn",
                next_step="take the dblink call out of the copy that is explored, or race the function under load",
            )


def _remarks(reached: list[_Function]) -> list[str]:
    remarks = []
    for function in reached:
        written = {w.table for w in function.touched.written}
        if SEQUENCES in written:
            remarks.append(f"{function.label} uses a sequence, which no rollback sets back; taken as a write")
        if NOTIFICATIONS in written:
            remarks.append(f"{function.label} notifies or listens: when a notification is delivered is not explored")
        if any(name.startswith("pg_sleep") for name in function.touched.calls):
            remarks.append(f"{function.label} sleeps: the time passes within one step, and orders nothing")
    return remarks


def _one(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]
