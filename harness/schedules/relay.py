"""A relay: a whole schedule handed to the server beforehand, in which each backend opens the next one's gate.

Carried out step by step, each choice costs a message to the controller and one back. Most schedules go as their
sessions went before (ways.py), and nobody waits in them: for such a one every session is sent all that it does in one
go, with a script of whose gates to open and which to wait at (turnstile.sql), and the controller comes in when all is
over. What the sessions then tell is gone through in the order of the turns, by the same bookkeeping as step by step.

Two relays may be under way, so that the server has no need to wait until what came of the first is gone through: the
second is sent behind the first, and its first turn waits at a gate that the last turn of the first opens. A session
that did not come to the end of the first does nothing in the second.

A gate is an advisory lock that its opener holds from before the relay begins. There are four sets, taken in turn: as a
relay begins, a session shuts again what it opened in the one before the last, which everybody has left behind; that set
is taken again when everybody has begun this one.

A script is a plan of turns, no promise of what happens in them: a session that comes to fewer turnstiles takes its
other turns all the same, one that comes to more goes through them in its last turn. So what was carried out is a
schedule whatever happened, unless a session waited for another. Then the server sees a circle, of the lock and of the
gate that is not opened; the relay has failed, and the schedule is carried out step by step.

At top level, gates are left in transactions of their own, or by a SELECT in the session's: at read committed nothing
depends on that. At other levels, and where a session sends what cannot be foreseen, there are no relays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from psycopg import pq
from psycopg.pq import DiagnosticField, ExecStatus

from harness.schedules.program import ROLLBACK_QUERY, Does, Program, Query, Unit
from harness.schedules.trace import top

MOST_OPENED = 60
"""Gates that one session may open in one relay."""

_SETS = 4

_AT_ONCE = 8
"""So many gates of each set are shut to begin with."""


class Sent(Enum):
    """What a message of a relay is, so what its result is of."""

    OURS = "ours"
    UNIT = "unit"
    LAST = "last"
    END = "end"
    """After it nothing more of the relay comes."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a session's pipeline, or the end of a part of it where there is no query."""

    sent: Sent
    query: Query | None
    unit: int = 0


BEGIN, COMMIT = Query("BEGIN", b"harness_begin"), Query("COMMIT", b"harness_commit")
CHECK = Query("SET CONSTRAINTS ALL IMMEDIATE", b"harness_check")
_PREPARED = {str(query.text): query for query in (BEGIN, COMMIT, CHECK)}
PREPARED = {query.name: str(query.text).encode() for query in (BEGIN, COMMIT, CHECK)} | {
    b"harness_stop": b"SELECT harness_schedules.turnstile($1)",
    b"harness_enter": b"SELECT harness_schedules.enter($1, $2, $3)",
    b"harness_shut": b"SELECT harness_schedules.shut($1)",
    b"harness_leave": b"SELECT harness_schedules.leave()",
    b"harness_give_up": b"SELECT harness_schedules.give_up($1)",
}
_LEAVE = Query("", b"harness_leave")
_SYNC, END = Message(Sent.OURS, None), Message(Sent.END, None)


CLEAR = Query("SELECT pg_catalog.set_config('harness_schedules.script', '', false)")
"""Takes a script away, with which a session would go through its turnstiles step by step too."""

LETTING_GO = (
    Message(Sent.OURS, ROLLBACK_QUERY),
    Message(Sent.OURS, Query("SELECT pg_catalog.pg_advisory_unlock_all()")),
    _SYNC,
)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What a session sends in a relay after it has entered, up to and with its leaving, whatever its parameters are."""

    sure: Sequence[Message]
    """Where no statement of it may end in an error; where one does all the same, it does not leave by itself."""
    doubtful: Sequence[Message]
    """Where one may."""


class Pipelines:
    """Those of all programs, each made once for programs of the same units."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[tuple[Unit, ...], Pipeline | None]] = {}

    def of(self, program: Program) -> Pipeline | None:
        """None where what the session sends is not known beforehand."""
        units, found = self._made.get(id(program.units), ((), None))
        if units is not program.units:
            found = None
            if suits(program):
                found = Pipeline(messages(program, fails=False), messages(program, fails=True))
            self._made[id(program.units)] = program.units, found
        return found


def suits(program: Program) -> bool:
    """Whether what a session sends is known beforehand, whatever the server answers."""
    if program.retries or program.stop_on_error or not program.units:
        return False
    in_block = False
    for unit in program.units:
        if unit.does in (Does.ALONE, Does.GOES_BACK) or not isinstance(unit.query.text, str):
            return False
        if unit.does is Does.PREPARES and not in_block:
            return False
        if unit.does is Does.BEGINS or (unit.own and unit.does is Does.ACTS):
            in_block = True
        elif unit.does in (Does.COMMITS, Does.ROLLS_BACK):
            in_block = False
    return not in_block


