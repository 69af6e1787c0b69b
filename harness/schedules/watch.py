"""A schedule once more, with the rows that everybody else sees after each of its steps.

What a session has changed and not committed is seen by nobody but itself, so what is read here, over a connection of
its own, is what the other sessions could read as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from harness.errors import UsageError
from harness.schedules.control import Controller, ScheduleTimeoutError
from harness.schedules.program import Program
from harness.schedules.replay import Replay
from harness.schedules.result import Move
from harness.schedules.rewrite import Rewritten
from harness.schedules.trace import Choice, Event

_ROWS = 5
"""Rows shown of each table."""

Rows = Mapping[str, tuple[Mapping[str, Any], ...]]
"""By table."""


def written(rewritten: Rewritten) -> list[str]:
    """The tables that a step or a statement may write to."""
    tables = {relation.name for relation in rewritten.relations.values() if relation.kind in "rpm"}
    return sorted(
        tables & set().union(*(each.access.writes for each in rewritten.steps), *(t.writes for t in rewritten.texts))
    )


def read(connection: psycopg.Connection[Any], tables: Sequence[str], keys: Sequence[str] | None) -> Rows:
    """The first rows of each table, of those that name one of the keys where there are keys."""
    state = {}
    for table in tables:
        found = connection.execute("SELECT to_regclass(%s)::text", [table]).fetchone()
        if found is None or found[0] is None:
            continue
        names_a_key = "EXISTS (SELECT FROM jsonb_each_text(to_jsonb(r)) AS c WHERE c.value = ANY (%(keys)s))"
        query = sql.SQL("SELECT to_jsonb(r) FROM {} AS r WHERE %(keys)s::text[] IS NULL OR {} LIMIT {}").format(
            sql.SQL(found[0]), sql.SQL(names_a_key), sql.Literal(_ROWS)
        )
        rows = connection.execute(query, {"keys": None if keys is None else list(keys)}).fetchall()
        if rows or keys is None:
            state[table] = tuple(row[0] for row in rows)
    return state


def watched(
    controller: Controller, programs: Sequence[Program], choices: Sequence[Choice], look: Callable[[], Rows]
) -> tuple[Rows, ...] | None:
    """What `look` finds after each step of the schedule; None where it cannot be repeated."""
    found: list[Rows] = []
    replay = Replay(choices)

    def choose(enabled: tuple[Choice, ...], events: Sequence[Event]) -> Choice | None:
        if events:
            found.append(look())
        return replay.choose(enabled, events)

    try:
        controller.run(programs, choose)
    except (UsageError, ScheduleTimeoutError):
        controller.reset()  # it departed in the middle, or hangs
        return None
    found.append(look())
    return tuple(found) if len(found) == len(choices) else None


def with_rows(moves: Sequence[Move], rows: Sequence[Rows]) -> tuple[Move, ...]:
    """The moves, those that changed what others see with the rows as they were after them; the first one always."""
    before: Rows | None = None
    made = []
    for move, after in zip(moves, rows, strict=True):
        made.append(replace(move, rows=after) if after != before else move)
        before = after
    return tuple(made)


def renamed(rows: Rows, names: Mapping[str, str]) -> Rows:
    """The rows with keys of a repetition called by those of the schedule that is repeated."""

    def value(each: Any) -> Any:
        return names.get(str(each), each) if isinstance(each, (str, int)) and not isinstance(each, bool) else each

    return {
        table: tuple({column: value(each) for column, each in row.items()} for row in found)
        for table, found in rows.items()
    }
