"""The controller: carries out one schedule, choice by choice, over one connection per session and one of its own.

A session is ready (not started), running, parked (at a turnstile inside a function, or between two statements of its
own, of which the next is not sent yet), waiting for another's lock, or ended. Only one choice is made at a time, and
the next one only after every session has settled: that one parked, returned or died is told by its own connection; that
it waits is told by the server, whose LOG message "still waiting" (log_lock_waits with a deadlock_timeout of 1 ms) comes
on the session's own connection, and is believed only when `pg_blocking_pids` names another session. Nothing is
concluded from time that passed, except that a schedule takes too long.

A deadlock is found by the server itself, 1 ms after the wait that closes the circle. Since every earlier wait has been
settled, and its own check is over, the session that closes it is always the victim; that the other is the victim shows
in the schedule in which the other closes the circle, which the search tries too.

What a step touched is told by its text and measured by the server (measure.py). What is measured is remembered for each
step: where that is more than a step was known to touch when an earlier choice was made, a search is `outdated`, and has
to be begun again.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import psycopg
from psycopg import pq, sql
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, TransactionStatus

from harness.environment import own
from harness.errors import HarnessError, UsageError
from harness.plain import to_plain
from harness.schedules import measure, relay
from harness.schedules.exhaustive import access_of
from harness.schedules.measure import Keeps
from harness.schedules.program import (
    NOTHING,
    RESET_QUERIES,
    ROLLBACK_QUERY,
    Does,
    Program,
    Query,
    StatementAnswer,
    Unit,
)
from harness.schedules.relay import LETTING_GO, Gates, Message, Sent, Told
from harness.schedules.rewrite import Rewritten
from harness.schedules.trace import FATAL, Choice, Event, Happening, Kind, top
from harness.schedules.ways import Done, Foresight, Order, State, Way, Ways
from harness.sqltext import queries
from harness.sqltext.access import ADVISORY_LOCKS, SNAPSHOTS, WAITS, Access

ASK_AFTER = 0.02
"""Seconds of silence after which the server is asked whether a running call waits, where a role may not set
log_lock_waits."""

ASK_ANYWAY_AFTER = 0.5
"""The same where it may: a function that sets client_min_messages silences the server."""

Choose = Callable[[tuple[Choice, ...], Sequence[Event]], Choice | None]
"""Who next? Given what is possible and what happened so far; None gives the schedule up."""

_QUERIES = queries.own("harness.schedules", "control.sql")

_SETTINGS = {
    "application_name": "harness schedules",
    "client_min_messages": "log",
    "deadlock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "0",
    "lc_messages": "C",
    "log_lock_waits": "on",
    "log_min_messages": "panic",
    "max_parallel_workers_per_gather": "0",
    "statement_timeout": "0",
    "synchronous_commit": "off",
    "track_counts": "on",
    "track_functions": "pl",
    "transaction_timeout": "0",
}
"""Of a call's session. A server that does not know one, or a role that may not set it, goes without."""

_MEASURE, _FLUSH = b"harness_measure", b"harness_flush"
_DEADLOCK = "40P01"
_MOST_READINGS = 10_000
_FLUSH_SINCE = 150000
"""The first version of the server that can be asked to put its statistics away when it is idle next."""

_FAILED = (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED)

_DRAINED_WITHIN = 5.0
"""Seconds in which all calls of a relay must end that is given up."""


class ScheduleTimeoutError(Exception):
    """A schedule did not end in time; the message says which call stood where."""


class _UnfitError(Exception):
    """What the sessions of a relay told cannot be gone through."""


class _Mode(Enum):
    READY = "ready"
    RUNNING = "running"
    PARKED = "parked"
    WAITING = "waiting"
    ENDED = "ended"


class _Due(Enum):
    """What the next result on a connection is of."""

    BEFORE = "before"
    ANSWER = "answer"
    MEASURE = "measure"
    NOTHING = "nothing"
    OURS = "ours"
    """Of what must not fail, or steps would be missed."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement that every session's connection has prepared."""

    name: bytes
    statement: bytes
    parameter_oids: Sequence[int]


@dataclass(slots=True)
class _Call:
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
    mode: _Mode = _Mode.ENDED
    at: int = 0
    """The step that it does, or that it is parked before."""
    due: deque[_Due] = field(default_factory=deque)
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


@dataclass(frozen=True, slots=True)
class Answer:
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
            found.append(_told(self.results[at], self.tries.get(at, 1)))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Trace:
    """One schedule carried out."""

    events: tuple[Event, ...]
    answers: tuple[Answer, ...]
    complete: bool
    """False when the scheduler gave it up; the calls were then let run to their end, one after the other."""


@dataclass(frozen=True, slots=True, eq=False)
class Relay:
    """A schedule that was handed to the server whole."""

    programs: Sequence[Program]
    order: Order
    told: Sequence[Told]
    """By session."""
    foreseen: tuple[Event, ...] | None
    """What it comes to, if all goes as is foreseen; None: not all of that is known."""
    end: tuple[int, int]
    """Who opens which gate at its end."""


