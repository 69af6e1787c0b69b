"""One description of a call: what is called, with which parameters, and what comes back, as the server knows it.

It is made once for a database and a function, and load, explore and HTTP all go by it. The contract says what it relies
on; everything that it leaves out is looked up here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import DiagnosticField, ExecStatus, Format

from harness.contracts.contract import Column, Contract, Function, Parameter
from harness.environment.own import is_loss
from harness.errors import HarnessError, UsageError
from harness.sqltext import queries
from harness.sqltext.placeholders import numbered
from harness.targets.values import JSON_TYPES, Type

_SQL = queries.own("harness.targets")

_VOID = 2278
_AMBIGUOUS = b"42725"
_NEXT = "change the function, or give the contract it follows with --contract"

ROW = "harness_row"
"""The column of a timed call that says that there was a row."""


@dataclass(frozen=True, slots=True)
class Typed:
    """A parameter or a column of the answer, by name and type."""

    name: str
    kind: Type


@dataclass(frozen=True, slots=True)
class CallDescription:
    """How one function, procedure or statement is called."""

    function: Function
    oid: int | None
    """Of the function or procedure; None: a statement of plain SQL."""
    schema: str | None
    signature: str
    """As the server spells it, with the types of its parameters; of a statement, its name."""
    procedure: bool
    overloads: tuple[str, ...]
    """Signatures of the others with its name that were to be had."""
    parameters: tuple[Typed, ...]
    """In the order of $1, $2, ..."""
    labels: tuple[Typed, ...]
    """The columns that decide the label."""
    evidence: tuple[Typed, ...]
    columns: tuple[str, ...]
    """Names of all columns of the answer, in its own order."""
    bare: bool
    """It answers with one value that is no row: through PostgREST, JSON without a name."""
    rows: bool
    """It answers with rows; else with how many it changed."""
    statement: bytes
    """As it is sent; label columns first, then evidence."""
    timed: bytes | None
    """The same between two readings of the server's clock; None: it cannot stand inside a query."""
    call: str
    """Of a function, the call itself, `schema.name(p_id => $1)`; of anything else, the statement."""

    @property
    def key_at(self) -> int:
        """The place of the key among the parameters."""
        return next(at for at, each in enumerate(self.parameters) if each.name == self.function.key)

    @property
    def counter_at(self) -> int | None:
        """The place of the number of the client's call among the parameters; None where none is one."""
        return next((at for at, each in enumerate(self.parameters) if each.name == self.function.counter), None)

    @property
    def binary(self) -> bool:
        """Whether its answer is asked for in binary: where columns can be cast to what can be read so."""
        return self.timed is not None

    def notes(self) -> list[str]:
        """What a report should say of it."""
        if not self.overloads:
            return []
        others = ", ".join(self.overloads)
        return [f"{self.signature} is called; there are other functions of the name: {others}"]


def describe(connection: psycopg.Connection[Any], contract: Contract, function: Function) -> CallDescription:
    """Look a function up and have the server parse its call.

    Raises HarnessError for one that is not there or not as the contract expects it, with both shown, and UsageError for
    a contract that cannot be followed. Of one that a file declares both name the line.
    """
    try:
        return _describe(connection, contract, function)
    except HarnessError as error:
        load = contract.declared
        line = None if load is None else next((c.line for c in load.calls if c.function == function), None)
        if load is None or line is None:
            raise
        cause = error.__cause__
        wrong_sql = isinstance(cause, psycopg.Error) and (cause.sqlstate or "").startswith("42")
        raise (UsageError if wrong_sql else type(error))(
            f"{load.place(line)}: {error.what}",
            tried=error.tried,
            next_step="mend the call, or the migrations and the setup that it builds on"
            if wrong_sql
            else error.next_step,
        ) from cause