def messages(program: Program, *, fails: bool) -> list[Message]:
    """All that a session sends after it has entered, up to and with its leaving.

    `fails`: a statement of it may end in an error. Where one does all the same, the session does not leave by itself.
    """
    found: list[Message] = []
    in_block = False
    for number, unit in enumerate(program.units):
        found += [Message(Sent.OURS, _prepared(query)) for query in unit.before]
        found.append(Message(Sent.UNIT, _prepared(unit.query), number))
        in_block = unit.does not in (Does.COMMITS, Does.ROLLS_BACK)
        if unit.quiet:
            continue
        if number + 1 < len(program.units):
            stop = Message(Sent.OURS, Query("", b"harness_stop", (b"%d" % top(number + 1),)))
            # Outside of a transaction it gets one of its own, so that the next has the clock of when it begins.
            around = [] if in_block else [Message(Sent.OURS, BEGIN)], [] if in_block else [Message(Sent.OURS, COMMIT)]
            found += [*around[0], stop, *around[1]]
        if in_block and fails:
            # An error skips what comes before this: the stop, too, as the end of the transaction goes with the error.
            found.append(_SYNC)
    return [*found, Message(Sent.LAST, _LEAVE), END]


def entering(script: str, gates: Sequence[int], awaited: int) -> list[Message]:
    """What a session sends first."""
    values = (script.encode(), array(gates), b"%d" % awaited)
    return [Message(Sent.OURS, query) for query in (BEGIN, Query("", b"harness_enter", values), COMMIT)]


def giving_up(gates: Sequence[int]) -> list[Message]:
    """What a session sends that has not left in the end."""
    return [
        Message(Sent.OURS, ROLLBACK_QUERY),
        Message(Sent.OURS, Query("", b"harness_give_up", (array(gates),))),
        END,
    ]


def shutting(gates: Sequence[int]) -> list[Message]:
    """What a session sends before a relay for which it lacks gates."""
    return [Message(Sent.OURS, Query("", b"harness_shut", (array(gates),))), _SYNC]


def array(gates: Sequence[int]) -> bytes:
    """Gates as the server reads an array of integers."""
    return f"{{{','.join(map(str, gates))}}}".encode()


def _prepared(query: Query) -> Query:
    return query if query.name else _PREPARED.get(str(query.text), query)


@dataclass
class Gates:
    """The gates of one session: which it holds, of those that it opens in relays."""

    session: int
    held: set[int] = field(default_factory=set)
    most: int = _AT_ONCE
    """So many of each set it has needed, or may need."""

    def names(self, turn: int, count: int) -> list[int]:
        """The first gates of the set of a relay, the `turn`th. Negative, as the gates of turnstiles are positive."""
        first = -1 - (_SETS * self.session + turn % _SETS) * MOST_OPENED
        return list(range(first, first - count, -1))

    def missing(self, turn: int, count: int) -> list[int]:
        """What must be shut before a relay that opens so many, while no other is under way."""
        if self.held.issuperset(self.names(turn, count)):
            return []
        self.most = max(self.most, count)
        wanted = [gate for each in range(_SETS) for gate in self.names(each, self.most)]
        return [gate for gate in wanted if gate not in self.held]

    def again(self, turn: int) -> list[int]:
        """Gates that were opened in the relay before the last."""
        return [gate for gate in self.names(turn - 2, self.most) if gate not in self.held]


