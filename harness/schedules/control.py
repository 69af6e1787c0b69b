"""The controller: carries out one schedule, choice by choice, over one connection per call and one of its own.

A call is ready (not started), running, parked (at a turnstile, or returned with its transaction open), waiting for
another call's lock, or ended. Only one choice is made at a time, and the next one only after every call has settled:
that a call parked, returned or died is told by its own connection; that it waits is told by the server, whose LOG
message "still waiting" (log_lock_waits with a deadlock_timeout of 1 ms) comes on the call's own connection, and is
believed only when `pg_blocking_pids` names another call. Nothing is concluded from time that passed, except that a
schedule takes too long.

A deadlock is found by the server itself, 1 ms after the wait that closes the circle. Since every earlier wait has been
settled, and its own check is over, the call that closes it is always the victim; that the other is the victim shows in
the schedule in which the other closes the circle, which the search tries too.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import psycopg
from psycopg import pq
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus

from harness.errors import HarnessError, UsageError
from harness.schedules.rewrite import Rewritten
from harness.schedules.trace import COMMIT, START, Choice, Event, Happening, Kind
from harness.sqltext import queries
from harness.sqltext.access import Access

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
    "transaction_timeout": "0",
}
"""Of a call's session. A server that does not know one, or a role that may not set it, goes without."""

_BEGIN, _CALL, _COMMIT, _ROLLBACK = b"begin", b"call", b"commit", b"rollback"


class ScheduleTimeoutError(Exception):
    """A schedule did not end in time; the message says which call stood where."""


class _Mode(Enum):
    READY = "ready"
    RUNNING = "running"
    PARKED = "parked"
    WAITING = "waiting"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Prepared:
    """How a call is sent: one prepared statement, the same for each call, answered in binary."""

    statement: bytes
    parameter_oids: Sequence[int]
    formats: Sequence[int]


@dataclass(slots=True)
class _Call:
    """One call: its connection, and where it stands."""

    number: int
    connection: psycopg.Connection[Any]
    pgconn: pq.abc.PGconn
    pid: int
    socket: int
    """Kept here, since a dead connection does not tell it."""
    gate: int = 0
    """The gate that is shut: 0 or 1."""
    mode: _Mode = _Mode.ENDED
    at: int = START
    sent: bytes = b""
    """The command that runs: call, commit or rollback."""
    impatient: bool = False
    """Its waits for a lock may end by themselves."""
    leaving: bool = False
    """Its wait is meant to run out now, or it is to die: that the server still sees it wait means nothing."""
    told_waiting: bool = False
    waits_for: tuple[int, ...] = ()
    written: Access = field(default_factory=Access)
    """What it has written so far, so what the end of its transaction touches."""
    caught: list[str] = field(default_factory=list)
    """SQLSTATEs of the handlers that it entered since the last choice."""
    result: pq.abc.PGresult | None = None
    failed: bool = False
    died: bool = False
    began: int = 0
    ended: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """How one call ended."""

    result: pq.abc.PGresult | None
    """None: its connection died before the answer came."""
    began: int
    ended: int
    """The positions of the choices that began and ended it; the first choice is 1."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One schedule carried out."""

    events: tuple[Event, ...]
    answers: tuple[Answer, ...]
    complete: bool
    """False when the scheduler gave it up; the calls were then let run to their end, one after the other."""