class Controller:
    """Drives a fixed number of sessions through one schedule after another."""

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection[Any]],
        sessions: int,
        rewritten: Rewritten,
        space: int,
        *,
        seconds: float,
        fatal: Sequence[Kind] = (),
        prepared: Sequence[Prepared] = (),
    ) -> None:
        """`connect` opens an autocommit connection; `seconds` is the most that one schedule may take.

        What is `fatal` may come to a session at each of its steps, to one in each schedule at most.
        """
        self._connect = connect
        self._prepared = prepared
        self._rewritten = rewritten
        self._space = b"%d" % space
        self._gates = b",%d," % space
        """What is in the server's name of a gate, such as [16384,77,2098,2]; nobody is told to wait by a gate."""
        self._seconds = seconds
        self._fatal = tuple(fatal)
        self._deadline = 0.0
        self._poll = select.poll()
        self._calls: list[_Call] = []
        self._by_socket: dict[int, _Call] = {}
        self._releasing = False
        """A release was sent, and its answer is not read yet."""
        self._raised: BaseException | None = None
        """What was raised while a notice was taken in."""
        self._learned: dict[Hashable, Access] = {}
        """What was measured of each step, in all schedules."""
        self._told_of: dict[Hashable, Access] = {}
        """What each step was taken to touch when it was last carried out."""
        self._readings: dict[tuple[str, str], tuple[Access, bool, set[Keeps]]] = {}
        """Readings repeat themselves from schedule to schedule."""
        self.exceeding: dict[Hashable, Access] = {}
        """Steps that touched what their text does not say, with what that was."""
        self._executed: dict[Hashable, Access] = {}
        """What the texts touch that some steps have executed."""
        self.blocks: set[int] = set()
        """Steps that executed a DO block."""
        self.unmeasured: set[Hashable] = set()
        """Steps whose text was not read in full, and which could not be measured, once at least."""
        self.outdated = 0
        """How often a step was found to touch something that was not known when an earlier choice was made."""
        self._version = 0
        """Of what is known of steps: it grows with it."""
        self.ways = Ways()
        self._turn = 0
        """Number of the last relay."""
        self._under_way: list[Relay] = []
        """Relays that were begun and not collected: two at most."""
        self._control = connect()
        try:
            for name, query in _QUERIES.items():
                self._control.pgconn.prepare(name.encode(), query.encode())
            self._flushes = self._control.info.server_version >= _FLUSH_SINCE
            self.isolation = self._show("transaction_isolation")
            """Isolation level of a transaction that sets none, as `transaction_isolation` spells it."""
            self.level = "read committed"
            """The strongest level that a transaction of a session may have: what commutes depends on it."""
            self._statement_timeout = self._show("statement_timeout") != "0"
            self._lock_timeout = self._show("lock_timeout") != "0"
            self._settings = self._accepted_settings()
            self._told = self._settings.keys() >= {"client_min_messages", "deadlock_timeout", "log_lock_waits"}
            self._ask_after = ASK_ANYWAY_AFTER if self._told else ASK_AFTER
            self._relays = self._told and "track_functions" in self._settings
            # Who looks at locks should meet those of the turnstiles only, told from others when they are met.
            self._relays &= self.isolation == "read committed" and not rewritten.sees_locks
            for number in range(sessions):
                self._calls.append(self._opened(number))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection; what still runs is rolled back by it."""
        for call in self._calls:
            call.connection.close()
        self._control.close()

    def run(self, programs: Sequence[Program], choose: Choose) -> Trace:
        """Carry out one schedule of the sessions' programs.

        Raises ScheduleTimeoutError; `reset` makes the controller usable again.
        """
        self._deadline = time.monotonic() + self._seconds
        self._begin(programs)
        events: list[Event] = []
        complete = True
        state = self._start(programs)
        while enabled := self._enabled(events):
            choice = choose(enabled, events) if complete else enabled[0]
            if choice is None:
                complete, choice = False, enabled[0]
            event = self._carry_out(choice, enabled, len(events) + 1)
            state = self.ways.after(state, event, self._done(self._calls[choice.call]))
            events.append(event)
        if any(call.mode is not _Mode.ENDED for call in self._calls):
            raise ScheduleTimeoutError(f"nothing can go on: {self._standing()}")
        were = list(self._calls)
        for call in were:
            if call.died:
                self._replace(call)  # by one that did nothing: what a dead one was told counts for nobody
        answers = [
            replace(self._answer(call), died=was.died, began=was.began, ended=was.ended)
            for call, was in zip(self._calls, were, strict=True)
        ]
        return Trace(tuple(events), tuple(answers), complete)

    def _begin(self, programs: Sequence[Program], *, flushed: bool = True) -> None:
        """Make the sessions ready for a schedule; with their counters put away, where the first reading is not told."""
        for call, program in zip(self._calls, programs, strict=True):
            self._stand_ready(call, program)
            forgotten = [query for kind, query in program.reset.items() if kind in call.keeps]
            if program.leaves_settings:
                forgotten += [*RESET_QUERIES, self._set_again()]
            # Whatever became of the last relay, nothing of its script may be left when choices are made one by one.
            relayed = flushed and call.unflushed
            if forgotten or relayed:
                call.forgetting, call.unflushed = True, call.unflushed and not flushed
                if Keeps.LOCKS in call.keeps & program.reset.keys():
                    call.gates.held.clear()  # with all other advisory locks
                if forgotten:
                    call.keeps.clear()
                taken = [(query, _Due.NOTHING) for query in forgotten] + [(relay.CLEAR, _Due.OURS)] * relayed
                self._send(call, taken, ended=True)
        self._settle()

    def _stand_ready(self, call: _Call, program: Program) -> None:
        call.program, call.unit, call.mode, call.at = program, 0, _Mode.READY, top(0)
        call.written, call.reading, call.results, call.tries = NOTHING, "", {}, {}
        call.used_up = call.open = call.going = call.entering = call.rolling_back = False
        call.has_snapshot = False
        call.began = call.ended = 0
        call.impatient = call.always_impatient = self._statement_timeout or self._lock_timeout

    def _start(self, programs: Sequence[Program]) -> tuple[Any, ...]:
        return self.ways.start([program.units[0].key if program.units else None for program in programs])

    def _done(self, call: _Call) -> Done:
        certain = call.key not in self.exceeding and self._rewritten.read_in_full(call.text)
        return Done(tuple(call.passed), call.key, certain, self._version, frozenset(call.keeps))

    def foresight(self, programs: Sequence[Program]) -> Foresight | None:
        """What may be foreseen of a schedule of these programs; None where nobody may be sent all that it does."""
        if not self._relays or self._fatal or not all(map(relay.suits, programs)):
            return None
        return Foresight(self.ways, self._start(programs))

    def begin(self, programs: Sequence[Program], order: Order, behind: Relay | None = None) -> Relay | None:
        """Hand a schedule to the server, by a plan of whose turn it is; None where that cannot be done.

        `behind` another, which is still under way, and of which nothing may be left for the sessions to forget.
        """
        foreseen = self._foreseen(order)
        if behind is not None and (foreseen is None or self._forgets(programs, behind.order)):
            return None
        turns = [
            (leg.call, leg.way.passed, leg.way.own[-1][2]) if leg.way is not None else (leg.call, (), None)
            for leg in order
        ]
        made = relay.scripts(
            turns, self._turn + 1, [call.gates for call in self._calls], None if behind is None else behind.end
        )
        if made is None:
            return None
        scripts, end = made
        if behind is None:
            self._deadline = time.monotonic() + self._seconds
            self._begin(programs, flushed=False)
        lacking = [
            call.gates.missing(self._turn + 1, len(script.opens))
            for call, script in zip(self._calls, scripts, strict=True)
        ]
        if any(lacking):
            if behind is not None:
                return None
            for call, gates in zip(self._calls, lacking, strict=True):
                self._post(call, relay.shutting(gates))
                call.gates.held.update(gates)
            self._drain(None)
        self._turn += 1
        told = []
        for call, program, script in zip(self._calls, programs, scripts, strict=True):
            mine = [leg.way for leg in order if leg.call == call.number]
            measures = any(way is None or not way.certain or way.key in self.exceeding for way in mine)
            fails = any(way is None or way.fails for way in mine)
            told.append(Told(script.foreseen, script.opens, measures))
            again = call.gates.again(self._turn)
            text = f"{'measure' if measures else '-'} {script.text}"
            sent = [*relay.entering(text, again, script.awaited), *relay.messages(program, fails=fails)]
            self._post(call, sent, told[-1])
            call.gates.held.update(again)
            call.gates.held.difference_update(script.opens)
        self._under_way.append(Relay(programs, order, told, foreseen, end))
        return self._under_way[-1]

    def _foreseen(self, order: Order) -> tuple[Event, ...] | None:
        """The events of a plan that is known in full, and in which nobody fails."""
        events: list[Event] = []
        left = {leg.call for leg in order}
        for leg in order:
            did = leg.way
            if did is None or not did.certain or did.fails or did.version != self._version or did.key in self.exceeding:
                return None
            enabled = tuple(Choice(number) for number in sorted(left))
            events.append(Event(Choice(leg.call), did.at, did.access, did.happenings(leg.call), enabled))
            if did.ended:
                left.discard(leg.call)
        return None if left else tuple(events)

    def _forgets(self, programs: Sequence[Program], order: Order) -> bool:
        """Whether sessions have something to forget before these programs, after a plan of which all is foreseen."""
        kept = [set(call.keeps) for call in self._calls]
        for leg in order:
            if leg.way is not None:
                kept[leg.call] |= leg.way.keeps
        return any(p.leaves_settings or not k.isdisjoint(p.reset) for p, k in zip(programs, kept, strict=True))

    def collect(self, relay: Relay) -> tuple[tuple[Event, ...] | None, tuple[Answer, ...]]:
        """What came of a relay, and how its sessions ended; the one begun first comes first.

        That is a schedule, but not always the one that was planned: it is the relay's `foreseen` itself where all went
        so. None where it is no schedule, since a session waited for another; the answers are then of what was
        committed all the same.
        """
        self._deadline = time.monotonic() + self._seconds
        try:
            self._drain(relay)
            for call, program, told in zip(self._calls, relay.programs, relay.told, strict=True):
                self._stand_ready(call, program)
                call.told = told
            if all(told.whole and not told.spoiled for told in relay.told):
                with suppress(_UnfitError):
                    events = self._gone_through(relay)
                    return events, tuple(self._answer(call) for call in self._calls)
            else:
                self._let_go(relay)
            return None, _committed(relay)
        finally:
            self._collected(relay)

    def abandoned(self, relay: Relay) -> tuple[Answer, ...]:
        """What was committed of a relay that nobody wants any more."""
        self._deadline = time.monotonic() + self._seconds
        self._drain(relay)
        if not all(told.whole and not told.spoiled for told in relay.told):
            self._let_go(relay)
        for call in self._calls:
            call.keeps |= set(Keeps)
        self._collected(relay)
        return _committed(relay)

    def _collected(self, relay: Relay) -> None:
        if relay in self._under_way:
            self._under_way.remove(relay)
        for call in self._calls:
            call.mode, call.told = _Mode.ENDED, None
            call.unflushed = True
            call.came.clear()
            call.caught.clear()
            if call.died:
                self._replace(call)

    def knowledge(self) -> dict[str, Any]:
        """What is known of steps, as plain values."""
        return {
            name: [[to_plain(key), to_plain(access)] for key, access in known.items()]
            for name, known in self._known_of()
        }

    def know(self, knowledge: Mapping[str, Any]) -> None:
        """Know what another controller of the same functions knew."""
        for name, known in self._known_of():
            for key, access in knowledge[name]:
                of = tuple(key) if isinstance(key, list) else key
                known[of] = known.get(of, NOTHING) | access_of(access)

    def knew(self, knowledge: Mapping[str, Any]) -> bool:
        """Whether whoever knew that knew all that is known here, so that what it left out was left out well."""
        for key, access in knowledge["told"]:
            told = self._told_of.get(tuple(key) if isinstance(key, list) else key, NOTHING)
            if not access_of(access).covers(told):
                return False
        return True

    def _known_of(self) -> tuple[tuple[str, dict[Hashable, Access]], ...]:
        return (
            ("learned", self._learned),
            ("told", self._told_of),
            ("executed", self._executed),
            ("exceeding", self.exceeding),
        )

    def _let_go(self, relay: Relay) -> None:
        """After a relay that failed: whoever was cancelled at a gate may hold it since."""
        # What a session did to all settings or locks, it will do again.
        self._relays &= not any(told.lost for told in relay.told)
        for call in self._calls:
            if not call.died:
                call.gates.held.clear()
                self._post(call, LETTING_GO)
        self._drain(None)

    def _post(self, call: _Call, messages: Sequence[Message], told: Told | None = None) -> None:
        pgconn = call.pgconn
        for message in messages:
            query = message.query
            if query is None:
                pgconn.pipeline_sync()
            elif query.name:
                pgconn.send_query_prepared(query.name, query.parameters, query.formats or None, query.result_format)
            else:
                assert isinstance(query.text, str)
                pgconn.send_query_params(query.text.encode(), None)
            call.expected.append((message, told))

    def _drain(self, relay: Relay | None) -> None:
        """Wait until a relay is over (None: everything that was posted is answered).

        Where a session waits for another in it, nobody is spared.
        """
        cancelled = False
        while any(not told.over for told in relay.told) if relay else any(call.expected for call in self._calls):
            ready = self._poll.poll(self._ask_after * 1000)
            for socket, _ in ready:
                self._overhear(self._by_socket[socket])
            spoiled = relay is not None and any(told.spoiled for told in relay.told)
            if (spoiled or time.monotonic() > self._deadline) and not cancelled:
                cancelled = True
                self._deadline = time.monotonic() + _DRAINED_WITHIN
                for call, told in zip(self._calls, relay.told if relay else (), strict=False):
                    told.spoiled = True  # that it was cancelled is no answer of the function's
                    # Who gives up already opens its gates, which must not be cancelled.
                    if call.expected and call.expected[0][1] is told and told.arrived == -1:
                        self._ask(b"cancel", b"%d" % call.pid)
            elif cancelled and time.monotonic() > self._deadline:
                for call in self._calls:
                    if call.expected:
                        self._ask(b"terminate", b"%d" % call.pid)
                self._deadline = time.monotonic() + _DRAINED_WITHIN

    def _overhear(self, call: _Call) -> None:
        """Take in what one connection has to say in a relay."""
        self._take_answers(call)
        self._raise_what_was_raised()

    def _take_answers(self, call: _Call) -> None:
        pgconn = call.pgconn
        try:
            pgconn.consume_input()
            while call.expected and not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    if pgconn.status == ConnStatus.BAD:
                        raise psycopg.OperationalError("the connection is lost")
                    continue
                message, told = call.expected[0]
                if result.status == ExecStatus.PIPELINE_SYNC:
                    call.expected.popleft()
                    if message.sent is Sent.END and told is not None:
                        self._ended(call, told)
                elif message.query is None:
                    raise psycopg.OperationalError("the connection is out of step")
                else:
                    call.expected.popleft()
                    if told is not None:
                        told.result(message, result)
        except psycopg.OperationalError:
            self._poll.unregister(call.socket)
            for _, told in call.expected:
                if told is not None:
                    told.over = True
            call.expected.clear()
            call.mode, call.died = _Mode.ENDED, True

    def _ended(self, call: _Call, told: Told) -> None:
        """A session has come to the end of a relay, or of giving it up."""
        if told.arrived == -1:
            told.arrived = -2
            self._post(call, relay.giving_up(told.opens), told)
        else:
            told.over = True
            # While more is expected the status is not known; it is what it was where the session did the same before.
            idle = bool(call.expected) or call.pgconn.transaction_status == TransactionStatus.IDLE
            told.whole = told.arrived >= 0 and idle

    def _gone_through(self, relay: Relay) -> tuple[Event, ...] | None:
        """The events of a relay, by what the sessions told, in the order of the turns."""
        order = relay.order
        foreseen = {call.number for call in self._calls if self._as_foreseen(call, order)}
        state = self._start(relay.programs)
        if relay.foreseen is not None and len(foreseen) == len(self._calls):
            for position, leg in enumerate(order, 1):
                assert leg.way is not None
                state = self._went(state, leg.call, leg.way, position)
            return relay.foreseen
        events: list[Event] = []
        walks = [self._walk(call) for call in self._calls]
        last = {leg.call: at for at, leg in enumerate(order)}
        left = set(last)
        for at, leg in enumerate(order):
            call = self._calls[leg.call]
            while leg.call in left:
                enabled = tuple(Choice(number) for number in sorted(left))
                if leg.call in foreseen:
                    did = leg.way
                    assert did is not None
                    events.append(Event(Choice(leg.call), did.at, did.access, did.happenings(leg.call), enabled))
                    state = self._went(state, leg.call, did, len(events))
                    if did.ended:
                        left.discard(leg.call)
                    break
                call.passed, call.touched = [], NOTHING
                call.caught.clear()
                call.came.clear()
                ended = next(walks[leg.call])
                found = [Happening(leg.call, "caught", each) for each in call.caught] + call.came
                if ended:
                    left.discard(leg.call)
                    if not call.came:
                        found.append(Happening(leg.call, "commits"))
                else:
                    found.append(Happening(leg.call, "parks" if call.at >= 0 else "returns", "", call.at))
                access = call.touched | call.written.ending() if call.caught else call.touched
                assert call.acted_at is not None
                event = Event(Choice(leg.call), call.acted_at, access, tuple(found), enabled)
                way = self.ways.known(state[leg.call], tuple(call.passed), event)
                assert call.told is not None
                if not call.told.measures and (way is None or not way.certain):
                    raise _UnfitError
                state = self.ways.after(state, event, self._done(call))
                events.append(event)
                call.began = call.began or len(events)
                if ended:
                    call.ended = len(events)
                if at != last[leg.call]:
                    break
        return tuple(events)

    def _went(self, state: State, number: int, did: Way, position: int) -> State:
        """A session did what was foreseen."""
        call = self._calls[number]
        call.keeps |= did.keeps
        call.began = call.began or position
        if did.ended:
            call.ended = position
        return self.ways.went(state, number, did)

    def _as_foreseen(self, call: _Call, order: Order) -> bool:
        """Whether a session did what was foreseen, and all of that is known; then its answers are taken."""
        told = call.told
        assert told is not None
        if told.measures or told.arrivals or told.texts or told.arrived != len(told.order):
            return False
        caught, place = {}, 0
        for leg in order:
            if leg.call == call.number:
                if leg.way is None or leg.way.version != self._version:
                    return False
                place += len(leg.way.passed)
                if codes := [detail for what, detail, _ in leg.way.own if what == "caught"]:
                    caught[place] = codes
                place += 1
        if caught != told.caught:
            return False
        for number, unit in enumerate(call.program.units):
            result = told.results.get(number)
            if result is None or result.status in _FAILED:
                return False
            if unit.answers and unit.statement is not None:
                call.results[unit.statement] = result
        return True

    def _walk(self, call: _Call) -> Iterator[bool]:
        """Go through what a session told in a relay, as far as its next stop each time; True: it has ended."""
        told = call.told
        assert told is not None
        units, place = call.program.units, 0
        skipped: int | None = None
        call.reading = told.began

        def comes_to(place: int) -> None:
            """What happened since it arrived the last time."""
            for text in told.texts.get(place, ()):
                self._executes(call, text)
            call.caught += told.caught.get(place, ())

        def settles(raw: str | None) -> None:
            if raw is not None:
                self._measured(call, raw)
            elif call.open:
                call.open = False
                self._touch(call, self._learn(call.key, call.text, NOTHING))

        for quiet, number in relay.groups(call.program):
            unit = units[number]
            for each in (*quiet, number):
                result = told.results.get(each)
                if result is None or result.status == ExecStatus.PIPELINE_ABORTED:
                    raise _UnfitError
                if each != number and result.status == ExecStatus.FATAL_ERROR:
                    raise _UnfitError
                if each != number and units[each].statement is not None:
                    call.results[units[each].statement or 0] = result
            if skipped is not None:
                # The rest of the statement is not done; the end of its transaction was a rollback.
                if number + 1 < len(units) and units[number + 1].statement == skipped:
                    continue
                skipped = None
                self._transaction_ended(call)
                if number + 1 < len(units):
                    call.reading = told.at(place)[1] or ""
                    place += 1
                    call.at = top(number + 1)
                    yield False
                continue
            result = told.results[number]
            ends = unit.does in (Does.COMMITS, Does.ROLLS_BACK)
            text = unit.access | call.written.ending() if ends else unit.access
            self._begin_step(call, top(number), text, unit.key)
            if ends:
                call.open = False
                self._touch(call, text)
            entering = unit.does is Does.ACTS
            while place < told.arrived and told.at(place)[0] >= 0:
                step, raw = told.at(place)
                comes_to(place)
                through = entering and not call.text and (raw is None or not self._between(call.reading, raw)[1])
                if place < len(told.order) and told.order[place][1] != through:
                    raise _UnfitError
                settles(raw)
                if through:
                    call.passed.append(step)
                else:
                    call.at = step
                    yield False
                rewritten = self._rewritten.steps[step]
                known = rewritten.access | self._executed.get(step, NOTHING)
                self._begin_step(call, step, known | call.written.ending() if rewritten.ends else known)
                entering = False
                place += 1
            comes_to(place)
            if result.status == ExecStatus.FATAL_ERROR:
                if not unit.own:
                    raise _UnfitError  # the session goes on in a transaction that has failed
                call.came.append(Happening(call.number, "fails", relay.code(result)))
                call.keeps |= set(Keeps)
                if call.open:
                    self._touch(call, self._unmeasured(call))
                call.touched |= call.written.ending()
                assert unit.statement is not None
                call.results[unit.statement] = result
                skipped = unit.statement
                continue
            if unit.statement is not None and unit.answers:
                call.results[unit.statement] = result
            if place < told.arrived:
                step, raw = told.at(place)
                settles(raw)
                place += 1
                if ends:
                    self._transaction_ended(call)
                    call.reading = raw or ""
                call.at = top(number + 1)
                yield False
            elif ends:
                self._transaction_ended(call)
        yield True

    def suit(self, sessions: int, fatal: Sequence[Kind]) -> None:
        """Drive so many sessions from now on, to one of which in each schedule what is fatal may come."""
        self._fatal = tuple(fatal)
        while len(self._calls) > sessions:
            call = self._calls.pop()
            self._poll.unregister(call.socket)
            call.connection.close()
            self._ask(b"open", self._space, self._gate(call, call.gate))
        while len(self._calls) < sessions:
            self._calls.append(self._opened(len(self._calls)))

    def reset(self) -> None:
        """Give up what runs and take fresh connections in its place."""
        for call in self._calls:
            if call.mode is not _Mode.ENDED or call.died or self._under_way:
                self._ask(b"terminate", b"%d" % call.pid)
                self._replace(call)
        for each in self._under_way:
            for told in each.told:
                told.over = True
        self._under_way.clear()

    def _answer(self, call: _Call) -> Answer:
        tries = {
            unit.statement: 1 + call.tries[unit.restart]
            for unit in call.program.units
            if unit.statement is not None and unit.restart in call.tries
        }
        return Answer(call.results, call.began, call.ended, call.died, call.used_up, tries)

    def _enabled(self, events: Sequence[Event]) -> tuple[Choice, ...]:
        found = [Choice(c.number) for c in self._calls if c.mode in (_Mode.READY, _Mode.PARKED)]
        found += [Choice(c.number, Kind.LAPSE) for c in self._calls if c.mode is _Mode.WAITING and c.impatient]
        if self._fatal and not any(event.choice.kind in FATAL for event in events):
            parked = [call for call in self._calls if call.mode is _Mode.PARKED]
            # Between two statements there is nothing to cancel.
            found += [Choice(c.number, k) for c in parked for k in self._fatal if k is Kind.DIE or c.at >= 0]
        return tuple(found)

    def _carry_out(self, choice: Choice, enabled: tuple[Choice, ...], position: int) -> Event:
        chosen = self._calls[choice.call]
        before = [(call.mode, call.at, call.waits_for) for call in self._calls]
        for call in self._calls:
            call.caught.clear()
            call.came.clear()
            call.told_waiting = call.finished = False
            call.touched, call.acted_at = NOTHING, None
            call.passed.clear()
        access = NOTHING
        chosen.mode = _Mode.RUNNING
        if choice.kind is not Kind.STEP:
            chosen.finished = True
        if choice.kind is Kind.DIE:
            access = chosen.written.ending()
            chosen.leaving = True
            self._ask(b"terminate", b"%d" % chosen.pid)
        elif choice.kind is Kind.CANCEL:
            access = chosen.written.ending()
            chosen.leaving = True
            self._ask(b"cancel", b"%d" % chosen.pid)
        elif choice.kind is Kind.LAPSE:
            access = chosen.written.ending()
            chosen.leaving = True
            if self._statement_timeout:
                self._ask(b"cancel", b"%d" % chosen.pid)
        elif chosen.at < 0:
            chosen.began = chosen.began or position
            chosen.going = True
            self._send_unit(chosen)
        else:
            self._go_through(chosen, chosen.at)
        stood = chosen.at
        self._settle()
        if chosen.acted_at is not None:
            stood = chosen.acted_at

        happenings: list[Happening] = []
        for call, (mode, at, waits_for) in zip(self._calls, before, strict=True):
            changed = (mode, at, waits_for) != (call.mode, call.at, call.waits_for) or call.caught or call.came
            if call is not chosen and not changed:
                continue
            happenings += self._happened(call)
            access |= call.touched
            if call.open and choice.kind not in FATAL:
                access |= self._unmeasured(call)
            if call.caught:
                access |= call.written.ending()  # a part of its work was rolled back, and its locks are gone
            if call.mode is _Mode.ENDED:
                call.ended = call.ended or position
        if any(h.what == "waits" or h.detail == _DEADLOCK for h in happenings):
            access |= Access(writes=frozenset({WAITS}))
        access = self._at_level(access)
        # The chosen call first: the others follow from what it did.
        happenings.sort(key=lambda happening: happening.call != choice.call)
        return Event(choice, stood, access, tuple(happenings), enabled)

    def _at_level(self, access: Access) -> Access:
        """What was touched in a choice, as it commutes at the level of the transactions.

        Above read committed the end of a transaction does not commute with the first statement of another. At
        serializable it commutes with nothing: who is aborted, of transactions that depend on each other in a row,
        depends on which of them has ended, also where the first and the last have no table in common.
        """
        ends = any(call.finished for call in self._calls)
        if self.level == "repeatable read" and ends:
            return access | Access(ends=frozenset({SNAPSHOTS}))
        if self.level == "serializable":
            return Access(everything=True) if ends else access.at_serializable()
        return access

    def _happened(self, call: _Call) -> list[Happening]:
        found = [Happening(call.number, "caught", code) for code in call.caught] + call.came
        if call.mode is _Mode.WAITING:
            found.append(Happening(call.number, "waits", call.waits_for, call.at))
        elif call.mode is _Mode.PARKED:
            returned = call.at < 0
            found.append(Happening(call.number, "returns" if returned else "parks", "", call.at))
        elif call.died:
            found.append(Happening(call.number, "dies"))
        elif not any(happening.what == "fails" for happening in call.came):
            found.append(Happening(call.number, "commits"))
        return found

    def _begin_step(self, call: _Call, at: int, text: Access, key: Hashable = None) -> None:
        """A session goes on with a step, of which `text` is what is known beforehand."""
        call.at = call.acted_at = at
        if not call.has_snapshot and self.level != "read committed":
            call.has_snapshot = True
            call.touched |= Access(reads=frozenset({SNAPSHOTS}))
        call.key, call.text, call.open = at if key is None else key, text, True

    def _go_through(self, call: _Call, number: int) -> None:
        """Let a session go on from its turnstile."""
        step = self._rewritten.steps[number]
        text = step.access | self._executed.get(number, NOTHING)
        self._begin_step(call, number, text | call.written.ending() if step.ends else text)
        self._release(call)

    def _measured(self, call: _Call, raw: str) -> None:
        """The step that a session does has come to its end, or to another step inside of it."""
        found, _, kept = self._between(call.reading, raw)
        call.keeps |= kept
        call.reading = raw
        if call.open:
            call.open = False
            self._touch(call, self._learn(call.key, call.text, found))
            if isinstance(call.key, int) and (step := self._rewritten.steps[call.key]).ends and not step.final:
                call.written = NOTHING  # committed, or rolled back
                call.finished, call.has_snapshot = True, False

    def _learn(self, key: Hashable, text: Access, found: Access) -> Access:
        """What a step touched, by its text and by all that was ever measured of it."""
        known = self._learned.get(key, NOTHING)
        if not known.covers(found):
            known = self._learned[key] = known | found
            self._version += 1
        told = self._told_of.get(key)
        access = self._known(key, text)
        if told is None or not told.covers(access):
            self.outdated += told is not None
            self._told_of[key] = access
        return access

    def _known(self, key: Hashable, text: Access) -> Access:
        """What a step that is measured touches."""
        measured = self._learned.get(key, NOTHING)
        if text.unread:
            text = Access(text.reads, text.writes, text.ends, text.everything)
            return text | measured.at_its_strongest(self._rewritten.traceless)
        if not text.covers(measured):
            self._version += key not in self.exceeding
            self.exceeding[key] = measured
            return text | measured.at_its_strongest(self._rewritten.traceless)
        return text | measured

    def _unmeasured(self, call: _Call) -> Access:
        """What a step touches that waits, or failed: it is not known yet, or will not be."""
        access = call.text | self._learned.get(call.key, NOTHING)
        if call.text.unread and call.mode is not _Mode.WAITING:
            self.unmeasured.add(call.key)
        told = self._told_of.get(call.key)
        if told is None:
            self._told_of[call.key] = access
        elif access.unread or not told.covers(access):
            self._told_of[call.key] = told | access
        call.written |= access
        return access

    def _touch(self, call: _Call, access: Access) -> None:
        call.touched |= access
        call.written |= access
        # What is measured without the locks shows neither of these, but the text does.
        if ADVISORY_LOCKS in access.writes:
            call.keeps.add(Keeps.LOCKS)
        if not access.writes.isdisjoint(self._rewritten.sequences):
            call.keeps.add(Keeps.SEQUENCES)

    def _settle(self) -> None:
        """Wait until no call runs: each is parked, ended, or waits for another call."""
        while True:
            while any(call.mode is _Mode.RUNNING for call in self._calls):
                self._listen()
            # What the choice did may have let a waiting call go on, which only the server can tell.
            waiting = [call for call in self._calls if call.mode is _Mode.WAITING]
            if not waiting:
                return
            self._ask_blockers(waiting)
            if any(call.mode is _Mode.RUNNING for call in self._calls):
                continue
            if not _in_a_circle(waiting):
                return
            self._listen()  # the server is about to find the deadlock

    def _listen(self) -> None:
        """Take in what the connections have to say; ask the server when they are silent."""
        ready = self._poll.poll(self._ask_after * 1000)
        if time.monotonic() > self._deadline:
            raise ScheduleTimeoutError(self._standing())
        for socket, _ in ready:
            self._hear(self._by_socket[socket])
        doubtful = [c for c in self._calls if c.mode is _Mode.RUNNING and (c.told_waiting or not ready)]
        if doubtful:
            self._ask_blockers(doubtful)

    def _hear(self, call: _Call) -> None:
        """Take in what one connection has to say between two choices."""
        self._take_in(call)
        self._raise_what_was_raised()

    def _take_in(self, call: _Call) -> None:
        pgconn = call.pgconn
        try:
            pgconn.consume_input()
            between = False
            while not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    if pgconn.status == ConnStatus.BAD:
                        raise psycopg.OperationalError("the connection is lost")
                    if between:
                        return  # nothing was asked
                    between = True  # the end of one command of the pipeline
                    continue
                between = False
                if result.status == ExecStatus.PIPELINE_SYNC:
                    call.due.clear()
                    self._synced(call)
                    return
                self._told_result(call, result)
        except psycopg.OperationalError:
            self._poll.unregister(call.socket)
            call.mode, call.died, call.leaving = _Mode.ENDED, True, False

    def _told_result(self, call: _Call, result: pq.abc.PGresult) -> None:
        due = call.due.popleft() if call.due else _Due.NOTHING
        if result.status in (ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH):
            raise HarnessError(
                "A statement copies data to or from the client, which cannot be made to wait its turn.",
                tried=call.program.units[call.unit].label,
                next_step="use INSERT or SELECT in its place",
            )
        failed = result.status == ExecStatus.FATAL_ERROR
        if due is _Due.OURS and result.status != ExecStatus.TUPLES_OK:
            raise self._lost("taking a script away", result)
        if due is _Due.MEASURE and result.status == ExecStatus.TUPLES_OK:
            self._measured(call, (result.get_value(0, 0) or b"").decode())
        elif (due is _Due.ANSWER and result.status != ExecStatus.PIPELINE_ABORTED) or (due is _Due.BEFORE and failed):
            call.result = result

    def _synced(self, call: _Call) -> None:
        """All that was sent is answered."""
        call.leaving = False
        call.entering = False
        if call.forgetting:
            call.forgetting, call.mode = False, _Mode.READY
        elif call.rolling_back:
            call.rolling_back = False
            self._transaction_ended(call)
            self._next_unit(call)
        elif call.result is not None and call.result.status == ExecStatus.FATAL_ERROR:
            self._failed(call, call.program.units[call.unit], call.result)
        else:
            unit = call.program.units[call.unit]
            if call.open:
                self._touch(call, self._unmeasured(call))
            if unit.does is Does.ALONE:
                call.keeps |= set(Keeps)
                call.touched |= call.written.ending()
            if (
                unit.statement is not None
                and unit.does is not Does.CHECKS
                and not (unit.own and unit.does is not Does.ACTS)
            ):
                call.results[unit.statement] = call.result
            if call.pgconn.transaction_status == TransactionStatus.IDLE:
                self._transaction_ended(call)
            call.unit += 1
            self._next_unit(call)

    def _transaction_ended(self, call: _Call) -> None:
        call.written = NOTHING
        call.finished, call.has_snapshot = True, False
        call.impatient = call.always_impatient
        call.reading = ""  # the server was told to put its counters away; XX
        call.open = False

    def _failed(self, call: _Call, unit: Unit, result: pq.abc.PGresult) -> None:
        """A unit ended in an error: what its session does then."""
        program = call.program
        code = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()
        call.came.append(Happening(call.number, "fails", code))
        call.finished = True
        call.keeps |= set(Keeps)  # what it kept cannot be measured any more
        if call.open:
            self._touch(call, self._unmeasured(call))
        call.touched |= call.written.ending()
        if unit.statement is not None:
            call.results[unit.statement] = result
        in_transaction = call.pgconn.transaction_status != TransactionStatus.IDLE
        roll_back = in_transaction
        tries = call.tries.get(unit.restart, 0)
        if code in program.retry and tries < program.retries:
            call.tries[unit.restart] = tries + 1
            call.unit = 0 if program.retry_session else unit.restart
        else:
            call.used_up |= code in program.retry and program.retries > 0
            if program.stop_on_error:
                call.unit = len(program.units) - program.closing
            elif unit.own or unit.does is Does.CHECKS:
                while call.unit < len(program.units) and program.units[call.unit].statement == unit.statement:
                    call.unit += 1
            else:
                call.unit += 1
                roll_back = False  # the transaction is the session's, which goes on in it as psql does
        if roll_back:
            call.rolling_back = True
            self._send(call, [(ROLLBACK_QUERY, _Due.NOTHING)], measured=True, ended=True)
        else:
            if not in_transaction:
                self._transaction_ended(call)
            self._next_unit(call)

    def _next_unit(self, call: _Call) -> None:
        """Go on to the unit that is next, or wait before it."""
        units = call.program.units
        if call.unit >= len(units):
            call.mode = _Mode.ENDED
            return
        if call.pgconn.transaction_status == TransactionStatus.INERROR:
            # Its locks are gone, and nothing that it says touches anything before it goes back or ends.
            if units[call.unit].does is Does.CHECKS:
                call.unit += 1
            if units[call.unit].does is not Does.GOES_BACK:
                self._send_unit(call, futile=True)
                return
        elif call.going or all(unit.quiet for unit in units[call.unit :]):
            self._send_unit(call)
            return
        call.mode, call.at = _Mode.PARKED, top(call.unit)

    def _send_unit(self, call: _Call, *, futile: bool = False) -> None:
        """Send the unit that is next; one that touches nothing is followed by the one after it at once."""
        unit = call.program.units[call.unit]
        call.mode, call.result = _Mode.RUNNING, None
        if unit.patience is not None:
            call.impatient = self._statement_timeout or unit.patience.ends
            call.always_impatient = call.always_impatient if unit.patience.local else call.impatient
        acts = not unit.quiet and not futile
        if acts:
            call.going = False
            ends = unit.does in (Does.COMMITS, Does.ROLLS_BACK, Does.GOES_BACK)
            text = (unit.access | call.written.ending()) if ends else unit.access
            self._begin_step(call, top(call.unit), text, unit.key)
            if ends:
                call.open = False
                self._touch(call, text)
            call.entering = unit.does in (Does.ACTS, Does.ALONE)
        elif call.acted_at is None:
            call.at = top(call.unit)
        messages = [(query, _Due.BEFORE) for query in unit.before] + [(unit.query, _Due.ANSWER)]
        ended = unit.does in (Does.COMMITS, Does.ROLLS_BACK)
        # What a failed step touched is told when its transaction is over; before that the server answers nothing.
        measured = unit.does in (Does.ACTS, Does.CHECKS) if acts else futile and ended
        self._send(call, messages, measured=measured, ended=ended)

    def _send(
        self, call: _Call, messages: Sequence[tuple[Query, _Due]], *, measured: bool = False, ended: bool = False
    ) -> None:
        pgconn = call.pgconn
        call.mode = _Mode.RUNNING
        for query, due in messages:
            if query.name:
                pgconn.send_query_prepared(query.name, query.parameters, query.formats, query.result_format)
            else:
                text = query.text if isinstance(query.text, str) else query.text(self._answer(call).told())
                pgconn.send_query_params(text.encode(), None)
            call.due.append(due)
        if measured:
            pgconn.send_query_prepared(_MEASURE, [])
            call.due.append(_Due.MEASURE)
        if ended and self._flushes:
            pgconn.send_query_prepared(_FLUSH, [])
            call.due.append(_Due.NOTHING)
        pgconn.pipeline_sync()

    def _take_notice(self, call: _Call, notice: pq.abc.PGresult) -> None:
        """Called by libpq in the middle of reading: what is raised here, a signal too, it would print and forget."""
        try:
            self._noticed(call, notice)
        except BaseException as error:
            self._raised = self._raised or error

    def _raise_what_was_raised(self) -> None:
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised

    def _noticed(self, call: _Call, notice: pq.abc.PGresult) -> None:
        if call.expected and (told := call.expected[0][1]) is not None:
            told.notice(notice.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"", self._gates)
            return
        words = (notice.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"").split()
        match words:
            case [b"harness", b"turnstile", step, patience, *_]:
                before = call.reading
                raw = (notice.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"").split(b" ", 4)[4].decode()
                # Where the snapshot that was taken on the way is kept, the way is a step.
                entered, call.entering = call.entering and self.level == "read committed", False
                call.impatient = self._statement_timeout or patience != b"0"
                if entered and not call.text and not self._between(before, raw)[1]:
                    # The way to the first step inside: nothing that others could notice.
                    self._measured(call, raw)
                    call.passed.append(int(step))
                    self._go_through(call, int(step))
                    return
                self._measured(call, raw)
                call.mode, call.at, call.leaving = _Mode.PARKED, int(step), False
            case [b"harness", b"text", *_]:
                text = (notice.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"").split(b" ", 3)[3]
                self._executes(call, text.decode())
            case [b"harness", b"caught", code, _]:
                call.caught.append(code.decode())
                call.mode, call.leaving = _Mode.RUNNING, False
            case [b"process", _, b"still", b"waiting", *_, lock, b"after", _, b"ms"] if self._gates not in lock:
                call.told_waiting = True

    def _executes(self, call: _Call, text: str) -> None:
        """A text that was put together is about to be carried out by the step that a session does."""
        access, block = self._rewritten.read(text)
        before = self._executed.get(call.key, NOTHING)
        known = self._executed[call.key] = before | access
        self._version += known != before
        call.text |= known
        if block and isinstance(call.key, int):
            self.blocks.add(call.key)

    def _between(self, before: str, after: str) -> tuple[Access, bool, set[Keeps]]:
        """What was touched between two readings, whether others could notice it, and what the backend keeps of it."""
        known = self._readings.get((before, after))
        if known is None:
            one, other = measure.read(before), measure.read(after)
            found = measure.between(one, other, self._rewritten.relations)
            noticed = one.counters != other.counters or bool(found.writes) or found.everything
            known = found, noticed, measure.kept(other, self._rewritten.relations)
            if len(self._readings) < _MOST_READINGS:
                self._readings[before, after] = known
        return known

    def _ask_blockers(self, calls: Sequence[_Call]) -> None:
        """Ask what calls wait for: those that do are waiting, those that do not are running."""
        pids = b"{" + b",".join(b"%d" % call.pid for call in calls) + b"}"
        result = self._ask(b"blockers", pids)
        by_pid = {c.pid: c for c in self._calls}
        for row in range(result.ntuples):
            call = by_pid[int(result.get_value(row, 0) or b"")]
            blockers = [int(pid) for pid in (result.get_value(row, 1) or b"").split()]
            stood = call.gate, call.unit
            self._hear(call)
            if (call.gate, call.unit) != stood:
                # It has gone on meanwhile, through a turnstile or to its next unit: what was told is of before.
                if call.mode is _Mode.WAITING:
                    call.mode = _Mode.RUNNING
                continue
            if call.mode not in (_Mode.RUNNING, _Mode.WAITING) or call.leaving:
                continue
            told, call.told_waiting = call.told_waiting, False
            others = tuple(sorted(by_pid[pid].number for pid in blockers if pid in by_pid))
            if others and call.mode is _Mode.WAITING and others != call.waits_for and self._told and not told:
                # It waits anew, and its look for a deadlock is still to come: the server will tell of it.
                call.mode = _Mode.RUNNING
            elif others:
                call.mode, call.waits_for = _Mode.WAITING, others
            elif self._control.pgconn.backend_pid in blockers:
                raise self._meddling()
            else:
                call.mode = _Mode.RUNNING

    def _release(self, call: _Call) -> None:
        following = call.gate ^ 1
        gates = [self._space, self._gate(call, following), self._gate(call, call.gate)]
        self._collect_release()
        # The answer is read when the control connection is needed next: the call's own word comes at the same time.
        self._control.pgconn.send_query_prepared(b"release", gates)
        self._releasing = True
        call.gate = following

    def _collect_release(self) -> None:
        if not self._releasing:
            return
        self._releasing = False
        result = own.next_result(self._control.pgconn)
        while own.next_result(self._control.pgconn) is not None:
            pass
        if result is None or result.status != ExecStatus.TUPLES_OK:
            raise self._lost("release", result)
        if result.get_value(0, 0) != b"t":
            raise self._meddling()

    def _gate(self, call: _Call, gate: int) -> bytes:
        return b"%d" % (2 * call.pid + gate)

    def _meddling(self) -> HarnessError:
        return UsageError(
            "The function takes or holds the advisory locks by which its own steps are controlled.",
            tried=f"pg_advisory_lock({self._space.decode()}, process id): keys that the function does not name",
            next_step="keep the function from locking keys that it finds in pg_locks, or race it under load",
        )

    def _ask(self, query: bytes, *parameters: bytes) -> pq.abc.PGresult:
        self._collect_release()
        result = self._control.pgconn.exec_prepared(query, list(parameters))
        if result.status != ExecStatus.TUPLES_OK:
            raise self._lost(query.decode(), result)
        return result

    def _lost(self, query: str, result: pq.abc.PGresult | None) -> HarnessError:
        return HarnessError(
            "The controller lost its hold of the schedule.",
            tried=f"{query}: {result.get_error_message() if result else 'the connection is closed'}",
            next_step="check that the server still runs, and that the role may end its own backends",
        )

    def _show(self, setting: str) -> str:
        row = self._control.execute("SELECT current_setting(%s)", [setting]).fetchone()
        assert row is not None
        return str(row[0])

    def _accepted_settings(self) -> dict[str, str]:
        """Those of the settings that this server knows and this role may set, tried on the controller's own session."""
        accepted = {}
        for name, value in _SETTINGS.items():
            with suppress(psycopg.errors.UndefinedObject, psycopg.errors.InsufficientPrivilege):
                self._control.execute("SELECT set_config(%s, %s, false)", [name, value])
                accepted[name] = value
        return accepted

    def _set_again(self) -> Query:
        """Settings of a session that RESET ALL took away."""
        settings = {**self._settings, "synchronous_commit": "off"}
        calls = (sql.SQL("set_config({}, {}, false)").format(name, value) for name, value in settings.items())
        return Query(sql.SQL("SELECT {}").format(sql.SQL(", ").join(calls)).as_string(self._control))

    def _opened(self, number: int) -> _Call:
        connection = self._connect()
        connection.execute(
            "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS s (name, value)",
            [list(self._settings), list(self._settings.values())],
        )
        pgconn = connection.pgconn
        own = [Prepared(_MEASURE, b"SELECT harness_schedules.measured()", ())]
        if self._flushes:
            own.append(Prepared(_FLUSH, b"SELECT pg_catalog.pg_stat_force_next_flush()", ()))
        if self._relays:
            own += [Prepared(name, statement, ()) for name, statement in relay.PREPARED.items()]
        for prepared in (*own, *self._prepared):
            result = pgconn.prepare(prepared.name, prepared.statement, prepared.parameter_oids)
            if result.status != ExecStatus.COMMAND_OK:
                message = result.get_error_message()
                if connection.closed:
                    raise psycopg.OperationalError(message)
                connection.close()
                raise HarnessError(
                    "The call cannot be prepared.",
                    tried=f"{prepared.statement.decode()}\n    {message}",
                    next_step="check the contract's function against the migrations",
                )
        call = _Call(number, connection, pgconn, pgconn.backend_pid, pgconn.socket, gates=Gates(number))
        pgconn.notice_handler = lambda notice: self._take_notice(call, notice)
        pgconn.nonblocking = 1
        pgconn.enter_pipeline_mode()
        if self._ask(b"shut", self._space, self._gate(call, 0)).get_value(0, 0) != b"t":
            raise self._meddling()
        self._by_socket[call.socket] = call
        self._poll.register(call.socket, select.POLLIN)
        return call

    def _replace(self, call: _Call) -> None:
        """A fresh connection in the place of one that is dead or given up."""
        if not call.died:
            self._poll.unregister(call.socket)
        call.connection.close()
        self._ask(b"open", self._space, self._gate(call, call.gate))
        self._calls[call.number] = self._opened(call.number)

    def _standing(self) -> str:
        """Where each call stands, in words."""
        return "; ".join(
            f"{Choice(call.number)} is {call.mode.value} "
            + (
                f"at: {call.program.units[-1 - call.at].label}"
                if call.at < 0
                else f"at line {self._rewritten.steps[call.at].line}: {self._rewritten.steps[call.at].text}"
            )
            for call in self._calls
            if call.mode is not _Mode.ENDED
        )


def _committed(relay: Relay) -> tuple[Answer, ...]:
    """How the sessions of a relay ended that is no schedule: those that did not come to their end left nothing."""
    found = []
    for program, told in zip(relay.programs, relay.told, strict=True):
        results = [told.results.get(number) for number in range(len(program.units))]
        whole = all(r is not None and r.status not in _FAILED for r in results)
        answers = {u.statement: r for u, r in zip(program.units, results, strict=True) if u.answers}
        first = {0: answers[0]} if whole and answers.get(0) is not None else {}
        found.append(Answer(first, 1, 1, died=not first))
    return tuple(found)


def _told(result: pq.abc.PGresult | None, tries: int) -> StatementAnswer:
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


def _in_a_circle(waiting: Sequence[_Call]) -> bool:
    """Whether some of the waiting calls wait for each other."""
    left = {call.number: set(call.waits_for) for call in waiting}
    while free := [number for number, blockers in left.items() if not blockers & left.keys()]:
        for number in free:
            del left[number]
    return bool(left)
