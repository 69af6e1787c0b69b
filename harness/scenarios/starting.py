"""A scenario to start from: two sessions that call a function, or two, on rows that are proposed.

The server is asked for everything, and what is proposed is tried in a transaction that is rolled back: what is written
runs as it is, and a row or a call that the server refuses stands there as a comment, with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from harness.environment.identity import Identity
from harness.errors import UsageError
from harness.scenarios.reach import reach
from harness.sqltext import queries
from harness.sqltext.plpgsql import touched_by

_VALUES = (
    (r"(small|big)?int(eger)?|numeric.*|real|double precision", "1"),
    (r"boolean", "false"),
    (r"uuid", "'00000000-0000-0000-0000-000000000001'"),
    (r"timestamp.*|date", "'2030-01-01'"),
    (r"time.*", "'12:00'"),
    (r"interval", "'1 day'"),
    (r"jsonb?", "'{}'"),
    (r".*\[\]", "'{}'"),
    (r"bytea", "''"),
    (r"inet|cidr", "'127.0.0.1'"),
    (r".*range", "'empty'"),
)
"""Values that a type takes; everything else is tried as a text."""


_MORE = """\
/* What must never be so, as a query that finds it, and what means that somebody else is at it, with the dashes at the
   beginning of their lines:

   -- never: a sentence
   SELECT ...;

   -- busy: when error 55P03
*/
"""


_ASKS_WHO = re.compile(r"\bauth\s*\.\s*(?:uid|jwt|role|email)\s*\(|request\.jwt", re.IGNORECASE)
"""A function asks who calls it."""


_LISTED = re.compile(r"ANY \(+ARRAY\[('(?:[^']|'')*'|-?[\d.]+)")
"""A check of a column against a list of values."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column that an INSERT must name."""

    name: str
    type: str
    label: str | None
    """First value of an enum."""
    refers: tuple[str, str, str] | None
    """Schema, table and column that it refers to."""
    listed: str | None
    """The first of the values that a check allows, as it is written in SQL."""


@dataclass(frozen=True, slots=True)
class _Function:
    schema: str
    name: str
    kind: str
    arguments: tuple[tuple[str, str], ...]
    """Name and type of those that have no default."""
    rows: bool
    overloaded: bool = False
    """There are others of its name: its arguments have to say their types."""


def scenario_for(connection: psycopg.Connection[Any], functions: Sequence[str]) -> str:
    """The text of a scenario in which two sessions call one function, or each one of two.

    A function is named with its parameters' types where there are several of its name. Raises UsageError for one that
    is not there, or that is a trigger's.
    """
    return Starting(connection).text([_found(connection, name) for name in functions])


def _found(connection: psycopg.Connection[Any], wanted: str) -> _Function:
    own = queries.own("harness.scenarios", "starting.sql")
    name, opened, types = wanted.partition("(")
    schema, _, name = name.strip().rpartition(".")
    rows = connection.execute(own["functions"], {"name": name, "schema": schema or None}).fetchall()
    overloaded = len({tuple(row[:2]) for row in rows}) < len(rows)
    there = [f"{row[0]}.{row[1]}({', '.join(row[4])})" for row in rows]
    if opened:
        given = [each.strip() for each in types.rstrip().removesuffix(")").split(",") if each.strip()]
        spelled = connection.execute(own["type_names"], [given]).fetchone()
        rows = [row for row in rows if spelled is not None and list(row[4]) == spelled[0]]
    if not rows:
        raise UsageError(
            f"There is no function {wanted}.",
            tried="; ".join(there) or "pg_proc, in the database with the migrations and the seed",
            next_step="give its name as it is, with its schema where that is not public",
        )
    if len(rows) > 1:
        raise UsageError(
            f"There are {len(rows)} functions {wanted}.",
            tried="; ".join(there),
            next_step=f"give one with its parameters' types: harness new '{there[0]}'",
        )
    [(schema, name, kind, names, types, defaults, many, is_trigger, triggers)] = rows
    if is_trigger:
        raise UsageError(
            f"{name} is a trigger's function, which nobody calls by its name.",
            tried="; ".join(triggers) or "it is the function of no trigger",
            next_step="write a scenario whose sessions make the statement that fires it (docs/scenarios.md)",
        )
    needed = len(types) - defaults
    named = [(names[at] if at < len(names) else "") for at in range(needed)]
    arguments = tuple(zip(named, types[:needed], strict=True))
    return _Function(schema, name, kind, arguments, bool(many), overloaded)


