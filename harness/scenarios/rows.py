"""Rows that must have been there, inferred from statements: what their conditions ask for, of the rows that they name.

A condition that names a row by a unique key says that the row was there, unless a statement put it there; conditions
beside it say which values it had. The bodies of the functions that are called are read the same way, with the values
that they were called with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

import pglast
import psycopg
from pglast import ast
from pglast.enums import A_Expr_Kind, BoolExprType, BoolTestType, NullTestType
from pglast.parser import ParseError
from pglast.visitors import Visitor

from harness.scenarios.starting import Column, Starting
from harness.sqltext import queries

Table = tuple[str, str]

_DEEP = 3
"""Functions that call functions, so many."""


@dataclass(frozen=True, slots=True)
class _Shape:
    columns: Mapping[str, str]
    """Name -> type."""
    checked: frozenset[str]
    always: frozenset[str]
    """Identity columns that take a value only with OVERRIDING SYSTEM VALUE."""
    sequences: Mapping[str, str]
    unique: tuple[tuple[str, ...], ...]
    refers: Mapping[str, tuple[str, str, str]]


class _Said:
    """What one WHERE says of its tables, by their aliases."""

    def __init__(self, tables: Mapping[str, Table], known: Mapping[str, str]) -> None:
        self.tables = tables
        self.known = known
        """Constants that stand for a function's parameters."""
        self.equal: dict[str, dict[str, list[str]]] = {alias: {} for alias in tables}
        """Column -> the constants that it is compared with."""
        self.likely: dict[str, dict[str, str]] = {alias: {} for alias in tables}
        """Column -> a constant that fits, where a condition leaves it open."""
        self.joined: list[tuple[tuple[str, str], tuple[str, str]]] = []
        """Columns, each with its alias, that are compared with one another."""


@dataclass(slots=True)
class _Row:
    """A row that must have been there, as far as it is known."""

    values: dict[str, str] = field(default_factory=dict)
    """Column -> constant, as it is written in SQL."""
    likely: dict[str, str] = field(default_factory=dict)
    """The same, where a condition leaves it open."""
    taken: dict[str, Decimal] = field(default_factory=dict)
    """What was subtracted from a column."""
    most: dict[str, Decimal] = field(default_factory=dict)
    """The most that was subtracted at once."""
    written: dict[str, str] = field(default_factory=dict)
    """What a column was set to first: it was something else before."""


