"""Turns a schedule into rows that a person can follow: who did what, who waited for whom, what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import psycopg

from harness.contracts.contract import Contract, Operation
from harness.schedules.carried import Carried
from harness.schedules.program import Does, StatementAnswer, Unit
from harness.schedules.result import Called, Move, Schedule
from harness.schedules.rewrite import Rewritten
from harness.schedules.trace import Choice, Event, Happening, Kind, top
from harness.schedules.watch import Rows, read, written


def narrate(
    carried: Carried,
    contract: Contract,
    rewritten: Rewritten,
    labels: Sequence[str],
    connection: psycopg.Connection[Any],
) -> Schedule:
    """The schedule with the state that it left, read over a connection to the same database.

    `labels` are those of a call's units.
    """

    def returned(call: int, at: int) -> str:
        return f"returns {carried.operations[call].outcome.label}" if at == top(1) else ""

    return Schedule(
        replay=carried.replay,
        variant=carried.setting.named(contract),
        keys=carried.setting.keys,
        moves=moves(carried.events, rewritten, [labels] * carried.calls, returned),
        calls=tuple(_called(operation) for operation in carried.operations),
        state=_state(carried, rewritten, connection),
    )


def moves(
    events: Sequence[Event],
    rewritten: Rewritten,
    labels: Sequence[Sequence[str]],
    returned: Callable[[int, int], str] = lambda call, at: "",  # noqa: ARG005
    lines: Sequence[Sequence[int]] = (),
) -> tuple[Move, ...]:
    """The rows of a schedule's table.

    `labels` are the texts of each session's units, `lines` theirs in its file, and `returned` what there is to say
    where one comes to a place of its own again.
    """
    made = [_move(number, event, rewritten, labels, returned) for number, event in enumerate(events, 1)]
    for number, event in enumerate(events):
        if lines and event.at < 0 and event.choice.kind is Kind.STEP:
            made[number] = replace(made[number], line=lines[event.choice.call][-1 - event.at])
    return tuple(made)


def answered(
    units: Sequence[Sequence[Unit]], answers: Sequence[Sequence[StatementAnswer]]
) -> Callable[[int, int], str]:
    """What to say where a session comes to a place of its own again: what its last statement gave, once.

    Nothing of a statement that was carried out more than once: only the last of its answers is known.
    """
    said: set[tuple[int, int]] = set()

    def returned(call: int, at: int) -> str:
        before = units[call][: -1 - at]
        last = next((u.statement for u in reversed(before) if u.does in (Does.ACTS, Does.ALONE)), None)
        if last is None or last >= len(answers[call]) or (call, last) in said:
            return ""
        said.add((call, last))
        answer = answers[call][last]
        return f"gets {_short(answer)}" if answer.tries == 1 and answer.code is None else ""

    return returned


def _short(answer: StatementAnswer) -> str:
    """A statement's answer on one short line: its rows, or its command tag."""
    if not answer.columns:
        return answer.command
    rows = [
        ", ".join(
            f"{name}={'NULL' if value is None else value}" for name, value in zip(answer.columns, row, strict=True)
        )
        for row in answer.rows[:_ROWS]
    ]
    text = "; ".join(rows) or "no row"
    text = " ".join(text.split())
    text = text if len(text) <= _CHARACTERS else text[: _CHARACTERS - 3] + "..."
    return text + (f" and {len(answer.rows) - _ROWS} more rows" if len(answer.rows) > _ROWS else "")


_ROWS = 3
_CHARACTERS = 120
"""Of an answer in a schedule: the report has all of it beside."""


def _move(
    number: int,
    event: Event,
    rewritten: Rewritten,
    labels: Sequence[Sequence[str]],
    returned: Callable[[int, int], str],
) -> Move:
    step = rewritten.steps[event.at] if event.at >= 0 else None
    text = step.text if step else labels[event.choice.call][-1 - event.at]
    if event.choice.kind is Kind.DIE:
        text = f"its connection dies before: {text}"
    elif event.choice.kind is Kind.CANCEL:
        text = f"its statement is cancelled before: {text}"
    elif event.choice.kind is Kind.LAPSE:
        text = "its time to wait for a lock runs out"
    return Move(
        number=number,
        call=event.choice.call,
        choice=str(event.choice),
        function=step.function if step else "",
        line=step.line if step and event.choice.kind is Kind.STEP else 0,
        text=text,
        results=tuple(filter(None, (_result(h, event, returned) for h in event.happenings))),
    )


def _result(happening: Happening, event: Event, returned: Callable[[int, int], str]) -> str:
    who = "" if happening.call == event.choice.call else f"{Choice(happening.call)} "
    match happening.what:
        case "waits":
            assert isinstance(happening.detail, tuple)
            return f"{who}waits for {' and '.join(str(Choice(call)) for call in happening.detail)}"
        case "caught":
            return f"{who}gets error {happening.detail}, which is handled"
        case "returns":
            said = returned(happening.call, happening.at)
            return f"{who}{said}" if said else f"{who}goes on" if who else ""
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


def _state(carried: Carried, rewritten: Rewritten, connection: psycopg.Connection[Any]) -> Rows:
    """The rows left, of the tables that the steps write to, in which one of the schedule's keys is found."""
    return read(connection, written(rewritten), sorted({str(operation.key) for operation in carried.operations}))
