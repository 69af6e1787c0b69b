"""The headings of a load: a call under `load:`, where its keys come from, and what its answers mean."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pglast
from pglast import ast
from pglast.parser import ParseError
from pglast.visitors import Visitor

from harness.contracts.contract import Function, KeysQuery, Parameter, Retry
from harness.contracts.declared import CLIENT, KEY, KINDS, NUMBER, VARIABLES, Call, Load, Planned, Rule
from harness.contracts.invariants import Invariant
from harness.environment.identity import Identity
from harness.errors import UsageError
from harness.scenarios.headings import Section
from harness.scenarios.scenario import SUFFIX, Busy, Condition, Session
from harness.scenarios.variables import replaced, substituted, unset_variable
from harness.sqltext.placeholders import numbered
from harness.sqltext.scripts import Script, Statement
from harness.verdict import thresholds

_CAPACITY = re.compile(r"at most (\d+) applied per key")
_THRESHOLD = re.compile(r"(?:([\w-]+)\s+)?((?:avg|min|med|max|count|rate|p)\b.*)")
_NUMBERS = {CLIENT: "integer", NUMBER: "bigint"}
_NOT_BESIDE = ("session", "judge", "ignore", "allow", "now")
"""Headings of sessions, which a load has no use for."""

WORDS = ("load", "keys", "missing keys", "applied", "refused", "missing", "capacity", "threshold", "pattern")
"""Headings of loads, which sessions have no use for."""


class LoadHeadings(ABC):
    """The part of the reader that reads these headings."""

    path: Path
    text: str
    claim: str
    busy: list[Busy]
    conditions: list[Condition]
    of_file: Session

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        """Word -> where it stood last."""
        self.calls: list[Call] = []
        self.queries: dict[str, KeysQuery] = {}
        self.rules: list[Rule] = []
        self.capacity: int | None = None
        self.thresholds: dict[str, tuple[str, ...]] = {}
        self.patterns: list[Planned] = []
        self.setup_bodies: list[tuple[int, str]] = []
        """Where each setup begins in the text, and what stands there."""

    @abstractmethod
    def _statements(self, body: str, line: int) -> Iterator[Statement]: ...

    @abstractmethod
    def _condition(self, section: Section, name: str) -> Busy: ...

    @abstractmethod
    def _empty(self, section: Section) -> None: ...

    @abstractmethod
    def _end_session(self) -> None: ...

    @abstractmethod
    def _error(self, line: int, what: str, next_step: str) -> UsageError: ...

    def load(self) -> Load | None:
        """The load of the file, where it has one. Raises UsageError for one that is not whole."""
        if not self.calls:
            if alone := next((word for word in self.lines if word in WORDS), None):
                raise self._error(
                    self.lines[alone], f"`{alone}:` is of a load, and there is none.", "write the call below `-- load:`"
                )
            return None
        if stray := next((word for word in _NOT_BESIDE if word in self.lines), None):
            raise self._error(
                self.lines[stray], f"`{stray}:` does not belong beside `load:`.", "make it two files, one for the load"
            )
        if "keys" not in self.queries:
            raise self._error(
                self.lines["load"],
                "The load has no keys.",
                "write a query that makes :count of them below `-- keys:`",
            )
        self._check_names()
        self._check_conditions()
        rules = [*self.rules, *(self._rule("busy", each) for each in self.busy)]
        if not any(rule.kind == "applied" for rule in rules):
            raise self._error(
                self.lines["load"], "Nothing says which answers are right.", "add `-- applied: when CONDITION`"
            )
        self._check_labels(rules)
        retry = self.of_file.retry
        identity = replace(self.of_file.identity, isolation=self.of_file.isolation or None)
        decides = frozenset[str]().union(*(rule.columns for rule in rules))
        return Load(
            path=self.path,
            line=self.calls[0].line,
            claim=self.claim,
            calls=tuple(replace(c, function=replace(c.function, deciding=decides)) for c in self.calls),
            keys=self.queries["keys"],
            rules=tuple(rules),
            missing_keys=self.queries.get("missing keys"),
            capacity=self.capacity or 1,
            thresholds=self.thresholds,
            patterns=tuple(self.patterns),
            conditions=tuple(_invariant(self.path, at, each) for at, each in enumerate(self.conditions, 1)),
            setup=self._setup_script(),
            identity=None if identity == Identity() else identity,
            retry=None if retry is None else Retry(tuple(sorted(retry.codes)), retry.times),
        )

    def _check_conditions(self) -> None:
        for each in self.conditions:
            if name := unset_variable(each.sql, ()):
                raise self._error(
                    each.line,
                    f"`{each.kind}:` of a load knows no variables, and names :{name}.",
                    "write the value, or look for it in a table",
                )

    def _check_names(self) -> None:
        names = [call.name for call in self.calls]
        if twice := next((call for call in self.calls if names.count(call.name) > 1), None):
            raise self._error(twice.line, f"Two calls are named {twice.name!r}.", "give each `load:` its own name")

    def _check_labels(self, rules: Sequence[Rule]) -> None:
        kinds: dict[str, Rule] = {}
        for rule in rules:
            other = kinds.setdefault(rule.label, rule)
            if other.kind != rule.kind:
                raise self._error(
                    rule.line,
                    f"{rule.label!r} is {rule.kind} here and {other.kind} on line {other.line}.",
                    "give each meaning its own name",
                )
        silent = [rule for rule in rules if rule.no_row]
        if len({rule.label for rule in silent}) > 1:
            raise self._error(
                silent[1].line,
                f"No row means {silent[0].label!r} on line {silent[0].line}, and {silent[1].label!r} here.",
                "keep one of the lines",
            )

    def _setup_script(self) -> Script | None:
        """The setups as a script in which every line has the number that it has in the file."""
        if not any(body.strip() for _, body in self.setup_bodies):
            return None
        text, at = "", 0
        for start, body in self.setup_bodies:
            text += "\n" * self.text.count("\n", at, start) + body + ";"
            at = start + len(body)
        return Script(self.path, text)

    # -- the headings

    def _load(self, section: Section) -> None:
        self._end_session()
        [statement] = self._one(section, "the call")
        number = f" {len(self.calls) + 1}" if self.calls else ""
        name = section.rest or f"{self.path.name.removesuffix(SUFFIX)}{number}"
        self.calls.append(self._call(statement, name))

    def _keys(self, section: Section) -> None:
        self._end_session()
        if section.rest:
            raise self._error(section.line, f"`{section.word}:` takes nothing on its line.", "put the query below it")
        if section.word in self.queries:
            raise self._error(section.line, f"There are two queries `{section.word}:`.", "keep one of them")
        [statement] = self._one(section, "a query")
        parts = _cut(statement.text, "count")
        if len(parts) == 1 and section.word == "keys":
            raise self._error(
                statement.line, "The query of `keys:` does not say how many it makes.", "write :count for the number"
            )
        self._parsed_with(statement, "1".join(parts))
        self.queries[section.word] = KeysQuery(parts, f"{self.path}:{statement.line}")

    _missing_keys = _keys

    def _applied(self, section: Section) -> None:
        self._end_session()
        self._empty(section)
        self.rules.append(self._rule(section.word, self._condition(section, KINDS[section.word])))

    _refused = _missing = _applied

    def _capacity(self, section: Section) -> None:
        self._end_session()
        self._empty(section)
        match = _CAPACITY.fullmatch(section.rest)
        if match is None or not 1 <= int(match[1]) <= 1_000_000:
            raise self._error(
                section.line, f"{section.rest!r} is not a capacity.", "write `capacity: at most 1 applied per key`"
            )
        if self.capacity is not None:
            raise self._error(section.line, "There are two lines `capacity:`.", "keep one of them")
        self.capacity = int(match[1])

    def _threshold(self, section: Section) -> None:
        self._end_session()
        self._empty(section)
        match = _THRESHOLD.fullmatch(section.rest)
        metric, expression = (match[1] or "duration", match[2]) if match else ("duration", section.rest)
        try:
            thresholds.parse(metric, expression)
        except UsageError as error:
            raise self._error(section.line, error.what, error.next_step) from error
        self.thresholds[metric] = (*self.thresholds.get(metric, ()), expression)

    def _pattern(self, section: Section) -> None:
        self._end_session()
        self._empty(section)
        name, *words = section.rest.split() or [""]
        if not name or len(words) % 2:
            raise self._error(
                section.line,
                f"{section.rest!r} is not a pattern.",
                "write `pattern: race`, or `pattern: race rounds 40`",
            )
        self.patterns.append(Planned(section.line, name, tuple(zip(words[::2], words[1::2], strict=True))))

    def _one(self, section: Section, what: str) -> list[Statement]:
        statements = list(self._statements(section.body, section.line))
        if len(statements) != 1:
            raise self._error(
                section.line, f"`{section.word}:` has {len(statements)} statements below it.", f"put {what} there"
            )
        return statements

    def _parsed_with(self, statement: Statement, text: str) -> ast.RawStmt:
        try:
            parsed: tuple[ast.RawStmt, ...] = pglast.parse_sql(text)
        except ParseError as error:
            raise self._error(
                statement.line, f"{' '.join(statement.text.split())!r} does not parse: {error.args[0]}.", "mend the SQL"
            ) from error
        return parsed[0]

    # -- what they say

    def _call(self, statement: Statement, name: str) -> Call:
        named, names = numbered(self._named(statement, typed=False))
        if unknown := [each for each in names if each not in VARIABLES]:
            raise self._error(
                statement.line,
                f"The call names :{unknown[0]}, which is nothing.",
                f"use {', '.join(f':{each}' for each in VARIABLES)}",
            )
        if KEY not in names:
            raise self._error(
                statement.line, "The call names no key.", "write :'key' where the key belongs that clients contend for"
            )
        parsed = self._parsed_with(statement, named)
        if isinstance(parsed.stmt, (ast.TransactionStmt, ast.VariableSetStmt, ast.CopyStmt)):
            raise self._error(
                statement.line, "The call changes no table and reads none.", "call a function, or write SQL"
            )
        plain = _plain_function(parsed.stmt, names)
        if plain is not None:
            function, arguments = plain
            key = next(parameter for parameter, value in arguments.items() if value == _Variable(KEY))
            parameters = tuple(Parameter(each) for each in arguments)
            variables = {p: v.name for p, v in arguments.items() if isinstance(v, _Variable) and v.name != KEY}
            values = {p: v for p, v in arguments.items() if not isinstance(v, _Variable)}
            return Call(name, statement.line, Function(function, parameters, key=key), values, variables)
        described = Function(
            name,
            tuple(Parameter(each) for each in names),
            key=KEY,
            statement=self._named(statement, typed=True),
            counter=NUMBER if NUMBER in names else None,
        )
        variables = {each: each for each in names if each not in (KEY, NUMBER)}
        return Call(name, statement.line, described, {}, variables)

    def _named(self, statement: Statement, *, typed: bool) -> str:
        """The call with `:name` for each variable; `typed` as what psql would put there: a number, or a text."""

        def put(name: str, quote: str) -> str:
            if quote == '"':
                raise self._error(
                    statement.line, f'The call names :"{name}".', "write a name as it is: a variable stands for a value"
                )
            if not typed or name not in _NUMBERS:
                return f":{name}"
            return f"(:{name})::{_NUMBERS[name]}{'::text' if quote else ''}"

        return replaced(statement.text, put)

    def _rule(self, kind: str, given: Busy) -> Rule:
        if kind == "applied" and (given.code or given.nothing_changed):
            why = "an error has rolled everything back" if given.code else "nothing was applied"
            raise self._error(
                given.line, f"`applied: when {given.text}` cannot be: {why}.", "name it as refused:, busy: or missing:"
            )
        message = None if given.like is None else f"(?s-i:\\A{_like(given.like)}\\Z)"
        rule = Rule(kind, given.name, given.line, given.text, given.code, message)
        if given.nothing_changed:
            return replace(rule, no_row=True, sql="rows = 0", columns=frozenset({"rows"}))
        if given.no_row or given.code:
            return replace(rule, no_row=given.no_row)
        columns = _Columns()
        columns(pglast.parse_sql(f"SELECT ({given.sql})"))
        if columns.odd:
            raise self._error(
                given.line,
                f"The condition {given.text!r} names more than the answer's columns: {columns.odd}.",
                "write SQL over the columns of one answer; what the tables must hold is a query below never:",
            )
        return replace(rule, sql=given.sql, columns=frozenset(columns.names))


@dataclass(frozen=True, slots=True)
class _Variable:
    name: str


class _Columns(Visitor):
    """The columns that a condition names, and what it names beside them."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.odd = ""

    def visit_ColumnRef(self, ancestors: Any, node: Any) -> None:  # noqa: N802
        parts = [getattr(field, "sval", "*") for field in node.fields]
        if len(parts) == 2 and parts[0] == "answer":
            parts = parts[1:]
        if len(parts) > 1 or parts[0] == "*":
            self.odd = self.odd or ".".join(parts)
        else:
            self.names.add(parts[0])

    def visit_SubLink(self, ancestors: Any, node: Any) -> None:  # noqa: N802
        self.odd = self.odd or "a query"


