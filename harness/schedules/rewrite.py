"""Rewrites a function, and whatever it reaches, in one database: every statement that touches data gets a turnstile.

A function is replaced in place, so that triggers, callers, grants and its own identity stay; the database must be a
scratch copy. What a step touches includes what the functions and triggers called in it touch, and for a step inside
of such a function also what the statement around it touches, since that goes on after it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import psycopg
from psycopg import sql

from harness.errors import UsageError
from harness.schedules.measure import Relation
from harness.sqltext import access as access_by_text
from harness.sqltext import plpgsql, queries
from harness.sqltext.access import (
    ADVISORY_LOCKS,
    ANYWHERE,
    NOTIFICATIONS,
    SEQUENCES,
    Access,
    ForeignKey,
    Touched,
    Written,
)
from harness.sqltext.plpgsql import Found
from harness.sqltext.walk import UnsplittableError


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
    ends: bool = False
    """It ends the transaction, in a procedure."""
    final: bool = False
    """It is the end of a procedure, which ends the transaction only where nothing goes on after it."""
    tells: bool = False
    """What it executes is told when it runs; `access` is without that."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What was rewritten: all steps, numbered from 0."""

    steps: tuple[Step, ...]
    texts: tuple[Access, ...]
    """What each of the texts given touches by itself, without what the steps in the functions that it calls touch."""
    check: Access | None
    """What is due at a commit may touch; None: nothing that is reached can be deferred."""
    remarks: tuple[str, ...]
    """What a reader should know of some steps."""
    unsplit: tuple[str, ...]
    """What is one step and should be several, and why: as long as there is one, not every order can be tried."""
    sees_locks: bool
    """Something reads pg_locks, where the locks stand by which its own steps are controlled."""
    relations: Mapping[str, Relation]
    """Every relation and index of the database, by its oid."""
    traceless: frozenset[str]
    """What a step may have touched without leaving a trace that is measured."""
    sequences: frozenset[str]
    commits_inside: frozenset[str]
    """Names of the procedures that end a transaction."""
    read: Callable[[str], tuple[Access, bool]]
    """What a text that is executed touches without the steps of functions, and whether it has a DO block."""
    hiding: frozenset[str]
    """Tables whose policies look at others, which no text that names them says."""
    anywhere: bool
    """Any statement may call a function that touches data, by an operator, a cast, a type ..."""
    originals: tuple[str, ...]
    """The statements that put the functions back as they were."""

    def read_in_full(self, access: Access) -> bool:
        """Whether this, by a text, is all that can be touched, whatever is in the tables."""
        return not (self.anywhere or access.unread) and self.hiding.isdisjoint(access.reads | access.writes)


@dataclass(frozen=True, slots=True)
class _Function:
    oid: int
    name: str
    label: str
    language: str
    volatile: bool
    procedure: bool
    of_row: bool
    """It can be called as if it were a column of a row."""
    body: str
    definition: str
    touched: Touched


_CATALOGUES = ("pg_catalog.", "information_schema.", "pg_")


