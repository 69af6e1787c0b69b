"""What a piece of SQL touches, and when two steps commute: the ground of partial-order reduction.

The rule is conservative and by table. Under multiversioning a plain read never waits and never sees an uncommitted
write, so it commutes with a write; what it does not commute with is the end of the transaction that publishes the
write. Two writes (a row lock counts as a write) of one table never commute, nor do writes and the end of a
transaction that wrote there, because that end lets go of row locks. Whatever could not be read from the text, such as
dynamic SQL, commutes with nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pglast import ast, parse_sql
from pglast.enums import A_Expr_Kind, BoolExprType
from pglast.parser import ParseError

ADVISORY_LOCKS = "(advisory locks)"
NOTIFICATIONS = "(notifications)"
SEQUENCES = "(sequences)"
ANYWHERE = "(anywhere)"
"""Among the names of functions that touch data: one of them is called by an operator, a cast, a type, an aggregate or a
domain, so that any statement may call it."""

CATALOGUE = "(catalogue)"
"""What is defined in the database; whoever defines something is taken to touch everything."""
SNAPSHOTS = "(snapshots)"
"""What a transaction reads that keeps its first snapshot, and what the end of any transaction changes."""

WAITS = "(waits)"
"""What a step changes that waits for a lock: the order of two waits decides whom a deadlock fails."""

_NOTHING: frozenset[str] = frozenset()

_EFFECTFUL_BUILT_INS = {
    "pg_notify": NOTIFICATIONS,
    "nextval": SEQUENCES,
    "setval": SEQUENCES,
    "lastval": SEQUENCES,
    "pg_sequence_last_value": SEQUENCES,
}
"""Built-in functions by which sessions act on each other, and the pretended table that stands for what they touch."""

_READS_CATALOGUE = re.compile(
    r"to_reg|has_.*_privilege$|pg_get_|pg_has_role$|.*_is_visible$|.*_description$|pg_describe_"
)
_REGISTERED = re.compile(r"reg(class|type|proc|procedure|oper|operator|namespace|role|config|dictionary|collation)$")
"""Types whose input looks a name up in the catalogue."""

_RUNS_TEXT = re.compile(
    r"(query|cursor|table|schema|database)_to_xml|ts_stat$|ts_rewrite$|crosstab|connectby$|normal_rand$"
    r"|check_(primary|foreign)_key$"
)
"""Functions of the server and of its extensions that carry out a text, or read tables that an argument names."""

_DEPENDS_ON_ALL = re.compile(
    r"(txid|pg)_(current_snapshot|current_xact_id|status|xact_status|export_snapshot|last_committed_xact)|txid_current"
    r"|pg_xact_commit_timestamp|pg_(blocking|safe_snapshot_blocking)_pids$|pg_(lock_status|prepared_xact)$|pg_stat_"
    r"|pg_(cancel|terminate)_backend$|pg_logical_|pg_(relation|table|total_relation|indexes|database)_size$"
    r"|pg_(ls|read|stat)_|lo_|loread$|lowrite$|pg_notification_queue_usage$"
)
"""Functions whose value depends on what any other session does, or by which one acts on others: large objects, files,
snapshots, the state of other backends."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a step touches: tables by their names, with the schema."""

    reads: frozenset[str] = _NOTHING
    writes: frozenset[str] = _NOTHING
    """Tables written to, or with rows locked."""
    ends: frozenset[str] = _NOTHING
    """Tables written to by a transaction, or a part of one, that ends in this step."""
    everything: bool = False
    """It may touch anything."""
    unread: bool = False
    """Its text, or the text of something that it reaches, was not read in full: until it is measured, it may touch
    anything."""

    def __bool__(self) -> bool:
        return self.everything or self.unread or bool(self.reads or self.writes or self.ends)

    def __or__(self, other: Access) -> Access:
        return Access(
            self.reads | other.reads,
            self.writes | other.writes,
            self.ends | other.ends,
            self.everything or other.everything,
            self.unread or other.unread,
        )

    def covers(self, other: Access) -> bool:
        """Whether whoever knows of this access knows of all that conflicts with the other."""
        if self.everything or self.unread:
            return True
        return not (other.everything or other.unread) and (
            other.reads <= self.reads | self.writes and other.writes <= self.writes and other.ends <= self.ends
        )

    def at_its_strongest(self, traceless: Set[str]) -> Access:
        """What a step may have touched of which only this was measured, and whose text was not read in full.

        Reads may have locked rows; and what is `traceless` (a lock that was let go or refused, a notification, a
        sequence that the transaction used before) may have been touched too.
        """
        return Access(self.reads, self.writes | self.reads | traceless, self.ends, self.everything)

    def conflicts(self, other: Access) -> bool:
        """Whether the order of two steps can matter."""
        if self.everything or other.everything or self.unread or other.unread:
            return bool(self) and bool(other)
        return not (
            self.writes.isdisjoint(other.writes)
            and self.ends.isdisjoint(other.writes)
            and self.ends.isdisjoint(other.reads)
            and self.writes.isdisjoint(other.ends)
            and self.reads.isdisjoint(other.ends)
        )

    def at_serializable(self) -> Access:
        """The same where reads and writes of one table do not commute, whichever comes first.

        Each of the two orders is a dependency between the transactions, and on what dependencies there are already
        depends who is aborted.
        """
        return Access(self.reads, self.writes, self.ends | self.writes, self.everything, self.unread)

    def ending(self) -> Access:
        """What the end of a transaction with this access touches."""
        return Access(ends=self.writes, everything=self.everything, unread=self.unread)