class Rows:
    """Collects what statements say of rows, and proposes an INSERT for each."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        own = queries.own("harness.scenarios", "starting.sql")
        self._connection = connection
        self._starting = Starting(connection)
        self._shapes: dict[Table, _Shape] = {}
        self._by_name: dict[str, Table] = {}
        for schema, name, columns, unique, refers in connection.execute(own["shapes"]).fetchall():
            self._by_name.setdefault(name, (schema, name))
            self._shapes[schema, name] = _Shape(
                {column: type_ for column, type_, *_ in columns or ()},
                frozenset(column for column, _, checked, *_ in columns or () if checked),
                frozenset(column for column, _, _, always, _ in columns or () if always),
                {column: sequence for column, _, _, _, sequence in columns or () if sequence},
                tuple(tuple(each) for each in unique or ()),
                {column: (s, t, c) for column, s, t, c in refers or ()},
            )
        self._bodies: dict[str, list[tuple[str, list[str], str]]] = {}
        for name, language, parameters, body, definition in connection.execute(own["bodies"]).fetchall():
            self._bodies.setdefault(name, []).append((language, parameters, definition or body))
        self._rows: dict[Table, dict[object, _Row]] = {}
        self._of_all: dict[Table, dict[str, str]] = {}
        """Values that conditions on no row in particular ask for."""
        self._inserted: dict[Table, list[tuple[dict[str, str], bool]]] = {}
        """Rows that statements insert, and whether they could."""

    @property
    def functions(self) -> frozenset[str]:
        """Names of the project's own functions."""
        return frozenset(self._bodies)

    def table(self, named: Table) -> Table:
        """A table as it is called with its schema; one that is not there as it was named."""
        return named if named[0] else self._by_name.get(named[1], named)

    def setup(self, statements: Sequence[tuple[Any, bool]]) -> list[str]:
        """Statements that put the rows there, each of which the server took; others are comments.

        `statements` are parsed, each with whether it went well. It all happens in the transaction of the connection.
        """
        for statement, went_well in statements:
            self._read(statement, _of_json(statement), went_well, 0)
        found: list[str] = []
        done: set[Table] = set()
        for table in list(self._rows):
            found += self._proposed(table, done, ())
        return found

    def tried(self, statements: Sequence[str]) -> list[str]:
        """The statements, those that the server refuses as comments; it is left as they leave it."""
        return list(self._starting.tried(statements))

    # -- what statements say

    def _read(self, statement: Any, known: Mapping[str, str], went_well: bool, depth: int) -> None:
        parts = _Parts()
        parts(statement)
        for each in parts.found:
            match each:
                case ast.InsertStmt():
                    self._insert(each, known, went_well)
                case ast.SelectStmt():
                    self._conditions(_sources(each.fromClause), each.whereClause, known)
                case ast.UpdateStmt():
                    sources = _sources((each.relation, *(each.fromClause or ())))
                    rows = self._conditions(sources, each.whereClause, known)
                    self._written(each, rows, known, went_well)
                case ast.DeleteStmt():
                    self._conditions(_sources((each.relation, *(each.usingClause or ()))), each.whereClause, known)
        if depth < _DEEP:
            for call in parts.calls:
                self._call(call, known, went_well, depth)

    def _call(self, call: Any, known: Mapping[str, str], went_well: bool, depth: int) -> None:
        arguments: list[Any] = list(call.args or ())
        for language, parameters, body in self._bodies.get(call.funcname[-1].sval, ()):
            values: dict[str, str] = {}
            for at, argument in enumerate(arguments):
                named = isinstance(argument, ast.NamedArgExpr)
                name = argument.name if named else parameters[at] if at < len(parameters) else ""
                constant = _constant(argument.arg if named else argument, known)
                if name and constant is not None:
                    values[str(name)] = constant
            for text in _texts(language, body):
                for raw in _parsed(text):
                    self._read(raw.stmt, values, went_well, depth + 1)

    def _insert(self, insert: Any, known: Mapping[str, str], went_well: bool) -> None:
        table = self.table((insert.relation.schemaname or "", insert.relation.relname))
        shape = self._shapes.get(table)
        if shape is None:
            return
        names = [target.name for target in insert.cols or ()] or list(shape.columns)
        for values in getattr(insert.selectStmt, "valuesLists", None) or ():
            constants = {
                name: constant
                for name, value in zip(names, values, strict=False)
                if (constant := _constant(value, known)) is not None
            }
            self._inserted.setdefault(table, []).append((constants, went_well))
            for column, (schema, parent, key) in shape.refers.items():
                if went_well and constants.get(column, "NULL") != "NULL":
                    self._row((schema, parent), {key: constants[column]})

    def _conditions(self, sources: Mapping[str, Table], where: Any, known: Mapping[str, str]) -> list[_Row]:
        """Keep what a WHERE says of the rows of each table; the rows that it names."""
        said = _Said({alias: self.table(name) for alias, name in sources.items()}, known)
        for term in _terms(where):
            self._term(term, said)
        equal, likely = said.equal, said.likely
        for (one, column), (other, its) in [*said.joined, *((b, a) for a, b in said.joined)]:
            if column in equal[one]:
                equal[other].setdefault(its, equal[one][column])
        rows = []
        for alias, table in said.tables.items():
            if table not in self._shapes:
                continue
            if not equal[alias]:
                if likely[alias] or where is None:  # something was there to be read
                    self._of_all.setdefault(table, {}).update(likely[alias])
                    self._rows.setdefault(table, {})
                continue
            for values in _combined(equal[alias]):
                row = self._row(table, values)
                if row is not None:
                    row.likely = {**likely[alias], **row.likely}
                    rows.append(row)
        return rows

    def _term(self, term: Any, said: _Said) -> None:
        match term:
            case ast.ColumnRef():
                if (at := self._column(term, said)) is not None:
                    said.likely[at[0]].setdefault(at[1], "true")
            case ast.BoolExpr() if term.boolop == BoolExprType.NOT_EXPR:
                [negated] = term.args or (None,)
                if (at := self._column(negated, said)) is not None:
                    said.likely[at[0]].setdefault(at[1], "false")
            case ast.BooleanTest():
                if (at := self._column(term.arg, said)) is not None:
                    true = term.booltesttype in (BoolTestType.IS_TRUE, BoolTestType.IS_NOT_FALSE)
                    said.likely[at[0]].setdefault(at[1], "true" if true else "false")
            case ast.NullTest():
                at = self._column(term.arg, said)
                if at is not None and term.nulltesttype == NullTestType.IS_NULL:
                    said.likely[at[0]].setdefault(at[1], "NULL")
            case ast.A_Expr():
                self._comparison(term, said)

    def _comparison(self, term: Any, said: _Said) -> None:
        operator = term.name[-1].sval
        left, right = self._column(term.lexpr, said), self._column(term.rexpr, said)
        if left is not None and right is not None:
            if operator == "=":
                said.joined.append((left, right))
            return
        at, other = (left, term.rexpr) if left is not None else (right, term.lexpr)
        if at is None:
            return
        alias, column = at
        if term.kind in (A_Expr_Kind.AEXPR_IN, A_Expr_Kind.AEXPR_OP_ANY) and operator == "=":
            listed = other.elements if isinstance(other, ast.A_ArrayExpr) else other
            if isinstance(listed, tuple):
                values = [value for each in listed if (value := _constant(each, said.known)) is not None]
                if values:
                    said.equal[alias].setdefault(column, values)
            return
        value = _constant(other, said.known)
        if value is None or term.kind != A_Expr_Kind.AEXPR_OP:
            return
        if operator == "=" and isinstance(self._shapes[said.tables[alias]].columns.get(column), str):
            if value in ("true", "false"):
                said.likely[alias].setdefault(column, value)
            else:
                said.equal[alias].setdefault(column, [value])
        elif (step := _OPEN.get(operator if left is not None else _TURNED.get(operator, ""))) is not None:
            number = _number(value)
            if number is not None:
                said.likely[alias].setdefault(column, str(number + step))

    def _column(self, node: Any, said: _Said) -> tuple[str, str] | None:
        """Alias and column of an expression that is a column of one of the tables."""
        if isinstance(node, ast.TypeCast):
            node = node.arg
        if not isinstance(node, ast.ColumnRef):
            return None
        tables = said.tables
        parts = [getattr(each, "sval", "*") for each in node.fields or ()]
        if len(parts) > 1:
            alias = parts[-2] if parts[-2] in tables else None
        else:
            # A parameter of a function, where no table has a column of the name.
            having = [a for a, t in tables.items() if t in self._shapes and parts[0] in self._shapes[t].columns]
            alias = having[0] if having else None
        if alias is None or tables[alias] not in self._shapes:
            return None
        return (alias, parts[-1]) if parts[-1] in self._shapes[tables[alias]].columns else None

    def _row(self, table: Table, values: Mapping[str, str]) -> _Row | None:
        """The row that is known by these values; None where a statement put it there."""
        shape = self._shapes.get(table)
        if shape is None:
            return None
        key = next((each for each in shape.unique if set(each) <= values.keys()), tuple(sorted(values)))
        known = tuple((column, values[column]) for column in key)
        for inserted, went_well in self._inserted.get(table, ()):
            if went_well and all(_same(inserted.get(column), value) for column, value in known):
                return None
        row = self._rows.setdefault(table, {}).setdefault(known, _Row())
        for column, value in values.items():
            row.values.setdefault(column, value)
        return row

    def _written(self, update: Any, rows: Sequence[_Row], known: Mapping[str, str], went_well: bool) -> None:
        for target in update.targetList or ():
            value: Any = target.val
            constant = _constant(value, known)
            taken = None
            if isinstance(value, ast.A_Expr) and value.name and value.name[-1].sval == "-":
                number = _number(_constant(value.rexpr, known))
                taken = number if isinstance(value.lexpr, ast.ColumnRef) else None
            for row in rows:
                if constant is not None:
                    row.written.setdefault(target.name, constant)
                elif taken is not None:
                    row.most[target.name] = max(row.most.get(target.name, Decimal(0)), taken)
                    if went_well:
                        row.taken[target.name] = row.taken.get(target.name, Decimal(0)) + taken

    # -- the rows

    def _proposed(self, table: Table, done: set[Table], above: tuple[Table, ...]) -> Iterator[str]:
        """The rows of a table, after those of the tables that it refers to."""
        if table in done or table in above:
            return
        done.add(table)
        shape = self._shapes[table]
        rows = self._rows.setdefault(table, {})
        self._without_inserted(table, rows)
        if not rows and (table in self._of_all or above) and self._starting.is_empty(table):
            rows[()] = _Row()
        needed = {column.name: column for column in self._starting.needed.get(table, [])}
        for column, (schema, parent, key) in shape.refers.items():
            if (schema, parent) not in self._shapes:
                continue
            for row in rows.values():
                if (value := row.values.get(column, "NULL")) != "NULL":
                    self._row((schema, parent), {key: value})
            if column in needed or (schema, parent) in self._rows:
                yield from self._proposed((schema, parent), done, (*above, table))
        given: set[str] = set()
        for number, row in enumerate(rows.values(), 1):
            values = self._values(table, row, needed, number)
            if self._is_there(table, row):
                continue
            text, error = self._insert_of(table, values)
            given |= values.keys() if error is None else set()
            yield text if error is None else f"--  {text}\n--  The server says of this: {error}"
        yield from self._sequences(table, given)

    def _without_inserted(self, table: Table, rows: dict[object, _Row]) -> None:
        """Take away rows that were asked for before a statement put them there."""
        for key, row in list(rows.items()):
            for inserted, went_well in self._inserted.get(table, ()):
                if went_well and isinstance(key, tuple) and all(_same(inserted.get(c), v) for c, v in key) and key:
                    del rows[key]
                    break
            del row

    def _values(self, table: Table, row: _Row, needed: Mapping[str, Column], number: int) -> dict[str, str]:
        shape = self._shapes[table]
        values = dict(row.values)
        for column, amount in row.most.items():
            enough = row.taken.get(column, amount) if column in shape.checked else amount
            at_least = _number(row.likely.get(column)) or Decimal(0)
            values.setdefault(column, str(max(enough, amount, at_least)))
        for column, value in {**self._of_all.get(table, {}), **row.likely}.items():
            values.setdefault(column, value)
        for column, value in row.written.items():
            if value in ("true", "false"):
                values.setdefault(column, "false" if value == "true" else "true")
        for column, of in needed.items():
            if column in values:
                continue
            value = self._starting.value(of)
            if number > 1 and any(column in key for key in shape.unique):
                value = _another(value, number)
            if column in row.written and _same(value, row.written[column]):
                value = _another(value, 2)
            values[column] = value
        return values

    def _is_there(self, table: Table, row: _Row) -> bool:
        """Whether the seed has it."""
        if not row.values:
            return False
        where = " AND ".join(
            f"{self._starting.quoted(c)} {'IS NULL' if v == 'NULL' else f'= {v}'}" for c, v in row.values.items()
        )
        query = f"SELECT FROM {self._starting.name(*table)} WHERE {where} LIMIT 1"
        try:
            with self._connection.transaction():
                return self._connection.execute(query.encode(), prepare=False).fetchone() is not None
        except psycopg.Error:
            return False

    def _insert_of(self, table: Table, values: Mapping[str, str]) -> tuple[str, str | None]:
        name, shape = self._starting.name(*table), self._shapes[table]
        if not values:
            text = f"INSERT INTO {name} DEFAULT VALUES;"
        else:
            targets = ", ".join(map(self._starting.quoted, values))
            over = " OVERRIDING SYSTEM VALUE" if shape.always & values.keys() else ""
            text = f"INSERT INTO {name} ({targets}){over} VALUES ({', '.join(values.values())});"  # noqa: S608
        return text, self._starting.error(text)

    def _sequences(self, table: Table, given: set[str]) -> Iterator[str]:
        """What lets generated keys begin after those that were given."""
        for column, sequence in self._shapes[table].sequences.items():
            if column in given:
                name, quoted = self._starting.name(*table), self._starting.quoted(column)
                text = f"SELECT setval('{sequence}', max({quoted})) FROM {name};"  # noqa: S608
                if self._starting.error(text) is None:
                    yield text