def _named(connection: psycopg.Connection[Any], functions: Sequence[_Function]) -> set[tuple[str, str]] | None:
    """The tables that some functions, and those that they call, name as tables; None where not all can be read."""
    own = queries.own("harness.scenarios", "reach.sql")
    known = connection.execute(own["functions" if connection.info.server_version >= 140000 else "functions_13"])
    bodies: dict[str, list[tuple[str, str]]] = {}
    for _, _, name, language, body in known.fetchall():
        bodies.setdefault(name, []).append((language, (body or "").strip()))
    names: set[str] = set()
    seen: set[str] = set()
    due = [function.name for function in functions]
    while due:
        name = due.pop()
        if name in seen:
            continue
        seen.add(name)
        for language, body in bodies.get(name, ()):
            if language in ("c", "internal"):
                continue
            touched = touched_by(language, body)
            if touched.unread or touched.dynamic or touched.everything:
                return None
            names |= touched.reads | {one.table for one in touched.written}
            due += touched.calls
    found = set()
    for schema, table, kind, *_ in connection.execute(own["relations"]).fetchall():
        if table in names or f"{schema}.{table}" in names:
            found.add((schema, table))
            if kind in ("v", "m"):
                return None  # what is behind it is named by words alone
    return found


class Starting:
    """Proposes rows and calls, by what the tables and functions ask for."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        own = queries.own("harness.scenarios", "starting.sql")
        self.needed: dict[tuple[str, str], list[Column]] = {}
        for schema, table, column, type_, _, label, refers, check in connection.execute(own["columns"]).fetchall():
            listed = _LISTED.search(check or "")
            to = None if refers is None else (refers[0], refers[1], refers[2])
            found = Column(column, type_, label, to, listed[1] if listed else None)
            self.needed.setdefault((schema, table), []).append(found)
        self.keys = {(s, t): (column, type_) for s, t, column, type_ in connection.execute(own["keys"]).fetchall()}
        self.proposed: dict[tuple[str, str], str] = {}

    def text(self, functions: Sequence[_Function]) -> str:
        """A scenario in which two people call these one or two functions, with the rows that they need."""
        names = " and ".join(dict.fromkeys(function.name for function in functions))
        both = [*functions, functions[-1]][:2]
        with self.connection.transaction(force_rollback=True):
            reached = reach(self.connection, [f"SELECT {f.schema}.{f.name}()" for f in both])
            wanted = _named(self.connection, both)
            for table in sorted(reached.tables if wanted is None else reached.tables & wanted):
                self._propose(table, ())
            asks = any(_ASKS_WHO.search(text) for text in reached.texts)
            if asks and ("auth", "users") in self.needed:
                self._propose(("auth", "users"), ())
            setup = list(self.tried(self.proposed.values()))
            who = self._who() if asks else ""
            calls = [self._call(function, number, who) for number, function in enumerate(both, 1)]
            as_whom = f"-- as: {who}\n" if who else ""
            sessions = [
                f"-- session: {name}\n{as_whom}{call}" for name, call in zip(("ann", "ben"), calls, strict=True)
            ]
        lines = [f"-- scenario: what two do with {names} is as one after another", "", "-- setup"]
        if setup:
            lines.append("-- Rows to start from, as the tables ask for them: change them to what the function needs.")
        lines += [*setup, ""]
        if who:
            lines += [
                "-- One person twice, as after a double click: give each a user of its own where two people meet.",
                "",
            ]
        lines += "\n\n".join(sessions).splitlines()
        lines += ["", _MORE]
        return "\n".join(lines)

    def _propose(self, table: tuple[str, str], above: tuple[tuple[str, str], ...]) -> None:
        """Rows for a table that has none, after those of the tables that it refers to."""
        if table in self.proposed or table in above or not self.is_empty(table):
            return
        columns = self.needed.get(table, [])
        for column in columns:
            if column.refers is not None:
                self._propose(column.refers[:2], (*above, table))
        name = self.name(*table)
        if not columns:
            self.proposed[table] = f"INSERT INTO {name} DEFAULT VALUES;"
            return
        targets = ", ".join(self.quoted(column.name) for column in columns)
        values = ", ".join(self.value(column) for column in columns)
        self.proposed[table] = f"INSERT INTO {name} ({targets}) VALUES ({values});"  # noqa: S608

    def _who(self) -> str:
        """As whom a function is called that asks who its caller is; nothing where nobody can be."""
        query = queries.own("harness.scenarios", "starting.sql")["authenticated"]
        if self.connection.execute(query).fetchone() is None:
            return ""
        try:
            with self.connection.transaction():
                row = self.connection.execute("SELECT id::text FROM auth.users ORDER BY id LIMIT 1").fetchone()
        except psycopg.Error:
            row = None
        return f'authenticated {{"sub": "{row[0] if row else _value("uuid", "").strip(chr(39))}"}}'

    def is_empty(self, table: tuple[str, str]) -> bool:
        """Whether a table is there, and has no row."""
        try:
            with self.connection.transaction():
                query = sql.SQL("SELECT FROM {} LIMIT 1").format(sql.Identifier(*table))
                return self.connection.execute(query).fetchone() is None
        except psycopg.Error:
            return False

    def value(self, column: Column) -> str:
        """A value that fits the column, as it is written in SQL."""
        if column.refers is not None:
            schema, table, key = column.refers
            return self._first(schema, table, key)
        if column.label is not None:
            return "'" + column.label.replace("'", "''") + "'"
        if column.listed is not None:
            return column.listed
        value = _value(column.type, "example")
        length = re.fullmatch(r"(?:character varying|character|bit)\((\d+)\)", column.type)
        return f"'{value[1:-1][: int(length[1])]}'" if length else value

    def tried(self, statements: Sequence[str] | Any) -> Iterator[str]:
        """The statements, those that the server refuses as comments."""
        for statement in statements:
            error = self.error(statement)
            yield statement if error is None else f"--  {statement}\n--  The server says of this: {error}"

    def error(self, *statements: str, kept: bool = True) -> str | None:
        """Run statements in a transaction of their own; what the server says where it refuses one."""
        try:
            with self.connection.transaction(force_rollback=not kept):
                for statement in statements:
                    self.connection.execute(statement.encode(), prepare=False)
        except psycopg.Error as error:
            said = str(error.diag.message_primary or error)
            return f"{' '.join(said.split())} (SQLSTATE {error.sqlstate})"
        return None

    def _call(self, function: _Function, number: int, who: str) -> str:
        arguments = ", ".join(
            self._argument(name, type_, number) + (f"::{type_}" if function.overloaded else "")
            for name, type_ in function.arguments
        )
        name = self.name(function.schema, function.name)
        call = f"{name}({arguments})"
        how = "CALL" if function.kind == "p" else "SELECT * FROM" if function.rows else "SELECT"
        text = f"{how} {call};"
        name = "ann" if number == 1 else "ben"
        first = [Identity.read(who).statements(self.connection).local] if who else []
        error = self.error(*first, text.replace(":'session'", f"'{name}'"), kept=False)
        return text if error is None else f"-- The server says of this: {error}\n{text}"

    def _argument(self, name: str, type_: str, number: int) -> str:
        """A row of a table that the parameter, or its key, is named after, else any value of its type."""
        bare = re.sub(r"^_?(p|v|in|arg)_|_?(id|uuid)$", "", name.lower()).strip("_")
        if bare:
            for (schema, table), (key, key_type) in self.keys.items():
                if key_type == type_ and table.lower() in (bare, f"{bare}s", f"{bare}es", f"{bare[:-1]}ies"):
                    return self._first(schema, table, key)
            named = [
                (schema, table, key)
                for (schema, table), (key, key_type) in self.keys.items()
                if key_type == type_ and key.lower() == bare
            ]
            if len(named) == 1:
                return self._first(*named[0])
        if type_ in ("text", "character varying"):
            return ":'session'"
        value = _value(type_, "example")
        return f"{value[:-2]}{number}'" + f"::{type_}" if type_ == "uuid" else f"{value}::{type_}"

    def _first(self, schema: str, table: str, key: str) -> str:
        """The key of a row that is there."""
        return f"(SELECT {self.quoted(key)} FROM {self.name(schema, table)} ORDER BY 1 LIMIT 1)"  # noqa: S608

    def name(self, schema: str, name: str) -> str:
        """A table's or function's name, with its schema where that is not public."""
        return self.quoted(name) if schema == "public" else f"{self.quoted(schema)}.{self.quoted(name)}"

    def quoted(self, name: str) -> str:
        """A name as it is written in SQL."""
        return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def _value(type_: str, text: str) -> str:
    return next((value for pattern, value in _VALUES if re.fullmatch(pattern, type_)), f"'{text}'")