@dataclass(frozen=True, slots=True)
class Written:
    """A table that a statement writes to, and how."""

    table: str
    command: str
    """insert, update, delete or lock."""
    columns: frozenset[str] = _NOTHING
    """Columns set by an update."""


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """`table.columns` reference `referenced.referenced_columns`."""

    table: str
    columns: frozenset[str]
    referenced: str
    referenced_columns: frozenset[str]
    on_delete: str | None = None
    """What a delete of the referenced row does to the table: delete, update (SET NULL, SET DEFAULT), or nothing."""
    on_update: str | None = None
    """The same for an update of the referenced columns."""

    def passed_on(self, written: Written) -> list[Written]:
        """What a write to the referenced table does to the other."""
        if written.table != self.referenced:
            return []
        if written.command == "delete" and self.on_delete:
            return [Written(self.table, self.on_delete, self.columns)]
        if written.command == "update" and self.on_update and written.columns & self.referenced_columns:
            return [Written(self.table, self.on_update, self.columns)]
        return []


@dataclass(slots=True)
class Touched:
    """What one SQL text names, before the catalogue is asked what that leads to."""

    reads: set[str] = field(default_factory=set)
    written: set[Written] = field(default_factory=set)
    locked: set[tuple[str, frozenset[str]]] = field(default_factory=set)
    """Tables in which a statement locks rows that it looks for, with the columns that it pins to one value."""
    calls: set[str] = field(default_factory=set)
    """Functions called, by their bare names; with a dot before it, where it may be one that is called as a column."""
    everything: bool = False
    unread: bool = False
    """Some of it could not be read."""
    dynamic: bool = False
    """Some of it is put together when it runs."""
    ends: bool = False
    """It ends transactions: a procedure with COMMIT or ROLLBACK."""
    block: bool = False
    """It is executed as one step, and is several: a DO block, or a text of several statements."""

    def __ior__(self, other: Touched) -> Touched:
        self.reads |= other.reads
        self.written |= other.written
        self.locked |= other.locked
        self.calls |= other.calls
        self.everything |= other.everything
        self.unread |= other.unread
        self.dynamic |= other.dynamic
        self.ends |= other.ends
        self.block |= other.block
        return self

    def matters(self, functions: Set[str]) -> bool:
        """Whether data can be touched, where `functions` are those that may touch data themselves."""
        if self.everything or self.unread or self.dynamic or self.reads or self.written:
            return True
        return ANYWHERE in functions or not self.calls.isdisjoint(functions)

    def access(self, foreign_keys: Mapping[str, tuple[ForeignKey, ...]]) -> Access:
        """The access by this text alone, with the locks that its foreign keys take.

        `foreign_keys` are given by table, each under both of its tables.
        """
        writes = set()
        for written in self.written:
            writes.add(written.table)
            for key in foreign_keys.get(written.table, ()):
                writes |= _checked(written, key)
        return Access(frozenset(self.reads), frozenset(writes), everything=self.everything, unread=self.unread)


