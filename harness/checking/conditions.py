"""What a scenario says of answers and final states, asked from the server: busy, never, always."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pglast
import psycopg
from pglast import ast
from pglast.visitors import Visitor
from psycopg import sql

from harness.checking.wording import message, short
from harness.checking.world import World
from harness.environment import own
from harness.errors import UsageError
from harness.scenarios.scenario import Busy, Condition
from harness.scenarios.variables import substituted
from harness.sqltext import queries
from harness.verdict.observed import Answer


class Conditions:
    """The conditions of one scenario; each is asked once of what is alike."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.scenario = world.scenario
        self.busy_known: dict[tuple[int, Answer], bool] = {}
        self.holds_known: dict[object, tuple[int, ...]] = {}

    def busy(self, answers: Sequence[Answer]) -> frozenset[int]:
        """The places of the answers that mean busy."""
        return frozenset(
            at
            for at, answer in enumerate(answers)
            if any(self._means_busy(number, busy, answer) for number, busy in enumerate(self.scenario.busy))
        )

    def _means_busy(self, number: int, busy: Busy, answer: Answer) -> bool:
        if busy.code:
            like = "" if busy.like is None else _like(busy.like)
            return answer.code == busy.code and (not like or re.fullmatch(like, answer.message or "", re.S) is not None)
        if answer.code is not None:
            return False
        if busy.no_row:
            return bool(answer.columns) and not answer.rows
        if busy.nothing_changed:
            return answer.changed == 0
        if not answer.rows:
            return False
        key = (number, answer)
        if key not in self.busy_known:
            self.busy_known[key] = self._true_of_a_row(busy, answer)
        return self.busy_known[key]

    def _true_of_a_row(self, busy: Busy, answer: Answer) -> bool:
        """Ask the server whether a condition holds of one of an answer's rows."""
        rows = sql.SQL(", ").join(
            sql.SQL("({})").format(
                sql.SQL(", ").join(
                    sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(self._type_name(type_)))
                    for value, type_ in zip(row, answer.types, strict=True)
                )
            )
            for row in answer.rows
        )
        query = sql.SQL("SELECT coalesce(bool_or({}), false) FROM (VALUES {}) AS answer ({})").format(
            sql.SQL(f"({busy.sql})"),
            rows,
            sql.SQL(", ").join(map(sql.Identifier, answer.columns)),
        )
        try:
            row = self.world.control.execute(query).fetchone()
        except (psycopg.errors.UndefinedColumn, psycopg.errors.DuplicateAlias, psycopg.errors.AmbiguousColumn):
            return False  # another statement's answer
        except psycopg.Error as error:
            if own.is_loss(error):
                raise
            raise UsageError(
                f"{self.scenario.path}:{busy.line}: the condition of `busy:` cannot be evaluated: {message(error)}",
                tried=busy.text,
                next_step="write SQL over the answer's columns",
            ) from error
        return bool(row and row[0])

    def _type_name(self, oid: int) -> str:
        row = self.world.control.execute("SELECT format_type(%s, NULL)", [oid]).fetchone()
        assert row is not None
        return "text" if row[0] in ("record", "void") else str(row[0])

    def violated(self) -> tuple[int, ...]:
        """The conditions that do not hold in the database now, of which the world has just read the final state."""
        if not self.scenario.conditions:
            return ()
        changes = self.world.changes  # a condition may ask about what is ignored, too
        key = tuple(sorted((name, frozenset(Counter(each.rows).items())) for name, each in changes.items()))
        if key not in self.holds_known:
            conditions = enumerate(self.scenario.conditions)
            self.holds_known[key] = tuple(place for place, each in conditions if not self._holds(each))
        return self.holds_known[key]

    def _holds(self, condition: Condition) -> bool:
        try:
            if self.world.seen is not None:
                self.world.control.execute("SET track_counts = on")
            text = substituted(condition.sql, self.world.variables)
            rows = self.world.control.execute(text.encode(), prepare=False).fetchall()
            if self.world.seen is not None:
                self.world.control.execute("SET track_counts = off")
        except psycopg.Error as error:
            if own.is_loss(error):
                raise
            raise UsageError(
                f"{self.scenario.path}:{condition.line}: the query of `{condition.kind}:` fails: {message(error)}",
                tried=short(condition.sql),
                next_step="mend the query",
            ) from error
        if condition.kind == "never":
            return not rows
        return all(value is True for row in rows for value in row)

    def ask_once(self, number: int, busy: Busy, answers: Sequence[Answer]) -> None:
        """Have a condition of `busy:` evaluated before anything depends on it; say where no answer has its columns."""
        if not busy.sql:
            return
        columns = {column.lower() for answer in answers for column in answer.columns}
        for answer in answers:
            self._means_busy(number, busy, answer)
        missing = sorted(name for name in _columns_of(busy.sql) if name.lower() not in columns)
        if missing:
            self.world.note(
                f"{self.scenario.path}:{busy.line}: `busy: when {busy.text}` can mean no answer: none has a column "
                f"{' or '.join(missing)}"
            )
        unknown = _operators_of(busy.sql)
        known = self.world.control.execute(
            queries.own("harness.scenarios", "checks.sql")["operators"], [unknown]
        ).fetchall()
        if wrong := sorted(set(unknown) - {row[0] for row in known}):
            raise UsageError(
                f"{self.scenario.path}:{busy.line}: the condition of `busy:` cannot be evaluated: there is no operator "
                f"{wrong[0]}",
                tried=busy.text,
                next_step="write SQL over the answer's columns",
            )


def _like(pattern: str) -> str:
    """A LIKE pattern as a regular expression."""
    return "".join(".*" if sign == "%" else "." if sign == "_" else re.escape(sign) for sign in pattern)


def _columns_of(condition: str) -> set[str]:
    """The columns that a condition names, without what they are qualified by."""
    return {node.fields[-1].sval for node in _nodes(condition, ast.ColumnRef) if hasattr(node.fields[-1], "sval")}


def _operators_of(condition: str) -> list[str]:
    """The operators in a condition, without those that are words."""
    names = {node.name[-1].sval for node in _nodes(condition, ast.A_Expr)}
    return sorted(name for name in names if not re.search(r"\w", name))


def _nodes(condition: str, kind: type[ast.Node]) -> list[Any]:
    found: list[Any] = []

    class Found(Visitor):
        def visit(self, ancestors: object, node: ast.Node) -> None:
            if isinstance(node, kind):
                found.append(node)

    Found()(pglast.parse_sql(f"SELECT ({condition})"))
    return found
