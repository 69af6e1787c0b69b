"""The connections of a controller: one for each session, and one of its own to open gates and ask about the others."""

from __future__ import annotations

import select
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq, sql
from psycopg.pq import ConnStatus, ExecStatus

from harness.environment import own
from harness.errors import HarnessError, UsageError
from harness.schedules import relay
from harness.schedules.program import Query
from harness.schedules.relay import Gates
from harness.schedules.standing import Call
from harness.sqltext import queries

ASK_AFTER = 0.02
"""Seconds of silence after which the server is asked whether a running call waits, where a role may not set
log_lock_waits."""

ASK_ANYWAY_AFTER = 0.5
"""The same where it may: a function that sets client_min_messages silences the server."""

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

MEASURE, FLUSH = b"harness_measure", b"harness_flush"
_FLUSH_SINCE = 150000
"""The first version of the server that can be asked to put its statistics away when it is idle next."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement that every session's connection has prepared."""

    name: bytes
    statement: bytes
    parameter_oids: Sequence[int]


Together = Callable[[int], None]
"""Is told the process id of every session's backend, so that they run on one processor (Server.together)."""


class Connections:
    """Those of all sessions, `calls`, and the controller's own, over which nothing is asked that could wait."""

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection[Any]],
        space: int,
        prepared: Sequence[Prepared],
        noticed: Callable[[Call, pq.abc.PGresult], None],
        together: Together | None = None,
    ) -> None:
        """`connect` opens an autocommit connection; `noticed` is told what the server says to a session beside results.

        No session has a connection yet: see `suit`.
        """
        self._connect = connect
        self._prepared = prepared
        self._noticed = noticed
        self._together = together
        self.space = b"%d" % space
        self.gates = b",%d," % space
        """What is in the server's name of a gate, such as [16384,77,2098,2]; nobody is told to wait by a gate."""
        self.poll = select.poll()
        self.calls: list[Call] = []
        self.by_socket: dict[int, Call] = {}
        self._releasing = False
        """A release was sent, and its answer is not read yet."""
        self._raised: BaseException | None = None
        """What was raised while a notice was taken in."""
        self.control = connect()
        try:
            self.flushes = self.control.info.server_version >= _FLUSH_SINCE
            self.isolation = self._show("transaction_isolation")
            """Isolation level of a transaction that sets none, as `transaction_isolation` spells it."""
            self.statement_timeout = self._show("statement_timeout") != "0"
            lock_timeout = self._show("lock_timeout") != "0"
            self.impatient = self.statement_timeout or lock_timeout
            """Whether a session's waits for a lock may end by themselves."""
            self._settings = self._accepted_settings()
            self.tells_waits = self._settings.keys() >= {"client_min_messages", "deadlock_timeout", "log_lock_waits"}
            """Whether the server says when a session waits."""
            if self.tells_waits:
                self.control.execute("ALTER FUNCTION harness_schedules.await(integer) SET deadlock_timeout = '1h'")
            self.counts_calls = "track_functions" in self._settings
            self.ask_after = ASK_ANYWAY_AFTER if self.tells_waits else ASK_AFTER
            for name, query in _QUERIES.items():  # after the ALTER, at which the driver gives up what is prepared
                self.control.pgconn.prepare(name.encode(), query.encode())
        except BaseException:
            self.control.close()
            raise

    def close(self) -> None:
        """Close every connection; what still runs is rolled back by it."""
        for call in self.calls:
            call.connection.close()
        self.control.close()

    def suit(self, sessions: int) -> None:
        """Have a connection for so many sessions."""
        while len(self.calls) > sessions:
            call = self.calls.pop()
            self.poll.unregister(call.socket)
            call.connection.close()
            self.ask(b"open", self.space, self._gate(call, call.gate))
        while len(self.calls) < sessions:
            self.calls.append(self._opened(len(self.calls)))

    def ask(self, query: bytes, *parameters: bytes) -> pq.abc.PGresult:
        """Ask the server something over the controller's connection (control.sql). Raises HarnessError."""
        self._collect_release()
        result = self.control.pgconn.exec_prepared(query, list(parameters))
        if result.status != ExecStatus.TUPLES_OK:
            raise self.lost(query.decode(), result)
        return result

    def release(self, call: Call) -> None:
        """Open the gate that a session waits at; the one it comes to next is shut before."""
        following = call.gate ^ 1
        gates = [self.space, self._gate(call, following), self._gate(call, call.gate)]
        self._collect_release()
        # The answer is read when the control connection is needed next: the call's own word comes at the same time.
        self.control.pgconn.send_query_prepared(b"release", gates)
        self._releasing = True
        call.gate = following

    def _collect_release(self) -> None:
        if not self._releasing:
            return
        self._releasing = False
        result = own.next_result(self.control.pgconn)
        while own.next_result(self.control.pgconn) is not None:
            pass
        if result is None or result.status != ExecStatus.TUPLES_OK:
            raise self.lost("release", result)
        if result.get_value(0, 0) != b"t":
            raise self.meddling()

    def _gate(self, call: Call, gate: int) -> bytes:
        return b"%d" % (2 * call.pid + gate)

    def lost(self, query: str, result: pq.abc.PGresult | None) -> HarnessError:
        """The error that a question to the server was not answered."""
        return HarnessError(
            "The controller lost its hold of the schedule.",
            tried=f"{query}: {result.get_error_message() if result else 'the connection is closed'}",
            next_step="check that the server still runs, and that the role may end its own backends",
        )

    def meddling(self) -> HarnessError:
        """The error that somebody else holds a gate."""
        return UsageError(
            "The function takes or holds the advisory locks by which its own steps are controlled.",
            tried=f"pg_advisory_lock({self.space.decode()}, process id): keys that the function does not name",
            next_step="keep the function from locking keys that it finds in pg_locks, or race it under load",
        )

    def _show(self, setting: str) -> str:
        row = self.control.execute("SELECT current_setting(%s)", [setting]).fetchone()
        assert row is not None
        return str(row[0])

    def _accepted_settings(self) -> dict[str, str]:
        """Those of the settings that this server knows and this role may set, tried on the controller's own session."""
        refused = (psycopg.errors.UndefinedObject, psycopg.errors.InsufficientPrivilege)
        with suppress(*refused):
            self._set(self.control, _SETTINGS)
            return dict(_SETTINGS)
        accepted = {}
        for name, value in _SETTINGS.items():
            with suppress(*refused):
                self._set(self.control, {name: value})
                accepted[name] = value
        return accepted

    @staticmethod
    def _set(connection: psycopg.Connection[Any], settings: Mapping[str, str]) -> None:
        connection.execute(
            "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS s (name, value)",
            [list(settings), list(settings.values())],
        )

    def set_again(self) -> Query:
        """Settings of a session that RESET ALL took away."""
        settings = {**self._settings, "synchronous_commit": "off"}
        calls = (sql.SQL("set_config({}, {}, false)").format(name, value) for name, value in settings.items())
        return Query(sql.SQL("SELECT {}").format(sql.SQL(", ").join(calls)).as_string(self.control))

    def _opened(self, number: int) -> Call:
        connection = self._connect()
        self._set(connection, self._settings)
        pgconn = connection.pgconn
        own = [Prepared(MEASURE, b"SELECT harness_schedules.measured()", ())]
        if self.flushes:
            own.append(Prepared(FLUSH, b"SELECT pg_catalog.pg_stat_force_next_flush()", ()))
        if self.counts_calls:
            own += [Prepared(name, statement, ()) for name, statement in relay.PREPARED.items()]
        pgconn.enter_pipeline_mode()
        _prepare(connection, [*own, *self._prepared])
        pgconn.nonblocking = 1
        if self._together is not None:
            self._together(pgconn.backend_pid)
        call = Call(number, connection, pgconn, pgconn.backend_pid, pgconn.socket, gates=Gates(number))
        pgconn.notice_handler = lambda notice: self._take_notice(call, notice)
        if self.ask(b"shut", self.space, self._gate(call, 0)).get_value(0, 0) != b"t":
            raise self.meddling()
        self.by_socket[call.socket] = call
        self.poll.register(call.socket, select.POLLIN)
        return call

    def replace(self, call: Call) -> None:
        """A fresh connection in the place of one that is dead or given up."""
        if not call.died:
            self.poll.unregister(call.socket)
        call.connection.close()
        self.ask(b"open", self.space, self._gate(call, call.gate))
        self.calls[call.number] = self._opened(call.number)

    def _take_notice(self, call: Call, notice: pq.abc.PGresult) -> None:
        """Called by libpq in the middle of reading: what is raised here, a signal too, it would print and forget."""
        try:
            self._noticed(call, notice)
        except BaseException as error:
            self._raised = self._raised or error

    def raise_what_was_raised(self) -> None:
        """Raise what taking in a notice raised: libpq, which calls for that, would print and forget it."""
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised


def _prepare(connection: psycopg.Connection[Any], wanted: Sequence[Prepared]) -> None:
    """Prepare statements, all in one go. Raises HarnessError, and closes the connection, where one cannot be."""
    pgconn = connection.pgconn
    for prepared in wanted:
        pgconn.send_prepare(prepared.name, prepared.statement, prepared.parameter_oids)
    pgconn.pipeline_sync()
    for prepared in wanted:
        result = own.next_result(pgconn)
        if result is None or result.status != ExecStatus.COMMAND_OK:
            message = (result or pgconn).get_error_message()
            lost = pgconn.status == ConnStatus.BAD
            connection.close()
            if lost:
                raise psycopg.OperationalError(message)
            raise HarnessError(
                "The call cannot be prepared.",
                tried=f"{prepared.statement.decode()}\n    {message}",
                next_step="check the contract's function against the migrations",
            )
        own.next_result(pgconn)  # what separates two answers
    own.next_result(pgconn)  # the end of all