def _checked(written: Written, key: ForeignKey) -> set[str]:
    """The table at the other end of a foreign key, if this write makes the server look at it."""
    touched = set()
    if written.table == key.table and (
        written.command == "insert" or (written.command == "update" and written.columns & key.columns)
    ):
        touched.add(key.referenced)
    if written.table == key.referenced and (
        written.command == "delete" or (written.command == "update" and written.columns & key.referenced_columns)
    ):
        touched.add(key.table)
    return touched


def of_statement(sql: str) -> Touched:
    """What the statements of a text touch; unread, when they cannot be parsed."""
    try:
        statements = parse_sql(sql)
    except ParseError:
        return Touched(unread=True)
    touched = Touched()
    for raw in statements:
        _walk(raw.stmt, touched, frozenset())
    return touched


def of_executed(text: str) -> Touched:
    """What a text touches that is executed by one statement; several statements in it are then one step."""
    touched = of_statement(text)
    with suppress(ParseError):
        touched.block |= len(parse_sql(text)) > 1
    return touched


def of_expression(expression: str) -> Touched:
    """What a PL/pgSQL expression touches; it is a SELECT without the word."""
    return of_statement(f"SELECT {expression}")


def _walk(node: Any, touched: Touched, local: frozenset[str]) -> None:
    """Collect what a statement touches; `local` are the names of common table expressions in scope."""
    if isinstance(node, (tuple, list)):
        for item in node:
            _walk(item, touched, local)
        return
    if not isinstance(node, ast.Node):
        return
    with_clause = getattr(node, "withClause", None)
    if with_clause is not None:
        for cte in with_clause.ctes:
            # One that is not recursive does not see itself: WITH t AS (SELECT FROM t) reads the table.
            inside = local | {cte.ctename} if with_clause.recursive else local
            if with_clause.recursive:
                inside |= {other.ctename for other in with_clause.ctes}
            _walk(cte.ctequery, touched, inside)
            local = local | {cte.ctename}
    match node:
        case ast.RangeVar():
            if node.schemaname or node.relname not in local:
                touched.reads.add(_named(node))
        case ast.FuncCall():
            _call(node, touched)
        case ast.TypeName() if node.names and _REGISTERED.match(node.names[-1].sval):
            touched.reads.add(CATALOGUE)
        case ast.ColumnRef() if node.fields and len(node.fields) > 1:
            touched.calls |= _fields(node.fields[-1:])
        case ast.A_Indirection():
            touched.calls |= _fields(node.indirection)
        case ast.InsertStmt():
            _write(node, "insert", touched)
            conflict = node.onConflictClause
            if conflict is not None and conflict.targetList:
                _write(node, "update", touched, conflict.targetList)
        case ast.UpdateStmt():
            _write(node, "update", touched, node.targetList)
            touched.locked.add((_named(node.relation), _pinned(node.whereClause)))
        case ast.DeleteStmt():
            _write(node, "delete", touched)
            touched.locked.add((_named(node.relation), _pinned(node.whereClause)))
        case ast.MergeStmt():
            _write(node, "insert", touched)
            _write(node, "delete", touched)
            for clause in node.mergeWhenClauses or ():
                _write(node, "update", touched, clause.targetList)
        case ast.SelectStmt() if node.lockingClause:
            locked = [name for name in _tables(node.fromClause) if name not in local]
            touched.written |= {Written(name, "lock") for name in locked}
            limit = getattr(getattr(node.limitCount, "val", None), "ival", None)
            if limit != 1:
                pinned = _pinned(node.whereClause) if len(locked) == 1 else _NOTHING
                touched.locked |= {(name, pinned) for name in locked}
        case ast.NotifyStmt() | ast.ListenStmt() | ast.UnlistenStmt():
            touched.written.add(Written(NOTIFICATIONS, "insert"))
        case ast.VariableSetStmt() | ast.VariableShowStmt():
            return
        case ast.TransactionStmt() if not node.gid:
            return  # a session's own BEGIN, COMMIT, SAVEPOINT ..., which are known for what they are
        case ast.SelectStmt() | ast.CallStmt() | ast.ReturnStmt():
            pass
        case ast.DoStmt() | ast.ExecuteStmt():
            touched.unread = True
            touched.block |= isinstance(node, ast.DoStmt)
        case _ if type(node).__name__.endswith("Stmt"):
            # Data definition, LOCK, TRUNCATE, COPY ...: they may take any lock on anything.
            touched.everything = True
    for name in node:
        if name != "withClause":
            _walk(getattr(node, name), touched, local)