def _plain_function(statement: Any, names: Sequence[str]) -> tuple[str, dict[str, Any]] | None:
    """The function and its arguments, where a call is `SELECT * FROM function(name => value, ...)` or CALL, and each
    value a constant or a variable: as that it can be called by any door."""
    if isinstance(statement, ast.CallStmt):
        called: Any = statement.funccall
    elif isinstance(statement, ast.SelectStmt):
        called = _only_function(statement)
    else:
        return None
    if called is None or called.agg_filter or called.over or called.func_variadic:
        return None
    arguments: dict[str, Any] = {}
    given: Any = called.args or ()
    for argument in given:
        if not isinstance(argument, ast.NamedArgExpr):
            return None
        value = _value(argument.arg, names)
        if value is _NOTHING or value == _Variable(NUMBER):
            return None
        arguments[str(argument.name)] = value
    if list(arguments.values()).count(_Variable(KEY)) != 1:
        return None
    return ".".join(_quoted(part.sval) for part in called.funcname), arguments


_MORE = (
    "distinctClause", "whereClause", "groupClause", "havingClause", "windowClause", "valuesLists", "withClause",
    "sortClause", "limitOffset", "limitCount", "lockingClause", "larg", "intoClause",
)  # fmt: skip
"""What a query may have beyond a list of columns and a table."""