def _describe(connection: psycopg.Connection[Any], contract: Contract, function: Function) -> CallDescription:
    given = _arguments(contract, function)
    if function.statement is not None:
        return _of_statement(connection, function, given)
    fitting, found = _fitting(connection, function, given)
    for routine in fitting:
        call = _call(connection, function, given, routine)
        if call is not None:
            others = tuple(other.signature for other in found if other is not routine)
            return _of_routine(connection, function, given, routine, others, call)
    raise HarnessError(
        f"{function.name} is ambiguous: the server cannot tell which function of that name is called.",
        tried=f"{'; '.join(routine.signature for routine in fitting)}, by name and by place",
        next_step="give more of its parameters a value: "
        f"{', '.join(f'Parameter({a.name!r}, {a.type!r})' for a in fitting[-1].inputs)}",
    )


def _arguments(contract: Contract, function: Function) -> Mapping[str, Any]:
    """A value of every parameter that is given one, by name, as the first variant has it."""
    values: dict[str, Any] = {function.key: None}
    if function.counter is not None:
        values[function.counter] = None
    for variant in contract.variants:
        for client in (0, 1):
            if contract.function_of(variant, client) == function:
                for name, value in variant.arguments(client).items():
                    if values.get(name) is None:
                        values[name] = value
    declared = [p.name for p in function.parameters]
    if declared:
        if missing := [name for name in declared if name not in values]:
            raise UsageError(
                f"No variant of {contract.name} gives the parameter {missing[0]} of {function.name} a value.",
                tried=f"variants: {'; '.join(v.name for v in contract.variants)}",
                next_step="let Variant.arguments give it, or leave the parameter out where it has a default",
            )
        return {name: values[name] for name in declared}
    return values


@dataclass(frozen=True, slots=True)
class _Argument:
    name: str
    mode: str
    oid: int
    type: str
    optional: bool

    @property
    def polymorphic(self) -> bool:
        return self.type.startswith("any") or self.type == '"any"'


@dataclass(frozen=True, slots=True)
class _Routine:
    """A row of the query `functions`."""

    oid: int
    signature: str
    schema: str
    procedure: bool
    set: bool
    arguments: tuple[_Argument, ...]
    returns: str
    columns: tuple[str, ...]

    @property
    def inputs(self) -> tuple[_Argument, ...]:
        return tuple(a for a in self.arguments if a.mode in "ibv")

    def __str__(self) -> str:
        takes = ", ".join(f"{a.name} {a.type}" for a in self.inputs)
        return f"({takes}) RETURNS ({', '.join(self.columns)})"

    def takes(self, given: Mapping[str, int | None]) -> bool:
        """Whether it can be called with parameters of these names, and of these types where they are given."""
        mine = {a.name: a for a in self.inputs}
        fits = all(
            name in mine and (oid is None or mine[name].oid == oid or mine[name].polymorphic)
            for name, oid in given.items()
        )
        return fits and all(a.optional or a.name in given for a in self.inputs)


def _fitting(
    connection: psycopg.Connection[Any], function: Function, given: Mapping[str, Any]
) -> tuple[list[_Routine], list[_Routine]]:
    """The functions that may be meant, the likeliest first, and all of the name.

    Raises HarnessError with expected and found where there is none.
    """
    schema, name = split_name(function.name)
    rows = connection.execute(_SQL["functions"], {"name": name, "schema": schema}).fetchall()
    found = [_routine(row) for row in rows]
    if not found:
        raise HarnessError(
            f"There is no function {function.name} in the database.",
            tried=f"pg_proc in the schemas of the search path; expected {function}",
            next_step="check that --migrations names the migrations that create it",
        )
    declared = {p.name: p.type for p in function.parameters}
    types = {each: _named_type(connection, function, each, declared.get(each)) for each in given}
    fitting = [routine for routine in found if routine.takes(types)]
    if not fitting:
        expected = ", ".join(f"{each} {declared.get(each) or ''}".rstrip() for each in given)
        columns = ", ".join(f"{c.name} {c.type or ''}".rstrip() for c in function.columns)
        shown = "\n    ".join(f"found:    {routine}" for routine in found)
        raise HarnessError(
            f"The function {function.name} is not as the contract expects it.",
            tried=f"\n    expected: ({expected}) RETURNS ({columns})\n    {shown}",
            next_step=_NEXT,
        )
    first = [routine for routine in fitting if routine.schema == fitting[0].schema]
    fewest = min(len(routine.inputs) for routine in first)
    best = [routine for routine in first if len(routine.inputs) == fewest]
    if len(best) > 1:
        raise HarnessError(
            f"{function.name} is ambiguous: {len(best)} functions of that name take these parameters.",
            tried="; ".join(routine.signature for routine in best),
            next_step="name the types of its parameters in the contract: "
            f"{', '.join(f'Parameter({a.name!r}, {a.type!r})' for a in best[0].inputs)}",
        )
    return sorted(first, key=lambda routine: len(routine.inputs)), found