_OPEN = {">": Decimal(1), ">=": Decimal(0), "<": Decimal(-1), "<=": Decimal(0)}
_TURNED = {">": "<", ">=": "<=", "<": ">", "<=": ">="}


class _Parts(Visitor):
    """The queries and commands in a statement, at whatever depth, and the functions that it calls."""

    def __init__(self) -> None:
        self.found: list[Any] = []
        self.calls: list[Any] = []

    def visit(self, ancestors: Any, node: Any) -> None:
        if isinstance(node, (ast.SelectStmt, ast.InsertStmt, ast.UpdateStmt, ast.DeleteStmt)):
            self.found.append(node)
        elif isinstance(node, ast.FuncCall):
            self.calls.append(node)


def _of_json(statement: Any) -> dict[str, str]:
    """What columns are called that come out of a JSON object in a statement, as PostgREST sends arguments and rows."""
    texts = _Texts()
    texts(statement)
    found: dict[str, str] = {}
    for text in texts.found:
        try:
            value = json.loads(text)
        except ValueError:
            continue
        [row] = value if isinstance(value, list) and len(value) == 1 else [value]
        for name, each in row.items() if isinstance(row, dict) else ():
            if each is None or isinstance(each, (str, int, float)):
                found[name] = _literal(each)
    return found