def _only_function(query: Any) -> Any:
    if any(getattr(query, each) for each in _MORE):
        return None
    [*targets], [*sources] = query.targetList or (), query.fromClause or ()
    if len(targets) != 1 or len(sources) != 1 or not isinstance(sources[0], ast.RangeFunction):
        return None
    star: Any = targets[0].val
    source: Any = sources[0]
    if not isinstance(star, ast.ColumnRef) or [type(each) for each in star.fields or ()] != [ast.A_Star]:
        return None
    if source.lateral or source.ordinality or source.is_rowsfrom or source.coldeflist:
        return None
    if source.alias is not None and source.alias.colnames:
        return None
    called = source.functions[0][0]
    return called if isinstance(called, ast.FuncCall) else None


_NOTHING = object()


def _value(node: Any, names: Sequence[str]) -> Any:
    """A constant's value, or the variable that stands there; `_NOTHING` for an expression."""
    if isinstance(node, ast.TypeCast) and isinstance(node.arg, ast.A_Const) and isinstance(node.arg.val, ast.String):
        node = node.arg  # the parameter has the type
    if isinstance(node, ast.ParamRef):
        return _Variable(names[(node.number or 1) - 1])
    if not isinstance(node, ast.A_Const):
        return _NOTHING
    if node.isnull:
        return None
    constant: Any = node.val
    if isinstance(constant, ast.Integer):
        return constant.ival
    if isinstance(constant, ast.Boolean):
        return constant.boolval
    return constant.sval if isinstance(constant, ast.String) else str(constant.fval)


def _quoted(name: str) -> str:
    return f'"{name}"' if "." in name else name


def _cut(text: str, variable: str) -> tuple[str, ...]:
    """A text cut where a variable stands."""
    mark = "\0"
    return tuple(substituted(text, {variable: mark}).replace(f"'{mark}'", mark).split(mark))


def _invariant(path: Path, at: int, condition: Condition) -> Invariant:
    query = condition.sql.rstrip().rstrip(";")
    if condition.kind == "always":
        # A row in which a value is not true.
        query = (
            f"SELECT * FROM (\n{query}\n) AS each "  # noqa: S608
            "WHERE EXISTS (SELECT FROM jsonb_each(to_jsonb(each)) AS v WHERE v.value IS DISTINCT FROM 'true'::jsonb)"
        )
    claim = condition.claim or " ".join(condition.sql.split())[:80]
    said = f"{condition.kind.capitalize()}: {claim}{'' if claim.endswith('.') else '.'}"
    return Invariant(f"{condition.kind}_{at}", said, query, path, condition.line)


def _like(pattern: str) -> str:
    """A LIKE pattern as a regular expression."""
    return "".join(".*" if sign == "%" else "." if sign == "_" else re.escape(sign) for sign in pattern)