def _routine(row: Sequence[Any]) -> _Routine:
    oid, signature, schema, procedure, returns_set, arguments, defaults, returns, columns = row
    inputs = sum(mode in "ibv" for _, mode, _, _ in arguments)
    made, number = [], 0
    for name, mode, type_oid, type_name in arguments:
        number += mode in "ibv"
        made.append(_Argument(name or f"${number}", mode, type_oid, type_name, number > inputs - defaults))
    return _Routine(oid, signature, schema, procedure, returns_set, tuple(made), returns, tuple(columns))


def _of_routine(
    connection: psycopg.Connection[Any],
    function: Function,
    given: Mapping[str, Any],
    routine: _Routine,
    others: tuple[str, ...],
    call: sql.Composed,
) -> CallDescription:
    wanted, oids = _wanted(connection, function, given, routine)
    types = load_types(connection, oids)
    parameters = tuple(Typed(a.name, types[oid]) for a, oid in zip(wanted, oids, strict=True))
    name = split_name(function.name)[1]
    if routine.procedure:
        text = (sql.SQL("CALL ") + call).as_bytes(connection)
        columns, rows = _described(connection, text, oids, function)
        labels, evidence = _columns(connection, function, columns, routine)
        # Whatever order it gives them in.
        return CallDescription(
            function, routine.oid, routine.schema, routine.signature, True, others, parameters,
            labels, evidence, _names(columns), bare=False, rows=rows, statement=text, timed=None,
            call=call.as_string(connection),
        )  # fmt: skip
    alias: sql.Composable = sql.Identifier(name)
    names: sql.Composable | None = None
    if routine.returns == "record" and routine.columns == (f"{name} record",):
        if not function.columns or any(c.type is None for c in function.columns):
            raise HarnessError(
                f"{function.name} returns a record of columns that only its caller knows.",
                next_step="name its columns with their types, in order, in the contract: Column('ok', 'boolean')",
            )
        of = [sql.Identifier(c.name) + sql.SQL(" " + str(c.type)) for c in function.columns]
        names = sql.SQL("({})").format(sql.SQL(", ").join(of))
        alias = sql.SQL("g ") + names
    bare = sql.SQL(_SQL["bare_call"]).format(call=call, names=alias).as_bytes(connection)
    columns, _ = _described(connection, bare, oids, function)
    labels, evidence = _columns(connection, function, columns, routine)
    if names is None:
        names = sql.SQL("({})").format(sql.SQL(", ").join(sql.Identifier(c.name) for c in columns))
    selected = [_selected(connection, c) for c in (*labels, *evidence)]
    kept = [sql.Identifier(f"harness_{at}") for at in range(len(selected))]
    plain = sql.SQL(_SQL["call"]).format(columns=sql.SQL(", ").join(selected), call=call, names=names)
    timed = sql.SQL(queries.text("harness.targets", "overlap.sql")).format(
        found=sql.SQL(", ").join([sql.SQL("f.") + sql.Identifier(ROW), *(sql.SQL("f.") + each for each in kept)]),
        columns=sql.SQL(", ").join(s + sql.SQL(" AS ") + k for s, k in zip(selected, kept, strict=True)),
        call=call,
        names=names,
    )
    scalar = len(columns) == 1 and columns[0].name == name and not any(a.mode in "otb" for a in routine.arguments)
    return CallDescription(
        function, routine.oid, routine.schema, routine.signature, False, others, parameters, labels, evidence,
        _names(columns), bare=scalar and not routine.set, rows=True, statement=plain.as_bytes(connection),
        timed=timed.as_bytes(connection), call=call.as_string(connection),
    )  # fmt: skip


