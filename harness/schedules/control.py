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
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psycopg
from psycopg import pq
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, TransactionStatus

from harness.errors import HarnessError
from harness.schedules import relay
from harness.schedules.bookkeeping import Bookkeeping
from harness.schedules.connections import FLUSH, MEASURE, Connections, Prepared, Together
from harness.schedules.knowledge import Knowledge
from harness.schedules.measure import Keeps
from harness.schedules.program import NOTHING, RESET_QUERIES, ROLLBACK_QUERY, Does, Program, Query, Unit
from harness.schedules.relaying import Relays
from harness.schedules.rewrite import Rewritten
from harness.schedules.standing import Call, Due, Ending, Mode, in_a_circle
from harness.schedules.trace import FATAL, Choice, Event, Happening, Kind, top
from harness.schedules.ways import Ways, start
from harness.sqltext.access import SNAPSHOTS, WAITS, Access

Choose = Callable[[tuple[Choice, ...], Sequence[Event]], Choice | None]
"""Who next? Given what is possible and what happened so far; None gives the schedule up."""

_DEADLOCK = "40P01"


class ScheduleTimeoutError(Exception):
    """A schedule did not end in time; the message says which call stood where."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One schedule carried out."""

    events: tuple[Event, ...]
    endings: tuple[Ending, ...]
    complete: bool
    """False when the scheduler gave it up; the calls were then let run to their end, one after the other."""


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
        together: Together | None = None,
    ) -> None:
        """`connect` opens an autocommit connection; `seconds` is the most that one schedule may take.

        What is `fatal` may come to a session at each of its steps, to one in each schedule at most.
        """
        self._rewritten = rewritten
        self._seconds = seconds
        self._fatal = tuple(fatal)
        self._deadline = 0.0
        self.known = Knowledge(rewritten)
        self.books = Bookkeeping(self.known)
        self._ways = Ways()
        self._connections = Connections(connect, space, prepared, self._noticed, together)
        self._calls = self._connections.calls
        try:
            self._connections.suit(sessions)
        except BaseException:
            self.close()
            raise
        self.relays = Relays(
            self._connections, self.known, self.books, self._ways, partial(self._begin, flushed=False), seconds
        )
        self.relays.wanted = not fatal

    @property
    def isolation(self) -> str:
        """Isolation level of a transaction that sets none, as `transaction_isolation` spells it."""
        return self._connections.isolation

    def close(self) -> None:
        """Close every connection; what still runs is rolled back by it."""
        self._connections.close()

    def run(self, programs: Sequence[Program], choose: Choose) -> Trace:
        """Carry out one schedule of the sessions' programs.

        Raises ScheduleTimeoutError; `reset` makes the controller usable again.
        """
        self._begin(programs)
        events: list[Event] = []
        complete = True
        state = start(self._ways, programs)
        while enabled := self._enabled(events):
            choice = choose(enabled, events) if complete else enabled[0]
            if choice is None:
                complete, choice = False, enabled[0]
            event = self._carry_out(choice, enabled, len(events) + 1)
            state = self._ways.after(state, event, self.books.done(self._calls[choice.call]))
            events.append(event)
        if any(call.mode is not Mode.ENDED for call in self._calls):
            raise ScheduleTimeoutError(f"nothing can go on: {self._standing()}")
        were = list(self._calls)
        for call in were:
            if call.died:
                self._connections.replace(call)  # by one that did nothing: what a dead one was told counts for nobody
        endings = [
            replace(call.ending(), died=was.died, began=was.began, ended=was.ended)
            for call, was in zip(self._calls, were, strict=True)
        ]
        return Trace(tuple(events), tuple(endings), complete)

    def _begin(self, programs: Sequence[Program], *, flushed: bool = True) -> None:
        """Make the sessions ready for a schedule; with their counters put away, where the first reading is not told."""
        self._deadline = time.monotonic() + self._seconds
        for call, program in zip(self._calls, programs, strict=True):
            call.stand_ready(program, impatient=self._connections.impatient)
            forgotten = [query for kind, query in program.reset.items() if kind in call.keeps]
            if program.leaves_settings:
                forgotten += [*RESET_QUERIES, self._connections.set_again()]
            # Whatever became of the last relay, nothing of its script may be left when choices are made one by one.
            relayed = flushed and call.unflushed
            if forgotten or relayed:
                call.forgetting, call.unflushed = True, call.unflushed and not flushed
                if Keeps.LOCKS in call.keeps & program.reset.keys():
                    call.gates.held.clear()  # with all other advisory locks
                if forgotten:
                    call.keeps.clear()
                taken = [(query, Due.NOTHING) for query in forgotten] + [(relay.CLEAR, Due.OURS)] * relayed
                self._send(call, taken, ended=True)
        self._settle()

    def suit(self, sessions: int, fatal: Sequence[Kind]) -> None:
        """Drive so many sessions from now on, to one of which in each schedule what is fatal may come."""
        self._fatal = tuple(fatal)
        self.relays.wanted = not fatal
        self._connections.suit(sessions)

    def reset(self) -> None:
        """Give up what runs and take fresh connections in its place."""
        given_up = self.relays.reset()
        for call in self._calls:
            if call.mode is not Mode.ENDED or call.died or given_up:
                self._connections.ask(b"terminate", b"%d" % call.pid)
                self._connections.replace(call)

    def _enabled(self, events: Sequence[Event]) -> tuple[Choice, ...]:
        found = [Choice(c.number) for c in self._calls if c.mode in (Mode.READY, Mode.PARKED)]
        found += [Choice(c.number, Kind.LAPSE) for c in self._calls if c.mode is Mode.WAITING and c.impatient]
        if self._fatal and not any(event.choice.kind in FATAL for event in events):
            parked = [call for call in self._calls if call.mode is Mode.PARKED]
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
        chosen.mode = Mode.RUNNING
        if choice.kind is not Kind.STEP:
            chosen.finished = True
        if choice.kind is Kind.DIE:
            access = chosen.written.ending()
            chosen.leaving = True
            self._connections.ask(b"terminate", b"%d" % chosen.pid)
        elif choice.kind is Kind.CANCEL:
            access = chosen.written.ending()
            chosen.leaving = True
            self._connections.ask(b"cancel", b"%d" % chosen.pid)
        elif choice.kind is Kind.LAPSE:
            access = chosen.written.ending()
            chosen.leaving = True
            if self._connections.statement_timeout:
                self._connections.ask(b"cancel", b"%d" % chosen.pid)
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
                access |= self.books.unmeasured(call)
            if call.caught:
                access |= call.written.ending()  # a part of its work was rolled back, and its locks are gone
            if call.mode is Mode.ENDED:
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
        if self.books.level == "repeatable read" and ends:
            return access | Access(ends=frozenset({SNAPSHOTS}))
        if self.books.level == "serializable":
            return Access(everything=True) if ends else access.at_serializable()
        return access

    def _happened(self, call: Call) -> list[Happening]:
        found = [Happening(call.number, "caught", code) for code in call.caught] + call.came
        if call.mode is Mode.WAITING:
            found.append(Happening(call.number, "waits", call.waits_for, call.at))
        elif call.mode is Mode.PARKED:
            returned = call.at < 0
            found.append(Happening(call.number, "returns" if returned else "parks", "", call.at))
        elif call.died:
            found.append(Happening(call.number, "dies"))
        elif not any(happening.what == "fails" for happening in call.came):
            found.append(Happening(call.number, "commits"))
        return found

    def _go_through(self, call: Call, number: int) -> None:
        """Let a session go on from its turnstile."""
        step = self._rewritten.steps[number]
        text = self.known.of_step(number)
        self.books.begin_step(call, number, text | call.written.ending() if step.ends else text)
        self._connections.release(call)

    def _settle(self) -> None:
        """Wait until no call runs: each is parked, ended, or waits for another call."""
        while True:
            while any(call.mode is Mode.RUNNING for call in self._calls):
                self._listen()
            # What the choice did may have let a waiting call go on, which only the server can tell.
            waiting = [call for call in self._calls if call.mode is Mode.WAITING]
            if not waiting:
                return
            self._ask_blockers(waiting)
            if any(call.mode is Mode.RUNNING for call in self._calls):
                continue
            if not in_a_circle(waiting):
                return
            self._listen()  # the server is about to find the deadlock

    def _listen(self) -> None:
        """Take in what the connections have to say; ask the server when they are silent."""
        ready = self._connections.poll.poll(self._connections.ask_after * 1000)
        if time.monotonic() > self._deadline:
            raise ScheduleTimeoutError(self._standing())
        for socket, _ in ready:
            self._hear(self._connections.by_socket[socket])
        doubtful = [c for c in self._calls if c.mode is Mode.RUNNING and (c.told_waiting or not ready)]
        if doubtful:
            self._ask_blockers(doubtful)

    def _hear(self, call: Call) -> None:
        """Take in what one connection has to say between two choices."""
        self._take_in(call)
        self._connections.raise_what_was_raised()

    def _take_in(self, call: Call) -> None:
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
            self._connections.poll.unregister(call.socket)
            call.mode, call.died, call.leaving = Mode.ENDED, True, False

    def _told_result(self, call: Call, result: pq.abc.PGresult) -> None:
        due = call.due.popleft() if call.due else Due.NOTHING
        if result.status in (ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH):
            raise HarnessError(
                "A statement copies data to or from the client, which cannot be made to wait its turn.",
                tried=call.program.units[call.unit].label,
                next_step="use INSERT or SELECT in its place",
            )
        failed = result.status == ExecStatus.FATAL_ERROR
        if due is Due.OURS and result.status != ExecStatus.TUPLES_OK:
            raise self._connections.lost("taking a script away", result)
        if due is Due.MEASURE and result.status == ExecStatus.TUPLES_OK:
            self.books.measured(call, (result.get_value(0, 0) or b"").decode())
        elif (due is Due.ANSWER and result.status != ExecStatus.PIPELINE_ABORTED) or (due is Due.BEFORE and failed):
            call.result = result

    def _synced(self, call: Call) -> None:
        """All that was sent is answered."""
        call.leaving = False
        call.entering = False
        if call.forgetting:
            call.forgetting, call.mode = False, Mode.READY
        elif call.rolling_back:
            call.rolling_back = False
            self.books.transaction_ended(call)
            self._next_unit(call)
        elif call.result is not None and call.result.status == ExecStatus.FATAL_ERROR:
            self._failed(call, call.program.units[call.unit], call.result)
        else:
            unit = call.program.units[call.unit]
            if call.open:
                self.books.touch(call, self.books.unmeasured(call))
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
                self.books.transaction_ended(call)
            call.unit += 1
            self._next_unit(call)

    def _failed(self, call: Call, unit: Unit, result: pq.abc.PGresult) -> None:
        """A unit ended in an error: what its session does then."""
        program = call.program
        code = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()
        call.came.append(Happening(call.number, "fails", code))
        call.finished = True
        call.keeps |= set(Keeps)  # what it kept cannot be measured any more
        if call.open:
            self.books.touch(call, self.books.unmeasured(call))
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
            self._send(call, [(ROLLBACK_QUERY, Due.NOTHING)], measured=True, ended=True)
        else:
            if not in_transaction:
                self.books.transaction_ended(call)
            self._next_unit(call)

    def _next_unit(self, call: Call) -> None:
        """Go on to the unit that is next, or wait before it."""
        units = call.program.units
        if call.unit >= len(units):
            call.mode = Mode.ENDED
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
        call.mode, call.at = Mode.PARKED, top(call.unit)

    def _send_unit(self, call: Call, *, futile: bool = False) -> None:
        """Send the unit that is next; one that touches nothing is followed by the one after it at once."""
        unit = call.program.units[call.unit]
        call.mode, call.result = Mode.RUNNING, None
        if unit.patience is not None:
            call.impatient = self._connections.statement_timeout or unit.patience.ends
            call.always_impatient = call.always_impatient if unit.patience.local else call.impatient
        acts = not unit.quiet and not futile
        if acts:
            call.going = False
            ends = unit.does in (Does.COMMITS, Does.ROLLS_BACK, Does.GOES_BACK)
            text = (unit.access | call.written.ending()) if ends else unit.access
            self.books.begin_step(call, top(call.unit), text, unit.key)
            if ends:
                call.open = False
                self.books.touch(call, text)
            call.entering = unit.does in (Does.ACTS, Does.ALONE)
        elif call.acted_at is None:
            call.at = top(call.unit)
        messages = [(query, Due.BEFORE) for query in unit.before] + [(unit.query, Due.ANSWER)]
        ended = unit.does in (Does.COMMITS, Does.ROLLS_BACK)
        # What a failed step touched is told when its transaction is over; before that the server answers nothing.
        measured = unit.does in (Does.ACTS, Does.CHECKS) if acts else futile and ended
        self._send(call, messages, measured=measured, ended=ended)

    def _send(
        self, call: Call, messages: Sequence[tuple[Query, Due]], *, measured: bool = False, ended: bool = False
    ) -> None:
        pgconn = call.pgconn
        call.mode = Mode.RUNNING
        for query, due in messages:
            if query.name:
                given = call.program.parameters if query.parameters is None else query.parameters
                pgconn.send_query_prepared(query.name, given, query.formats, query.result_format)
            else:
                text = query.text if isinstance(query.text, str) else query.text(call.ending().told())
                pgconn.send_query_params(text.encode(), None)
            call.due.append(due)
        if measured:
            pgconn.send_query_prepared(MEASURE, [])
            call.due.append(Due.MEASURE)
        if ended and self._connections.flushes:
            pgconn.send_query_prepared(FLUSH, [])
            call.due.append(Due.NOTHING)
        pgconn.pipeline_sync()

    def _noticed(self, call: Call, notice: pq.abc.PGresult) -> None:
        if call.expected and (told := call.expected[0][1]) is not None:
            told.notice(notice.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"", self._connections.gates)
            return
        words = (notice.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"").split()
        match words:
            case [b"harness", b"turnstile", step, patience, *_]:
                before = call.reading
                raw = (notice.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"").split(b" ", 4)[4].decode()
                # Where the snapshot that was taken on the way is kept, the way is a step.
                entered, call.entering = call.entering and self.books.level == "read committed", False
                call.impatient = self._connections.statement_timeout or patience != b"0"
                if entered and not call.text and not self.known.between(before, raw)[1]:
                    # The way to the first step inside: nothing that others could notice.
                    self.books.measured(call, raw)
                    call.passed.append(int(step))
                    self._go_through(call, int(step))
                    return
                self.books.measured(call, raw)
                call.mode, call.at, call.leaving = Mode.PARKED, int(step), False
            case [b"harness", b"text", *_]:
                text = (notice.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"").split(b" ", 3)[3]
                self.books.executes(call, text.decode())
            case [b"harness", b"caught", code, _]:
                call.caught.append(code.decode())
                call.mode, call.leaving = Mode.RUNNING, False
            case [b"process", _, b"still", b"waiting", *_, lock, b"after", _, b"ms"]:
                call.told_waiting |= self._connections.gates not in lock

    def _ask_blockers(self, calls: Sequence[Call]) -> None:
        """Ask what calls wait for: those that do are waiting, those that do not are running."""
        pids = b"{" + b",".join(b"%d" % call.pid for call in calls) + b"}"
        result = self._connections.ask(b"blockers", pids)
        by_pid = {c.pid: c for c in self._calls}
        for row in range(result.ntuples):
            call = by_pid[int(result.get_value(row, 0) or b"")]
            blockers = [int(pid) for pid in (result.get_value(row, 1) or b"").split()]
            stood = call.gate, call.unit
            self._hear(call)
            if (call.gate, call.unit) != stood:
                # It has gone on meanwhile, through a turnstile or to its next unit: what was told is of before.
                if call.mode is Mode.WAITING:
                    call.mode = Mode.RUNNING
                continue
            if call.mode not in (Mode.RUNNING, Mode.WAITING) or call.leaving:
                continue
            told, call.told_waiting = call.told_waiting, False
            others = tuple(sorted(by_pid[pid].number for pid in blockers if pid in by_pid))
            if (
                others
                and call.mode is Mode.WAITING
                and others != call.waits_for
                and self._connections.tells_waits
                and not told
            ):
                # It waits anew, and its look for a deadlock is still to come: the server will tell of it.
                call.mode = Mode.RUNNING
            elif others:
                call.mode, call.waits_for = Mode.WAITING, others
            elif self._connections.control.pgconn.backend_pid in blockers:
                raise self._connections.meddling()
            else:
                call.mode = Mode.RUNNING

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
            if call.mode is not Mode.ENDED
        )