def _fields(parts: Any) -> set[str]:
    """Functions of a row that are called as if they were columns of it; a dot is before their names."""
    return {f".{part.sval}" for part in parts if isinstance(part, ast.String)}


def _pinned(condition: Any) -> frozenset[str]:
    """The columns that a condition lets have one value only: `column = something`, joined by AND."""
    if isinstance(condition, ast.BoolExpr) and condition.boolop == BoolExprType.AND_EXPR:
        return frozenset().union(*(_pinned(part) for part in condition.args or ()))
    if isinstance(condition, ast.A_Expr) and condition.kind == A_Expr_Kind.AEXPR_OP:
        sides = (condition.lexpr, condition.rexpr)
        columns = [str(side.fields[-1].sval) for side in sides if isinstance(side, ast.ColumnRef) and side.fields]
        if condition.name is not None and condition.name[-1].sval == "=":
            return frozenset(columns)
    return _NOTHING


def _named(node: Any) -> str:
    """A relation's name as the text gives it, with a dot after the schema where there is one."""
    return f"{node.schemaname}.{node.relname}" if node.schemaname else str(node.relname)


def _write(node: Any, command: str, touched: Touched, targets: Any = ()) -> None:
    columns = frozenset(target.name for target in targets or () if target.name)
    touched.written.add(Written(_named(node.relation), command, columns))


def _call(node: Any, touched: Touched) -> None:
    name = node.funcname[-1].sval
    touched.calls.add(name)
    if "advisory" in name and name.startswith("pg_"):
        touched.written.add(Written(ADVISORY_LOCKS, "lock"))
    elif name in _EFFECTFUL_BUILT_INS:
        touched.written.add(Written(_EFFECTFUL_BUILT_INS[name], "insert"))
    elif _RUNS_TEXT.match(name):
        touched.unread = True
    elif _DEPENDS_ON_ALL.match(name):
        touched.everything = True
    elif _READS_CATALOGUE.match(name):
        touched.reads.add(CATALOGUE)


def _tables(node: Any) -> Iterator[str]:
    """Every table in a FROM clause. A lock OF some of them is taken to lock all."""
    if isinstance(node, (tuple, list)):
        for item in node:
            yield from _tables(item)
    elif isinstance(node, ast.RangeVar):
        yield _named(node)
    elif isinstance(node, ast.Node):
        for name in node:
            yield from _tables(getattr(node, name))