def _of_statement(connection: psycopg.Connection[Any], function: Function, given: Mapping[str, Any]) -> CallDescription:
    assert function.statement is not None
    text, names = numbered(function.statement)
    if unknown := [name for name in names if name not in given]:
        raise UsageError(
            f"The statement {function.name} names the parameter :{unknown[0]}, which is given no value.",
            next_step="let the variants give it, or make it the key",
        )
    if unused := [name for name in given if name not in names]:
        raise UsageError(
            f"The statement {function.name} does not name its parameter {unused[0]}.",
            tried=function.statement.strip(),
            next_step=f"write :{unused[0]} where its value belongs",
        )
    declared = {p.name: p.type for p in function.parameters}
    oids = [_named_type(connection, function, name, declared.get(name)) or 0 for name in names]
    encoded = text.encode()
    columns, rows = _described(connection, encoded, oids, function)
    found = connection.pgconn.describe_prepared(b"")
    oids = [found.param_type(at) for at in range(found.nparams)]
    types = load_types(connection, oids)
    labels, evidence = _columns(connection, function, columns, None)
    calls_procedure = re.match(r"\s*CALL\b", text, re.IGNORECASE) is not None
    return CallDescription(
        function, None, None, function.name, calls_procedure, (),
        tuple(Typed(name, types[oid]) for name, oid in zip(names, oids, strict=True)),
        labels, evidence, _names(columns), bare=False, rows=rows, statement=encoded, timed=None, call=text,
    )  # fmt: skip


def _names(columns: Sequence[Typed]) -> tuple[str, ...]:
    return tuple(column.name for column in columns)


def _wanted(
    connection: psycopg.Connection[Any], function: Function, given: Mapping[str, Any], routine: _Routine
) -> tuple[list[_Argument], list[int]]:
    """The parameters that are given a value, and the oids of their types."""
    declared = {p.name: p for p in function.parameters}
    wanted = [a for a in routine.inputs if a.name in given]
    return wanted, [_parameter_oid(connection, function, a, declared.get(a.name), given[a.name]) for a in wanted]


def _call(
    connection: psycopg.Connection[Any], function: Function, given: Mapping[str, Any], routine: _Routine
) -> sql.Composed | None:
    """The call, its arguments by name, or else by place; None where the server cannot tell that this one is meant.

    Beside a VARIADIC function may stand one that takes the same array and has defaults for the rest: by name, and with
    the word VARIADIC, both are meant, and by place without it the other one.
    """
    wanted, oids = _wanted(connection, function, given, routine)
    name = sql.Identifier(routine.schema, split_name(function.name)[1])
    calls = [sql.SQL("{}({})").format(name, _passed(function, routine, wanted))]
    if list(routine.inputs[: len(wanted)]) == wanted:
        calls.append(sql.SQL("{}({})").format(name, _passed(function, routine, wanted, by_place=len(wanted))))
    for call in calls:
        text = (sql.SQL("CALL " if routine.procedure else "SELECT ") + call).as_bytes(connection)
        result = connection.pgconn.prepare(b"", text, oids)
        if result.error_field(DiagnosticField.SQLSTATE) != _AMBIGUOUS:
            return call
    return None