class Controller:
    """Drives a fixed number of calls through one schedule after another."""

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection[Any]],
        calls: int,
        prepared: Prepared,
        rewritten: Rewritten,
        space: int,
        *,
        seconds: float,
        crash: bool = False,
    ) -> None:
        """`connect` opens an autocommit connection; `seconds` is the most that one schedule may take.

        With `crash`, a call may die at each of its steps, one in each schedule at most.
        """
        self._connect = connect
        self._prepared = prepared
        self._rewritten = rewritten
        self._space = b"%d" % space
        self._gates = b",%d," % space
        """What is in the server's name of a gate, such as [16384,77,2098,2]; nobody is told to wait by a gate."""
        self._seconds = seconds
        self._crash = crash
        self._deadline = 0.0
        self._poll = select.poll()
        self._calls: list[_Call] = []
        self._by_socket: dict[int, _Call] = {}
        self._parameters: Sequence[Sequence[bytes | None]] = ()
        self._releasing = False
        """A release was sent, and its answer is not read yet."""
        self._control = connect()
        try:
            for name, query in _QUERIES.items():
                self._control.pgconn.prepare(name.encode(), query.encode())
            self.isolation = self._show("transaction_isolation")
            """Isolation level of the calls' transactions, as `transaction_isolation` spells it."""
            self._statement_timeout = self._show("statement_timeout") != "0"
            self._lock_timeout = self._show("lock_timeout") != "0"
            self._settings = self._accepted_settings()
            self._told = self._settings.keys() >= {"client_min_messages", "deadlock_timeout", "log_lock_waits"}
            self._ask_after = ASK_ANYWAY_AFTER if self._told else ASK_AFTER
            for number in range(calls):
                self._calls.append(self._opened(number))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection; what still runs is rolled back by it."""
        for call in self._calls:
            call.connection.close()
        self._control.close()

    def run(self, parameters: Sequence[Sequence[bytes | None]], choose: Choose) -> Trace:
        """Carry out one schedule; `parameters` are those of each call, encoded.

        Raises ScheduleTimeoutError; `reset` makes the controller usable again.
        """
        self._deadline = time.monotonic() + self._seconds
        self._parameters = parameters
        for call in self._calls:
            call.mode, call.at, call.written = _Mode.READY, START, Access()
            call.result, call.failed, call.died = None, False, False
            call.impatient = self._statement_timeout or self._lock_timeout
        events: list[Event] = []
        complete = True
        while enabled := self._enabled(events):
            choice = choose(enabled, events) if complete else enabled[0]
            if choice is None:
                complete, choice = False, enabled[0]
            events.append(self._carry_out(choice, enabled, len(events) + 1))
        if any(call.mode is not _Mode.ENDED for call in self._calls):
            raise ScheduleTimeoutError(f"nothing can go on: {self._standing()}")
        for call in self._calls:
            if call.died:
                self._replace(call)
        return Trace(tuple(events), tuple(Answer(c.result, c.began, c.ended) for c in self._calls), complete)

    def reset(self) -> None:
        """Give up what runs and take fresh connections in its place."""
        for call in self._calls:
            if call.mode is not _Mode.ENDED or call.died:
                self._ask(b"terminate", b"%d" % call.pid)
                self._replace(call)

    def _enabled(self, events: Sequence[Event]) -> tuple[Choice, ...]:
        found = [Choice(c.number) for c in self._calls if c.mode in (_Mode.READY, _Mode.PARKED)]
        found += [Choice(c.number, Kind.LAPSE) for c in self._calls if c.mode is _Mode.WAITING and c.impatient]
        if self._crash and not any(event.choice.kind is Kind.DIE for event in events):
            found += [Choice(c.number, Kind.DIE) for c in self._calls if c.mode is _Mode.PARKED]
        return tuple(found)

    def _carry_out(self, choice: Choice, enabled: tuple[Choice, ...], position: int) -> Event:
        chosen = self._calls[choice.call]
        stood = chosen.at
        access = self._pending(chosen)
        before = [(call.mode, call.at, call.waits_for) for call in self._calls]
        for call in self._calls:
            call.caught.clear()
            call.told_waiting = False
        chosen.mode = _Mode.RUNNING
        if choice.kind is Kind.DIE:
            access = chosen.written.ending()
            chosen.leaving = True
            self._ask(b"terminate", b"%d" % chosen.pid)
        elif choice.kind is Kind.LAPSE:
            access |= chosen.written.ending()
            chosen.leaving = True
            if self._statement_timeout:
                self._ask(b"cancel", b"%d" % chosen.pid)
        elif stood == START:
            chosen.began = position
            self._send_call(chosen)
        elif stood == COMMIT:
            self._send(chosen, _COMMIT)
        else:
            chosen.written |= access
            self._release(chosen)
        self._settle()

        happenings: list[Happening] = []
        for call, (mode, at, waits_for) in zip(self._calls, before, strict=True):
            if call is not chosen and (mode, at, waits_for) == (call.mode, call.at, call.waits_for) and not call.caught:
                continue
            happenings += self._happened(call)
            if call is not chosen and mode is _Mode.WAITING:
                access |= self._step_access(at)  # what it waited to do was done now
            if call.caught or call.failed:
                access |= call.written.ending()  # a part of its work was rolled back, and its locks are gone
            if call.mode is _Mode.ENDED:
                call.ended = position
        # The chosen call first: the others follow from what it did.
        happenings.sort(key=lambda happening: happening.call != choice.call)
        return Event(choice, stood, access, tuple(happenings), enabled)

    def _pending(self, call: _Call) -> Access:
        """What a call touches when it goes on, as far as that is known beforehand."""
        if call.at == COMMIT:
            ending = call.written.ending()
            return ending | self._rewritten.commit if ending else ending
        return self._step_access(call.at)

    def _step_access(self, at: int) -> Access:
        return self._rewritten.steps[at].access if at >= 0 else self._rewritten.start

    def _happened(self, call: _Call) -> list[Happening]:
        found = [Happening(call.number, "caught", code) for code in call.caught]
        if call.mode is _Mode.WAITING:
            found.append(Happening(call.number, "waits", call.waits_for, call.at))
        elif call.mode is _Mode.PARKED:
            found.append(Happening(call.number, "returns" if call.at == COMMIT else "parks", "", call.at))
        elif call.died:
            found.append(Happening(call.number, "dies"))
        elif call.failed:
            code = call.result.error_field(DiagnosticField.SQLSTATE) if call.result else None
            found.append(Happening(call.number, "fails", (code or b"").decode()))
        else:
            found.append(Happening(call.number, "commits"))
        return found

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
                    self._synced(call)
                    return
                if call.sent == _CALL or result.status == ExecStatus.FATAL_ERROR:
                    call.result = result
                    call.failed = result.status == ExecStatus.FATAL_ERROR
        except psycopg.OperationalError:
            self._poll.unregister(call.socket)
            call.mode, call.died, call.result, call.leaving = _Mode.ENDED, True, None, False

    def _synced(self, call: _Call) -> None:
        call.leaving = False
        if call.sent == _CALL and not call.failed:
            call.mode, call.at = _Mode.PARKED, COMMIT
        elif call.sent == _CALL:
            # Its transaction was aborted with the error, and its locks are gone: there is nothing in between to try.
            call.mode = _Mode.RUNNING
            self._send(call, _ROLLBACK)
        else:
            call.mode = _Mode.ENDED

    def _noticed(self, call: _Call, notice: pq.abc.PGresult) -> None:
        words = (notice.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"").split()
        match words:
            case [b"harness", b"turnstile", step, patience]:
                call.mode, call.at, call.leaving = _Mode.PARKED, int(step), False
                call.impatient = self._statement_timeout or patience != b"0"
            case [b"harness", b"caught", code]:
                call.caught.append(code.decode())
                call.mode, call.leaving = _Mode.RUNNING, False
            case [b"process", _, b"still", b"waiting", *_, lock, b"after", _, b"ms"] if self._gates not in lock:
                call.told_waiting = True

    def _ask_blockers(self, calls: Sequence[_Call]) -> None:
        """Ask what calls wait for: those that do are waiting, those that do not are running."""
        pids = b"{" + b",".join(b"%d" % call.pid for call in calls) + b"}"
        result = self._ask(b"blockers", pids)
        by_pid = {c.pid: c for c in self._calls}
        for row in range(result.ntuples):
            call = by_pid[int(result.get_value(row, 0) or b"")]
            blockers = [int(pid) for pid in (result.get_value(row, 1) or b"").split()]
            self._hear(call)  # it may have gone on meanwhile
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
        result = self._control.pgconn.get_result()
        while self._control.pgconn.get_result() is not None:
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

    def _send_call(self, call: _Call) -> None:
        call.sent = _CALL
        pgconn, prepared = call.pgconn, self._prepared
        pgconn.send_query_prepared(_BEGIN, [])
        pgconn.send_query_prepared(_CALL, self._parameters[call.number], prepared.formats, 1)
        pgconn.pipeline_sync()

    def _send(self, call: _Call, command: bytes) -> None:
        call.sent = command
        call.pgconn.send_query_prepared(command, [])
        call.pgconn.pipeline_sync()

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

    def _opened(self, number: int) -> _Call:
        connection = self._connect()
        connection.execute(
            "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS s (name, value)",
            [list(self._settings), list(self._settings.values())],
        )
        pgconn = connection.pgconn
        for command in (_BEGIN, _COMMIT, _ROLLBACK):
            pgconn.prepare(command, command)
        result = pgconn.prepare(_CALL, self._prepared.statement, self._prepared.parameter_oids)
        if result.status != ExecStatus.COMMAND_OK:
            message = result.get_error_message()
            connection.close()
            raise HarnessError(
                "The call cannot be prepared.",
                tried=f"{self._prepared.statement.decode()}\n    {message}",
                next_step="check the contract's function against the migrations",
            )
        call = _Call(number, connection, pgconn, pgconn.backend_pid, pgconn.socket)
        pgconn.notice_handler = lambda notice: self._noticed(call, notice)
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
                "before its start"
                if call.at == START
                else "before its commit"
                if call.at == COMMIT
                else f"at line {self._rewritten.steps[call.at].line}: {self._rewritten.steps[call.at].text}"
            )
            for call in self._calls
            if call.mode is not _Mode.ENDED
        )


def _in_a_circle(waiting: Sequence[_Call]) -> bool:
    """Whether some of the waiting calls wait for each other."""
    left = {call.number: set(call.waits_for) for call in waiting}
    while free := [number for number, blockers in left.items() if not blockers & left.keys()]:
        for number in free:
            del left[number]
    return bool(left)
