"""Where one session stands: its connection, what it does, and how it ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import psycopg
from psycopg import pq
from psycopg.pq import DiagnosticField, ExecStatus

from harness.schedules.measure import Keeps
from harness.schedules.program import NOTHING, Program, StatementAnswer
from harness.schedules.relay import Gates, Message, Told
from harness.schedules.trace import Happening, top
from harness.sqltext.access import Access


class Mode(Enum):
    """What a session does between two choices."""

    READY = "ready"
    RUNNING = "running"
    PARKED = "parked"
    WAITING = "waiting"
    ENDED = "ended"


class Due(Enum):
    """What the next result on a connection is of."""

    BEFORE = "before"
    ANSWER = "answer"
    MEASURE = "measure"
    NOTHING = "nothing"
    OURS = "ours"
    """Of what must not fail, or steps would be missed."""


@dataclass(slots=True)
class Call:
    """One session: its connection, and where it stands."""

    number: int
    connection: psycopg.Connection[Any]
    pgconn: pq.abc.PGconn
    pid: int
    socket: int
    """Kept here, since a dead connection does not tell it."""
    program: Program = field(default_factory=lambda: Program(()))
    unit: int = 0
    """The unit that it does, or is to do next."""
    gate: int = 0
    """The gate that is shut: 0 or 1."""
    mode: Mode = Mode.ENDED
    at: int = 0
    """The step that it does, or that it is parked before."""
    due: deque[Due] = field(default_factory=deque)
    rolling_back: bool = False
    keeps: set[Keeps] = field(default_factory=set)
    """What its backend may have kept of the last schedule."""
    forgetting: bool = False
    """What it kept is taken away."""
    gates: Gates = field(default_factory=lambda: Gates(0))
    unflushed: bool = False
    """Its backend's counters are not put away since a relay."""
    told: Told | None = None
    """What it told of the relay that is gone through."""
    expected: deque[tuple[Message, Told | None]] = field(default_factory=deque)
    """What the next results are of, each with where it is told, if it is of a relay."""
    passed: list[int] = field(default_factory=list)
    """Turnstiles that it went through in this choice, on the way to its first step."""
    going: bool = False
    """It was chosen, and has done nothing but units that touch nothing."""
    entering: bool = False
    """Its unit was sent, and has come to no turnstile yet."""
    impatient: bool = False
    """Its waits for a lock may end by themselves."""
    always_impatient: bool = False
    """Also when its transaction is over."""
    leaving: bool = False
    """Its wait is meant to run out now, or it is to die: that the server still sees it wait means nothing."""
    told_waiting: bool = False
    waits_for: tuple[int, ...] = ()
    acted_at: int | None = None
    """The step that it has done since it was chosen."""
    key: Hashable = None
    """Which step it does."""
    text: Access = NOTHING
    """What the text of that step touches."""
    reading: str = ""
    """What the server had counted when it began, as it told it."""
    touched: Access = NOTHING
    """What was measured in the current choice."""
    open: bool = False
    """Its step has not been measured since it began."""
    has_snapshot: bool = False
    """Its transaction has begun to read, so that at repeatable read it sees nothing that is committed later."""
    finished: bool = False
    """In the current choice it ended a transaction, or a statement of one failed."""
    written: Access = NOTHING
    """What it has written so far in its transaction, so what the end of that touches."""
    caught: list[str] = field(default_factory=list)
    """SQLSTATEs of the handlers that it entered since the last choice."""
    came: list[Happening] = field(default_factory=list)
    """What else happened to it since then."""
    results: dict[int, pq.abc.PGresult | None] = field(default_factory=dict)
    """By statement."""
    tries: dict[int, int] = field(default_factory=dict)
    """Repetitions, by the unit that began the transaction."""
    used_up: bool = False
    result: pq.abc.PGresult | None = None
    died: bool = False
    began: int = 0
    ended: int = 0

    def stand_ready(self, program: Program, *, impatient: bool) -> None:
        """Be ready to do a program from its start."""
        self.program, self.unit, self.mode, self.at = program, 0, Mode.READY, top(0)
        self.written, self.reading, self.results, self.tries = NOTHING, "", {}, {}
        self.used_up = self.open = self.going = self.entering = self.rolling_back = False
        self.has_snapshot = False
        self.began = self.ended = 0
        self.impatient = self.always_impatient = impatient

    def ending(self) -> Ending:
        """How it ended."""
        tries = {
            unit.statement: 1 + self.tries[unit.restart]
            for unit in self.program.units
            if unit.statement is not None and unit.restart in self.tries
        }
        return Ending(self.results, self.began, self.ended, self.died, self.used_up, tries)


@dataclass(frozen=True, slots=True)
class Ending:
    """How one session ended."""

    results: Mapping[int, pq.abc.PGresult | None]
    """By statement; without those that it did not come to."""
    began: float
    ended: float
    """The positions of the choices that began and ended it; the first choice is 1."""
    died: bool = False
    used_up: bool = False
    """A transaction failed more often than it may be run again."""
    tries: Mapping[int, int] = field(default_factory=dict)
    """How often each statement was carried out, where it was more than once."""

    def told(self) -> tuple[StatementAnswer, ...]:
        """The answers of its statements, in order, up to the first that it did not come to."""
        found: list[StatementAnswer] = []
        while (at := len(found)) in self.results:
            found.append(told_by(self.results[at], self.tries.get(at, 1)))
        return tuple(found)


def told_by(result: pq.abc.PGresult | None, tries: int) -> StatementAnswer:
    """A result as a session's answer; None: the connection died."""
    if result is None:
        return StatementAnswer((), (), (), "", "connection_lost", "the connection was lost", tries)
    if result.status == ExecStatus.FATAL_ERROR:
        code = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()
        message = (result.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace")
        return StatementAnswer((), (), (), "", code or "connection_lost", message, tries)
    columns = range(result.nfields)
    return StatementAnswer(
        tuple((result.fname(column) or b"").decode() for column in columns),
        tuple(result.ftype(column) for column in columns),
        tuple(
            tuple(None if (v := result.get_value(row, column)) is None else v.decode() for column in columns)
            for row in range(result.ntuples)
        ),
        (result.command_status or b"").decode(),
        tries=tries,
    )


def in_a_circle(waiting: Sequence[Call]) -> bool:
    """Whether some of the waiting calls wait for each other."""
    left = {call.number: set(call.waits_for) for call in waiting}
    while free := [number for number, blockers in left.items() if not blockers & left.keys()]:
        for number in free:
            del left[number]
    return bool(left)