def _passed(function: Function, routine: _Routine, wanted: Sequence[_Argument], by_place: int = 0) -> sql.Composed:
    """The arguments of the call: by name, or by place where there are no names, and those before `by_place`."""
    unnamed = [at for at, a in enumerate(routine.inputs) if a.name.startswith("$")]
    by_place = max(by_place, max(unnamed) + 1 if unnamed else 0)
    if missing := [a.name for a in routine.inputs[:by_place] if a not in wanted]:
        raise HarnessError(
            f"{function.name} cannot be called without its parameter {missing[0]}.",
            tried=f"{routine.signature}: parameters without names are given by place",
            next_step="give that parameter a value, too",
        )
    passed: list[sql.Composable] = []
    number = place = 0
    for argument in routine.arguments:
        place += argument.mode in "ibv"
        prefix = sql.SQL("VARIADIC ") if argument.mode == "v" else sql.SQL("")
        if argument.mode in "ibv" and argument in wanted:
            number += 1
            value: sql.Composable = sql.SQL(f"${number}")
        elif argument.mode == "o" and routine.procedure:
            value = sql.SQL("NULL")
        else:
            continue
        named = place > by_place and not argument.name.startswith("$")
        passed.append(prefix + (sql.Identifier(argument.name) + sql.SQL(" => ") + value if named else value))
    return sql.SQL(", ").join(passed)


def _parameter_oid(
    connection: psycopg.Connection[Any], function: Function, argument: _Argument, declared: Parameter | None, value: Any
) -> int:
    if not argument.polymorphic:
        return argument.oid
    named = _named_type(connection, function, argument.name, None if declared is None else declared.type)
    if named is not None:
        return named
    try:
        oid = 0 if value is None else Transformer(connection).get_dumper(value, PyFormat.BINARY).oid
    except psycopg.ProgrammingError:
        oid = 0
    if not oid and isinstance(value, str):
        oid = psycopg.adapters.types["text"].oid
    if not oid:
        raise HarnessError(
            f"The parameter {argument.name} of {function.name} takes any type, and nothing says which.",
            tried=f"{argument.name} {argument.type}",
            next_step=f"name it in the contract: Parameter({argument.name!r}, 'uuid')",
        )
    return oid


def _named_type(connection: psycopg.Connection[Any], function: Function, name: str, wanted: str | None) -> int | None:
    """The oid of a type that the contract names; None where it names none."""
    if wanted is None:
        return None
    try:
        row = connection.execute(_SQL["type_named"], [wanted]).fetchone()
    except psycopg.Error as error:  # a text that is no type's name at all
        if is_loss(error):
            raise
        row = None
    if row is None or row[0] is None:
        raise HarnessError(
            f"There is no type {wanted!r} in the database, which {name} of {function.name} has in the contract.",
            next_step="spell it as the server does, with its schema, or leave it out: then it is the server's",
        )
    return int(row[0])


def _described(
    connection: psycopg.Connection[Any], text: bytes, oids: Sequence[int], function: Function
) -> tuple[list[Typed], bool]:
    """The columns that a statement gives, and whether it gives rows at all."""
    result = connection.pgconn.prepare(b"", text, oids)
    if result.status != ExecStatus.COMMAND_OK:
        error = error_from_result(result)
        if is_loss(error):
            raise error
        raise HarnessError(
            f"The call of {function.name} cannot be prepared (SQLSTATE {error.sqlstate}).",
            tried=f"{text.decode()}\n    {' '.join(str(error).split())}",
            next_step="check the contract's function against the migrations",
        ) from error
    found = connection.pgconn.describe_prepared(b"")
    types = load_types(connection, [found.ftype(at) for at in range(found.nfields)])
    # Looking the types up may have taken the unnamed statement's place.
    connection.pgconn.prepare(b"", text, oids)
    columns = [Typed((found.fname(at) or b"").decode(), types[found.ftype(at)]) for at in range(found.nfields)]
    return columns, bool(columns)


