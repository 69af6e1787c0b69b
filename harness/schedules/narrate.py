"""Turns a schedule into rows that a person can follow: who did what, who waited for whom, what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from harness.contracts.contract import Contract, Operation
from harness.schedules.carried import Carried
from harness.schedules.result import Called, Move, Schedule
from harness.schedules.rewrite import Rewritten
from harness.schedules.trace import COMMIT, START, Choice, Event, Happening, Kind

_ROWS = 5
"""Rows shown of each table."""


def narrate(
    carried: Carried, contract: Contract, rewritten: Rewritten, connection: psycopg.Connection[Any]
) -> Schedule:
    """The schedule with the state that it left, read over a connection to the same database."""
    variant = contract.variants[carried.setting.variant]
    return Schedule(
        replay=carried.replay,
        variant=variant.name,
        keys=carried.setting.keys,
        moves=tuple(_move(number, event, carried, rewritten) for number, event in enumerate(carried.events, 1)),
        calls=tuple(_called(operation) for operation in carried.operations),
        state=_state(carried, rewritten, connection),
    )


def _move(number: int, event: Event, carried: Carried, rewritten: Rewritten) -> Move:
    step = rewritten.steps[event.at] if event.at >= 0 else None
    text = "start" if event.at == START else "commit" if event.at == COMMIT else step.text if step else ""
    if event.choice.kind is Kind.DIE:
        text = f"its connection dies before: {text}"
    elif event.choice.kind is Kind.LAPSE:
        text = "its time to wait for a lock runs out"
    return Move(
        number=number,
        call=event.choice.call,
        choice=str(event.choice),
        function=step.function if step else "",
        line=step.line if step and event.choice.kind is Kind.STEP else 0,
        text=text,
        results=tuple(filter(None, (_result(h, event, carried.operations) for h in event.happenings))),
    )


def _result(happening: Happening, event: Event, operations: Sequence[Operation]) -> str:
    who = "" if happening.call == event.choice.call else f"{Choice(happening.call)} "
    match happening.what:
        case "waits":
            assert isinstance(happening.detail, tuple)
            return f"{who}waits for {' and '.join(str(Choice(call)) for call in happening.detail)}"
        case "caught":
            return f"{who}gets error {happening.detail}, which is handled"
        case "returns":
            return f"{who}returns {operations[happening.call].outcome.label}"
        case "fails":
            return f"{who}fails with error {happening.detail} and is rolled back"
        case "parks" if who:
            return f"{who}goes on"
    return ""


def _called(operation: Operation) -> Called:
    return Called(
        call=operation.client,
        key=str(operation.key),
        arguments={name: None if value is None else str(value) for name, value in operation.arguments.items()},
        label=operation.outcome.label,
        answer={name: None if value is None else str(value) for name, value in operation.answer.items()},
        code=operation.outcome.code,
        detail=operation.outcome.detail,
    )


def _state(
    carried: Carried, rewritten: Rewritten, connection: psycopg.Connection[Any]
) -> dict[str, tuple[dict[str, Any], ...]]:
    """The rows left, of the tables that the steps write to, in which one of the schedule's keys is found."""
    keys = sorted({str(operation.key) for operation in carried.operations})
    state = {}
    for table in sorted(set().union(*(step.access.writes for step in rewritten.steps))):
        found = connection.execute("SELECT to_regclass(quote_ident(%s))::text", [table]).fetchone()
        if found is None or found[0] is None:
            continue
        query = sql.SQL(
            "SELECT to_jsonb(r) FROM {} AS r"
            " WHERE EXISTS (SELECT FROM jsonb_each_text(to_jsonb(r)) AS c WHERE c.value = ANY (%s)) LIMIT {}"
        ).format(sql.SQL(found[0]), sql.Literal(_ROWS))
        rows = connection.execute(query, [keys]).fetchall()
        if rows:
            state[table] = tuple(row[0] for row in rows)
    return state