class _Texts(Visitor):
    """Constants that may be JSON."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def visit_A_Const(self, ancestors: Any, node: Any) -> None:  # noqa: N802
        text = getattr(node.val, "sval", None)
        if text and text.lstrip()[:1] in ("{", "["):
            self.found.append(text)


def _literal(value: str | float | None) -> str:
    """A value as it is written in SQL."""
    if value is None:
        return "NULL"
    if not isinstance(value, str):
        return str(value).lower()
    escaped = value.replace("'", "''")
    return f"E'{escaped}'".replace("\\", "\\\\") if "\\" in value else f"'{escaped}'"


def _sources(clause: Any) -> dict[str, Table]:
    """Alias -> table, as a FROM names them."""
    found: dict[str, Table] = {}
    for each in clause or ():
        if isinstance(each, ast.RangeVar):
            alias = each.alias.aliasname if each.alias is not None else each.relname
            found[str(alias)] = (each.schemaname or "", str(each.relname))
        elif isinstance(each, ast.JoinExpr):
            found |= _sources((each.larg, each.rarg))
    return found


def _terms(where: Any) -> Iterator[Any]:
    """What must be true all together."""
    if isinstance(where, ast.BoolExpr) and where.boolop == BoolExprType.AND_EXPR:
        for each in where.args or ():
            yield from _terms(each)
    elif where is not None:
        yield where


def _constant(node: Any, known: Mapping[str, str]) -> str | None:
    """A constant as it is written in SQL; None for anything else."""
    if isinstance(node, ast.TypeCast):
        return _constant(node.arg, known)
    if isinstance(node, ast.ColumnRef):
        parts = [getattr(each, "sval", "*") for each in node.fields or ()]
        return known.get(parts[-1]) if parts else None
    if isinstance(node, ast.ParamRef):
        return known.get(f"${node.number}")
    if isinstance(node, ast.A_Expr) and node.lexpr is None and node.name and node.name[-1].sval == "-":
        value = _constant(node.rexpr, known)
        return None if value is None else f"-{value}"
    if not isinstance(node, ast.A_Const):
        return None
    if node.isnull:
        return "NULL"
    held: Any = node.val
    match held:
        case ast.Integer():
            return str(held.ival)
        case ast.Boolean():
            return "true" if held.boolval else "false"
        case ast.Float():
            return str(held.fval)
        case ast.String():
            return _literal(str(held.sval))
    return None


def _number(value: str | None) -> Decimal | None:
    try:
        return None if value is None else Decimal(value.strip("'"))
    except InvalidOperation:
        return None


def _same(one: str | None, other: str) -> bool:
    return one is not None and one.strip("'") == other.strip("'")


def _another(value: str, number: int) -> str:
    """Another value like one that was proposed."""
    if re.fullmatch(r"-?\d+", value):
        return str(int(value) + number - 1)
    if re.fullmatch(r"'[0-9a-f]{8}-[0-9a-f-]{26}[0-9a-f]'", value):
        return f"'{value[1:-3]}{number:02x}'"
    return f"'{value[1:-1]} {number}'" if value.startswith("'") else value


def _combined(equal: Mapping[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    """One row for each value of a list; of several lists only the first is taken apart."""
    first = {column: values[0] for column, values in equal.items()}
    listed = next((column for column, values in equal.items() if len(values) > 1), None)
    if listed is None:
        yield first
        return
    for value in equal[listed]:
        yield {**first, listed: value}


def _texts(language: str, body: str) -> Iterator[str]:
    """The statements and expressions of a function's body."""
    if language == "sql":
        yield body
    elif language == "plpgsql":
        try:
            found: Any = pglast.parse_plpgsql(body)
        except (ParseError, ValueError):
            return
        due = [found]
        while due:
            each = due.pop()
            if isinstance(each, dict):
                if isinstance(text := each.get("query"), str):
                    yield text
                due += each.values()
            elif isinstance(each, list):
                due += each


def _parsed(text: str) -> Sequence[Any]:
    for form in (text, f"SELECT {text}"):
        try:
            parsed: Sequence[Any] = pglast.parse_sql(form)
        except (ParseError, ValueError):
            continue
        return parsed
    return ()