def _columns(
    connection: psycopg.Connection[Any], function: Function, found: Sequence[Typed], routine: _Routine | None
) -> tuple[tuple[Typed, ...], tuple[Typed, ...]]:
    """Those that decide the label and those that are evidence. Raises HarnessError where one is not there."""
    if not found:
        changed = (Typed("rows", Type(20, "bigint", 20)),)
        return ((), ()) if routine is not None else (changed, ())
    if not function.columns:
        deciding = function.deciding
        return tuple(c for c in found if deciding is None or c.name in deciding), tuple(found)
    by_name = {column.name: column for column in found}
    for column in function.columns:
        mine = by_name.get(column.name)
        wanted = _named_type(connection, function, column.name, column.type)
        if mine is None or (
            wanted not in (None, mine.kind.oid) and load_types(connection, [wanted])[wanted].base != mine.kind.base
        ):
            answer = ", ".join(f"{each.name} {each.kind.name}" for each in found)
            expected = ", ".join(f"{c.name} {c.type or ''}".rstrip() for c in function.columns)
            takes = ", ".join(f"{p.name} {p.type or ''}".rstrip() for p in function.parameters)
            raise HarnessError(
                f"The function {function.name} is not as the contract expects it.",
                tried=f"\n    expected: ({takes}) RETURNS ({expected})\n    "
                f"found:    {routine if routine is not None else f'RETURNS ({answer})'}",
                next_step=_NEXT,
            )

    def those(columns: Iterable[Column]) -> tuple[Typed, ...]:
        return tuple(by_name[column.name] for column in columns)

    return those(c for c in function.columns if not c.evidence), those(c for c in function.columns if c.evidence)


def _selected(connection: psycopg.Connection[Any], column: Typed) -> sql.Composable:
    """A column in a form that can be read: as text where there is no binary form that Python knows."""
    chosen = sql.SQL("g.") + sql.Identifier(column.name)
    if column.kind.oid == _VOID:
        return sql.SQL("NULL::text")
    if readable_binary(connection, column.kind):
        return chosen
    return chosen + sql.SQL("::text[]" if column.kind.element is not None else "::text")


def readable_binary(connection: psycopg.Connection[Any], kind: Type) -> bool:
    """Whether psycopg reads a type's binary form; a composite value it would give without its names."""
    return connection.adapters.get_loader(kind.base, Format.BINARY) is not None and kind.name != "record"


def load_types(connection: psycopg.Connection[Any], oids: Iterable[int]) -> dict[int, Type]:
    """Types by their oids, with whatever they are made of."""
    rows: dict[int, Sequence[Any]] = {}
    due = asked = set(oids)
    while due:
        found = connection.execute(_SQL["types"], [sorted(due)]).fetchall()
        rows |= {row[0]: row for row in found}
        reached = {oid for row in found for oid in (row[2], row[3], *(of for _, of in row[4])) if oid is not None}
        due = reached - asked
        asked = asked | due
    made: dict[int, Type] = {}

    def make(oid: int) -> Type:
        if oid not in made:
            _, name, base, element, attributes = rows[oid]
            made[oid] = Type(oid, name, oid)  # a row may hold an array of its like
            beneath = None if base is None else make(base)
            made[oid] = Type(
                oid,
                name,
                oid if beneath is None else beneath.base,
                (None if element is None else make(element)) if beneath is None else beneath.element,
                tuple((attribute, make(of)) for attribute, of in attributes) if beneath is None else beneath.attributes,
                name in JSON_TYPES if beneath is None else beneath.is_json,
            )
        return made[oid]

    return {oid: make(oid) for oid in oids}


def split_name(name: str) -> tuple[str | None, str]:
    """Schema, where there is one, and name: `public.take`, or quoted where a part holds a dot, `"my.app"."take"`."""
    parts: list[str] = []
    rest = name
    while rest:
        if rest.startswith('"') and (end := rest.find('"', 1)) > 0:
            parts.append(rest[1:end])
            rest = rest[end + 1 :].removeprefix(".")
        else:
            part, _, rest = rest.partition(".")
            parts.append(part)
    return (".".join(parts[:-1]) or None, parts[-1]) if parts else (None, name)