@dataclass
class Told:
    """What one session told in a relay."""

    order: list[tuple[int, bool]]
    """The turnstiles that it is foreseen to come to, each with whether it only goes through there."""
    opens: list[int]
    """The gates that it opens."""
    measures: bool
    began: str = ""
    """The reading before its first unit."""
    arrivals: dict[int, tuple[int, str | None]] = field(default_factory=dict)
    """By place: the step that it came to, and the reading there. Where there is none, it came to what was foreseen."""
    caught: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    texts: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    results: dict[int, pq.abc.PGresult] = field(default_factory=dict)
    """By unit."""
    arrived: int = -1
    """How many turnstiles it came to; -1 until it has left."""
    over: bool = False
    """Nothing more is to come of it."""
    whole: bool = False
    """It has left, and no transaction of its session's is open."""
    spoiled: bool = False
    """It waited for a lock, or lost a gate."""
    lost: bool = False
    """It lost its script or a gate: it resets settings, or lets go of all advisory locks."""
    skipped: bool = False
    """An error of something of ours: not all was carried out."""

    def at(self, place: int) -> tuple[int, str | None]:
        """Where it arrived: the step, and the reading there."""
        return self.arrivals.get(place) or (self.order[place][0], None)

    def notice(self, primary: bytes, gates: bytes) -> None:
        """Take in what its backend said."""
        words = primary.split()
        match words:
            case [b"harness", b"arrival", place, step, *_]:
                raw = primary.split(b" ", 4)
                self.arrivals[int(place)] = int(step), raw[4].decode() if len(raw) > 4 else None
            case [b"harness", b"enters", *_]:
                self.began = primary.removeprefix(b"harness enters ").decode()
            case [b"harness", b"caught", code, place]:
                self.spoiled |= code == b"40P01"
                self.caught[int(place)].append(code.decode())
            case [b"harness", b"text", place, *_]:
                self.texts[int(place)].append(primary.split(b" ", 3)[3].decode())
            case [b"harness", b"lost"] | [b"harness", b"turnstile", *_]:
                self.spoiled = self.lost = True
            case [b"process", _, b"still", b"waiting", *_, lock, b"after", _, b"ms"] if gates not in lock:
                self.spoiled = True
            case [b"process", _, b"detected", b"deadlock", *_]:
                self.spoiled = True

    def result(self, message: Message, result: pq.abc.PGresult) -> None:
        """Take in what the server answered to a message."""
        failed = result.status in (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED)
        if failed and code(result) == "40P01":
            self.spoiled = True  # as it seems; the circle is closed by a gate
        if message.sent is Sent.UNIT:
            self.results[message.unit] = result
        elif message.sent is Sent.LAST and result.status == ExecStatus.TUPLES_OK:
            self.arrived = int(result.get_value(0, 0) or b"-1")


def code(result: pq.abc.PGresult) -> str:
    """The SQLSTATE of an error, empty for none."""
    return (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()


@dataclass(frozen=True, slots=True)
class Script:
    """What one session is told of a relay."""

    text: str
    awaited: int
    """The gate that it waits at first; 0: none."""
    opens: list[int]
    """The gates that it opens."""
    foreseen: list[tuple[int, bool]]
    """The turnstiles that it is to come to, each with whether it only goes through there."""


def scripts(
    turns: Sequence[tuple[int, Sequence[int], int | None]],
    number: int,
    gates: Sequence[Gates],
    behind: tuple[int, int] | None = None,
) -> tuple[list[Script], tuple[int, int]] | None:
    """The sessions' scripts for the relay of that number, and who opens which gate at its end.

    A turn is a session, the turnstiles that it goes through, and the one that it comes to at the turn's end (None: not
    known, or it ends). `behind`: the same end of the relay before it, where that is still under way. None where there
    would be too many gates.
    """
    opens: list[int] = [0] * len(turns)
    awaits: list[int] = [0] * len(turns)
    opened: list[list[int]] = [[] for _ in gates]
    if behind is not None and behind[0] != turns[0][0]:
        awaits[0] = behind[1]
    for at, (session, _, _) in enumerate(turns):
        following = turns[at + 1][0] if at + 1 < len(turns) else None
        if session != following:
            count = len(opened[session])
            if count == MOST_OPENED:
                return None
            opens[at] = gates[session].names(number, count + 1)[count]
            opened[session].append(opens[at])
            if following is not None:
                awaits[at + 1] = opens[at]
    found = []
    for session in range(len(gates)):
        mine = [at for at, turn in enumerate(turns) if turn[0] == session]
        entries: list[str] = []
        order: list[tuple[int, bool]] = []
        for at, following in zip(mine, [*mine[1:], None], strict=True):
            _, passed, stop = turns[at]
            for step in passed:
                entries.append(f"{{{step},0,0}}")
                order.append((step, True))
            if following is not None:
                assert stop is not None
                entries.append(f"{{{stop},{opens[at]},{awaits[following]}}}")
                order.append((stop, False))
        text = " ".join([str(opens[mine[-1]] if mine else 0), *entries])
        found.append(Script(text, awaits[mine[0]] if mine else 0, opened[session], order))
    return found, (turns[-1][0], opens[-1])


def groups(program: Program) -> Iterator[tuple[list[int], int]]:
    """The units of a session: those that touch nothing, each time with the one that they go with."""
    quiet: list[int] = []
    for number, unit in enumerate(program.units):
        if unit.quiet:
            quiet.append(number)
        else:
            yield quiet, number
            quiet = []