class _Catalogue:
    """What the database says of its functions, triggers and foreign keys."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.functions: dict[int, _Function] = {}
        self.named: dict[str, list[_Function]] = defaultdict(list)
        for row in raw["functions"]:
            body = plpgsql.body_of(row["definition"], row["body"])
            touched = plpgsql.touched_by(row["language"], body)
            if row["language"] in ("c", "internal"):
                touched = Touched()  # they compute; those that do not are refused by name
            function = _Function(**{**row, "body": body}, touched=touched)
            self.functions[function.oid] = function
            self.named[function.name].append(function)
            if function.of_row:
                self.named[f".{function.name}"].append(function)
        self.relations: dict[str, Relation] = {}
        self.meant_by: dict[str, set[str]] = defaultdict(set)
        """Relation as a text may name it, with or without its schema -> its name."""
        for oid, schema, relation, name, kind in raw["relations"]:
            self.relations[str(oid)] = Relation(name, kind)
            self.meant_by[relation].add(name)
            self.meant_by[f"{schema}.{relation}"].add(name)
        for index, table in raw["indexes"]:
            self.relations[str(index)] = Relation(self.relations[str(table)].name, "i")
        self.tables = frozenset(relation.name for relation in self.relations.values() if relation.kind in "rp")
        self.sequences = frozenset(relation.name for relation in self.relations.values() if relation.kind == "S")
        self.foreign = frozenset(relation.name for relation in self.relations.values() if relation.kind == "f")
        self.attached: dict[str, list[_Function]] = defaultdict(list)
        """Functions that run when a table is written or read, beside its triggers, or when it is written: those."""
        self.deferred_triggers: dict[str, list[_Function]] = defaultdict(list)
        self.triggers: dict[str, list[_Function]] = defaultdict(list)
        for table, oid, deferrable in raw["triggers"]:
            if oid in self.functions:
                self.triggers[table].append(self.functions[oid])
                if deferrable:
                    self.deferred_triggers[table].append(self.functions[oid])
        for table, oid in raw["attached_functions"]:
            if oid in self.functions:
                self.attached[table].append(self.functions[oid])
        self.calls_by_catalogue: dict[int, list[_Function]] = defaultdict(list)
        for caller, oid in raw["function_calls"]:
            if oid in self.functions:
                self.calls_by_catalogue[caller].append(self.functions[oid])
        self.unique_keys: dict[str, list[frozenset[str]]] = defaultdict(list)
        for table, columns in raw["unique_keys"]:
            self.unique_keys[table].append(frozenset(columns))
        self.event_triggers = [self.functions[oid] for oid in raw["event_triggers"] if oid in self.functions]
        self.table_sequences: dict[str, set[str]] = defaultdict(set)
        for table, sequence in raw["attached_sequences"]:
            self.table_sequences[table].add(sequence)
        self.foreign_keys: dict[str, tuple[ForeignKey, ...]] = {}
        for table, columns, referenced, referenced_columns, on_delete, on_update in raw["foreign_keys"]:
            key = ForeignKey(table, frozenset(columns), referenced, frozenset(referenced_columns), on_delete, on_update)
            for end in {table, referenced}:
                self.foreign_keys[end] = (*self.foreign_keys.get(end, ()), key)
        self.deferrable: dict[str, set[str]] = defaultdict(set)
        """Table -> tables looked at when what is deferred there is done."""
        for table, referenced in raw["deferrable"]:
            for end in {table, referenced or table}:
                self.deferrable[end] |= {table, referenced or table}
        self.hiding = frozenset(raw["looking_policies"])
        self.stand_ins: dict[str, set[str]] = defaultdict(set)
        for named, meant in raw["stand_ins"]:
            self.stand_ins[named].add(meant)
        touching = self._touching()
        self.anywhere = [
            self.functions[oid]
            for oid in raw["called_anywhere"]
            if oid in self.functions and self._touches(self.functions[oid], touching)
        ]
        """Functions that touch data, and that any statement may call by an operator, a cast, a type ..."""
        self.touching = touching | {ANYWHERE} if self.anywhere else touching
        self.committing = self._committing()

    def _touches(self, function: _Function, names: Set[str]) -> bool:
        by_catalogue = self.calls_by_catalogue.get(function.oid, ())
        return function.touched.matters(names) or any(called.name in names for called in by_catalogue)

    def _touching(self) -> frozenset[str]:
        """Names of the functions that touch data, themselves or through others."""
        names: set[str] = set()
        while True:
            found = [function for function in self.functions.values() if self._touches(function, names)]
            more = {f.name for f in found} | {f".{f.name}" for f in found if f.of_row}
            if more <= names:
                return frozenset(names)
            names |= more

    def _committing(self) -> frozenset[str]:
        """Names of the procedures that end transactions, themselves or through others."""
        names: set[str] = set()
        procedures = [function for function in self.functions.values() if function.procedure]
        while True:
            more = {f.name for f in procedures if f.touched.ends or not f.touched.calls.isdisjoint(names)}
            if more <= names:
                return frozenset(names)
            names |= more

    def called(self, touched: Touched) -> list[_Function]:
        """The functions and triggers that a text calls; every overload of a name."""
        functions = {f.oid: f for name in touched.calls for f in self.named.get(name, ())}
        written = self.written(touched)
        for one in written:
            if one.command != "lock":
                functions.update({f.oid: f for f in self.triggers.get(one.table, ())})
        for table in self._meant(touched.reads) | {one.table for one in written}:
            functions.update({f.oid: f for f in self.attached.get(table, ())})
        if touched.everything or touched.unread:
            functions.update({f.oid: f for f in self.event_triggers})
        functions.update({f.oid: f for f in self.anywhere})
        return list(functions.values())

    def calls(self, function: _Function) -> list[_Function]:
        """The functions that a function calls, by its text or as the catalogue knows (defaults, BEGIN ATOMIC)."""
        found = {f.oid: f for f in self.called(function.touched)}
        found.update({f.oid: f for f in self.calls_by_catalogue.get(function.oid, ())})
        return list(found.values())

    def written(self, touched: Touched) -> set[Written]:
        """What a text writes to, through views and rules, partitions and cascades."""
        found: set[Written] = set()
        due = [Written(t, w.command, w.columns) for w in touched.written for t in self._meant({w.table})]
        while due:
            one = due.pop()
            if one in found:
                continue
            found.add(one)
            for key in self.foreign_keys.get(one.table, ()):
                due += key.passed_on(one)
        return found

    def access(self, touched: Touched) -> Access:
        """What a text touches by itself, its foreign keys and what stands behind views included."""
        reads, written = set(self._meant(touched.reads)), self.written(touched)
        access = Touched(reads, written, everything=touched.everything, unread=touched.unread).access(self.foreign_keys)
        writes = set(access.writes) | ((access.reads | access.writes) & self.sequences)
        for one in written:
            if one.command in ("insert", "update"):
                writes |= self.table_sequences.get(one.table, set())
        if SEQUENCES in writes:
            writes |= self.sequences
        unknown = {name for name in access.reads | writes if name.startswith(_CATALOGUES)}
        everything = access.everything or bool(unknown or (access.reads | writes) & self.foreign)
        return Access(access.reads, frozenset(writes), everything=everything, unread=access.unread)

    def within(self, touched: Touched, split: Set[int]) -> Access:
        """What a text touches itself and in the functions that it reaches without steps of their own."""
        total, seen, due = self.access(touched), set(split), self.called(touched)
        while due:
            function = due.pop()
            if function.oid not in seen:
                seen.add(function.oid)
                total |= self.access(function.touched)
                if function.touched.dynamic:
                    total |= Access(unread=True)  # nobody tells what it executes
                due += self.calls(function)
        return total

    def reached(self, texts: Iterable[Touched]) -> list[_Function]:
        """Every function or trigger that some texts may come to, as far as texts and catalogue say."""
        found: dict[int, _Function] = {}
        due = [function for text in texts for function in self.called(text)]
        while due:
            function = due.pop(0)
            if function.oid not in found:
                found[function.oid] = function
                due += self.calls(function)
        return list(found.values())

    def locks_several(self, touched: Touched) -> bool:
        """Whether a statement may lock several rows, as far as its conditions and the unique keys say.

        One that writes to two tables (WITH, a join that is locked) locks in both: others come in between.
        """
        locked = {frozenset(self._meant({w.table}) & (self.tables | {ADVISORY_LOCKS})) for w in touched.written}
        return len(locked - {frozenset()}) > 1 or any(
            not any(key <= pinned for key in self.unique_keys.get(table, ()))
            for named, pinned in touched.locked
            for table in self._meant({named})
            if table in self.tables
        )

    def check(self, tables: Set[str]) -> Access | None:
        """What may be due at the commit of who writes to some tables."""
        access = None
        for table in tables:
            for looked_at in self.deferrable.get(table, ()):
                access = (access or Access()) | Access(frozenset({looked_at}), frozenset({looked_at}))
            if self.deferred_triggers.get(table):
                access = access or Access()
        return access

    def _meant(self, tables: Iterable[str]) -> Set[str]:
        found: set[str] = set()
        due = [name for table in tables for name in self.meant_by.get(table, {table})]
        while due:
            table = due.pop()
            if table not in found:
                found.add(table)
                due += self.stand_ins.get(table, ())
        return found


def catalogue_of(connection: psycopg.Connection[Any]) -> Mapping[str, Any]:
    """What the rewriting has to know of a database (catalogue.sql)."""
    row = connection.execute(queries.text("harness.schedules", "catalogue.sql").encode()).fetchone()
    assert row is not None
    found: dict[str, Any] = json.loads(row[0])
    return found


def rewrite(
    connection: psycopg.Connection[Any], known: Mapping[str, Any], texts: Sequence[str], space: int
) -> Rewritten:
    """Rewrite all functions that some statements reach, of a database of which so much is `known` (`catalogue_of`).

    `space` is the turnstile's advisory lock key space.

    Raises UsageError for a function whose concurrency cannot be controlled: one that acts through a connection of its
    own.
    """
    catalogue = _Catalogue(known)
    given = [access_by_text.of_statement(text) for text in texts]
    reached = catalogue.reached(given)
    certainly = {function.oid for function in reached}
    if any(t.unread or t.everything or t.dynamic for t in (*given, *(f.touched for f in reached))):
        # Which functions a text calls that is put together when it runs is not known: each may be one.
        reached += [f for f in catalogue.functions.values() if f not in reached]
    _refuse(reached)

    remarks: list[str] = []
    unsplit: list[str] = []
    founds: list[tuple[_Function, Found]] = []
    replaced: list[str] = []
    originals: list[tuple[str, str]] = []
    split: set[int] = set()
    deferred = bool(catalogue.deferrable or catalogue.deferred_triggers)
    for function in reached:
        if function.name not in catalogue.touching:
            continue
        if not function.volatile:
            if function.oid in certainly:  # of a function that nothing may call there is nothing to know
                remarks.append(f"{function.label} is not VOLATILE: it reads with its caller's snapshot")
            continue
        try:
            done = plpgsql.split(
                function.language,
                function.body,
                first=len(founds),
                functions=catalogue.touching,
                committing=catalogue.committing,
                deferred=deferred,
            )
        except UnsplittableError as reason:
            unsplit.append(f"{function.label} is one step: {reason}")
            continue
        if function.oid in certainly:
            remarks += [f"{function.label} {remark}" for remark in done.remarks]
        unsplit += [f"{function.label} {reason}" for reason in done.unsplit]
        founds += [(function, found) for found in done.steps]
        split.add(function.oid)
        if done.steps:
            replaced.append(_definition(function, done.body))
            originals.append((function.label, function.definition))

    text = queries.text("harness.schedules", "turnstile.sql")
    counted = "{" + ",".join(oid for oid, relation in catalogue.relations.items() if relation.kind in "rpmi") + "}"
    texts_read = [*given, *(f.touched for f in reached)]
    doubtful = bool(catalogue.anywhere) or any(t.unread or t.everything or t.dynamic for t in texts_read)
    held = sql.SQL(queries.text("harness.schedules", "locks.sql") if doubtful else "''").format(
        space=sql.Literal(space)
    )
    connection.execute(sql.SQL(text).format(space=sql.Literal(space), relations=sql.Literal(counted), locks=held))
    kept: list[str] = []
    for (label, original), definition in zip(originals, replaced, strict=True):
        try:
            # Sent as it is: a % in a function is no placeholder.
            connection.execute(definition.encode())
            kept.append(original)
        except psycopg.errors.InsufficientPrivilege:
            unsplit.append(f"{label} is one step: this role may not replace it")
    by_label = [(function.label, function.touched) for function in reached if function.oid in certainly]
    by_text = [(" ".join(text.split())[:80], touched) for text, touched in zip(texts, given, strict=True)]
    seeing = [place for place, touched in (*by_label, *by_text) if _sees_locks(touched)]
    unsplit += [f"{place} reads pg_locks, and sees the locks by which its own steps are controlled" for place in seeing]
    remarks += _remarks([function for function in reached if function.oid in certainly])
    named = [
        (f"{function.label} line {found.line}: {found.text}", found.touched)
        for function, found in founds
        if function.oid in certainly
    ]
    for place, touched in (*named, *zip((" ".join(text.split()) for text in texts), given, strict=True)):
        if catalogue.locks_several(touched):
            remarks.append(f"{place[:160]}: may lock several rows, in an order that is left to race")
    written = {w.table for t in texts_read for w in catalogue.written(t)}
    if doubtful:
        written |= {relation.name for relation in catalogue.relations.values()}
    check = catalogue.check(written)
    return Rewritten(
        _steps(catalogue, founds, given, split, check or Access()),
        tuple(catalogue.within(touched, split) for touched in given),
        check,
        tuple(remarks),
        tuple(unsplit),
        bool(seeing),
        catalogue.relations,
        frozenset({ADVISORY_LOCKS, NOTIFICATIONS, SEQUENCES}) | catalogue.sequences,
        catalogue.sequences,
        catalogue.committing,
        cache(partial(_read, catalogue, frozenset(split))),
        catalogue.hiding,
        bool(catalogue.anywhere),
        tuple(kept),
    )


def _read(catalogue: _Catalogue, split: Set[int], text: str) -> tuple[Access, bool]:
    touched = access_by_text.of_executed(text)
    return catalogue.within(touched, split), touched.block


def undo(connection: psycopg.Connection[Any], rewritten: Rewritten) -> None:
    """Put the functions back as they were."""
    with connection.transaction():
        for definition in rewritten.originals:
            connection.execute(definition.encode())
        connection.execute("DROP SCHEMA harness_schedules CASCADE")


def _definition(function: _Function, body: str) -> str:
    """The CREATE statement with another body."""
    head, _, tail = function.definition.rpartition(function.body)
    return head + body + tail


def _steps(
    catalogue: _Catalogue,
    founds: Sequence[tuple[_Function, Found]],
    texts: Sequence[Touched],
    split: Set[int],
    check: Access,
) -> tuple[Step, ...]:
    """Steps with all that they may touch: also what goes on, after a function's last step, in the statement around.

    `check` is what may be due at a commit.
    """
    own = [check if found.checks else catalogue.within(found.touched, split) for _, found in founds]
    around: dict[int, Access] = defaultdict(Access)
    for function in catalogue.functions.values() if any(touched.unread for touched in texts) else catalogue.anywhere:
        around[function.oid] |= Access(unread=True)  # what goes on after it is not known
    for touched in texts:
        for called in catalogue.reached([touched]):
            around[called.oid] |= catalogue.within(touched, split)
    while True:
        before = dict(around)
        for (function, found), access in zip(founds, own, strict=True):
            for called in catalogue.reached([found.touched]):
                around[called.oid] |= access | around[function.oid]
            if found.tells or found.touched.unread:
                # Any function may be called by a text that is put together; what is around it then is not known here.
                for any_function in catalogue.functions:
                    around[any_function] |= Access(unread=True)
        if dict(around) == before:
            break
    return tuple(
        Step(
            number,
            function.label,
            found.line,
            found.text,
            access | around[function.oid],
            found.guarded,
            found.ends,
            found.final,
            found.tells,
        )
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


def _sees_locks(touched: Touched) -> bool:
    return "pg_lock_status" in touched.calls or not touched.reads.isdisjoint({"pg_locks", "pg_catalog.pg_locks"})


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
