"""One client's connection to the function under test: a call in, an outcome out. The hot path of target sql."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import psycopg
from psycopg import pq
from psycopg.pq import ConnStatus, ExecStatus
from psycopg_pool import ConnectionPool, PoolTimeout

from harness.contracts.contract import FAILED, Effect, Outcome
from harness.environment import own
from harness.environment.identity import IdentityStatements
from harness.environment.servers import connect
from harness.errors import HarnessError
from harness.targets.codec import Codec, Reader
from harness.targets.description import CallDescription
from harness.targets.target import Answer, Duplex

_NOT_YET = 2**62
"""A clock reading that does not come: a call that waits for a connection has not reached the function."""

_COMMITS = "2D000"
"""SQLSTATE of a procedure that ends its transaction where it may not: inside of another one."""

_STEPS = 20
"""More results than the steps of a call have, with what ends each of them."""

_TUPLES_OK, _COMMAND_OK = int(ExecStatus.TUPLES_OK), int(ExecStatus.COMMAND_OK)

_ERROR, _SYNC = int(ExecStatus.FATAL_ERROR), int(ExecStatus.PIPELINE_SYNC)


@dataclass(frozen=True, slots=True)
class Route:
    """One of the contract's functions, ready to be called."""

    description: CallDescription
    codec: Codec
    plain: bytes
    """Name of the prepared statement."""
    timed: bytes
    """Name of the one between two readings of the clock; that of the plain one where there is none."""


STARTED, _CALL, ENDED, _AROUND = b"harness_started", b"harness_call", b"harness_ended", b"harness_around"
"""The first and the third are names of prepared statements, too."""

_Step = tuple[bytes, bytes]
"""What kind of step, and its text where it is one of those around the call."""


class Counting(list[Any]):
    """Parameters of which one counts the client's calls: whenever the key is put in, it goes on by one."""

    __slots__ = ("_at", "_calls")

    def __init__(self, parameters: Sequence[Any], at: int, calls: Iterator[int]) -> None:
        """`calls` is shared by all variants of one client."""
        super().__init__(parameters)
        self._at = at
        self._calls = calls

    def __setitem__(self, at: Any, key: Any) -> None:
        super().__setitem__(at, key)
        super().__setitem__(self._at, b"%d" % next(self._calls))


class CallVariant:
    """One argument variant of one client: how it is called on whatever connection."""

    __slots__ = ("alone", "formats", "key_at", "parameters", "plain_reader", "reader", "result_format", "route")

    def __init__(
        self, route: Route, parameters: list[Any], formats: list[int], reader: Reader, plain_reader: Reader
    ) -> None:
        self.route = route
        self.parameters = parameters
        """The key's place is filled for each call."""
        self.formats = formats
        self.key_at = route.codec.key_at
        self.result_format = int(route.codec.result_format)
        self.reader = reader
        self.plain_reader = plain_reader
        """Of the statement without the clock readings."""
        self.alone = False
        """It ends its transaction by itself, so it can be called in none."""


class ClientCall:
    """What one client calls, and as whom."""

    __slots__ = ("identity", "overlap", "stepped", "variants")

    def __init__(self, variants: Sequence[CallVariant], identity: IdentityStatements | None, overlap: bool) -> None:
        self.variants = variants
        self.identity = identity
        self.overlap = overlap
        no_query = any(v.route.description.timed is None for v in variants)
        self.stepped = identity is not None or (overlap and (no_query or bool(variants[0].reader.errors_are_answers)))
        """Whether calls go in steps. Where overlap is measured, also from the first error on: an error takes the
        readings of the one statement with it."""

    @property
    def alone(self) -> bool:
        """Whether one of its variants ends its transaction by itself."""
        return any(variant.alone for variant in self.variants)

    def steps(self, variant: CallVariant, *, inside: bool) -> list[list[_Step]]:
        """The steps of a call, in groups of which each is a transaction of its own where none is open.

        `inside` a transaction that was begun for it, only the call itself is made.
        """
        call = [(_CALL, b"")]
        if self.overlap and not variant.alone:
            call = [(STARTED, b""), *call, (ENDED, b"")]
        around = _texts(self.identity.only_begin) if self.identity is not None and not inside else []
        if variant.alone:
            before = [] if self.identity is None else [_texts(text) for text in self.identity.for_session]
            after = [] if self.identity is None else [_texts(text) for text in self.identity.undone]
            timed = [[(STARTED, b"")], call, [(ENDED, b"")]] if self.overlap else [call]
            return [*before, *timed, *after]
        if not around:
            return [call]
        assert self.identity is not None
        # The end comes whatever became of the call: of a failed transaction it makes a roll-back.
        return [[*around, *_texts(*self.identity.for_transaction), *call], _texts("COMMIT")]


def _texts(*texts: str) -> list[_Step]:
    return [(_AROUND, text.encode()) for text in texts]


class SqlCaller:
    """One client on its own connection. `call`, `send`, `receive` and `read` are the hot path."""

    began = 0

    def __init__(self, connection: own.Connection, call: ClientCall) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._partial: pq.abc.PGresult | None = None
        """The answer that came before the end of its transaction."""
        self._execute = self._pgconn.exec_prepared
        self._send = self._pgconn.send_query_prepared
        self._consume, self._is_busy = self._pgconn.consume_input, self._pgconn.is_busy
        self._get_result = self._pgconn.get_result
        self._call = call
        self._variants = [
            (v.route.timed if call.overlap else v.route.plain, v.parameters, v.key_at, v.formats, v.result_format)
            for v in call.variants
        ]
        self._readers = [variant.reader for variant in call.variants]
        self._reader = self._readers[0]
        """Of the call in flight."""
        self._one = all(reader is self._reader for reader in self._readers)
        """One function is called: whichever call was answered, the same reader reads it."""
        self._read = self._reader.read
        self._open = False
        """A transaction was begun for the next call."""
        self._steps: Steps | None = None
        """Of the call in flight, where it goes in steps."""

    def call(self, key: Any, variant: int) -> Answer:
        if self._call.stepped:
            return self._call_in_steps(key, variant)
        statement, parameters, key_at, formats, result_format = self._variants[variant]
        parameters[key_at] = key
        reader = self._reader if self._one else self._readers[variant]
        try:
            result = self._execute(statement, parameters, formats, result_format)
        except psycopg.OperationalError as error:
            return reader.lost(str(error))
        return reader.read(result, self._pgconn) if result.status == _TUPLES_OK else self._error(result, reader)

    def beside(self, first: Duplex) -> None:
        if isinstance(first, SqlCaller) and self._one and first._one:
            self._reader, self._read = first._reader, first._read
            self._readers = first._readers

    def fileno(self) -> int:
        return self._pgconn.socket

    def send(self, key: Any, variant: int) -> bool:
        if self._call.stepped:
            return self._send_steps(key, variant)
        statement, parameters, key_at, formats, result_format = self._variants[variant]
        parameters[key_at] = key
        if not self._one:
            self._reader = self._readers[variant]
        try:
            self._send(statement, parameters, formats, result_format)
        except psycopg.OperationalError:
            return self.alive  # what fails on the way makes the socket readable, and is found out there
        return True

    def receive(self) -> pq.abc.PGresult | Answer | None:
        if self._steps is not None:
            return self._receive_steps()
        try:
            self._consume()
            if self._is_busy():
                return None
            result = self._partial or self._get_result()
            if result is None:
                return self._reader.lost(self._pgconn.get_error_message())
            while not self._is_busy():
                more = self._get_result()
                if more is None:
                    break
                result = more  # after the row: what went wrong at commit
            else:  # get_result would wait, and keep the interpreter to itself
                self._partial = result
                return None
            self._partial = None
        except psycopg.OperationalError as error:
            return self._last_words(error)
        # An error is read at once: it says how the connection is now. So is an answer whose reader may change.
        if result.status == _TUPLES_OK:
            return result if self._one else self._reader.read(result, self._pgconn)
        return self._error(result, self._reader)

    def read(self, received: pq.abc.PGresult | Answer) -> Answer:
        return received if isinstance(received, tuple) else self._read(received, self._pgconn)

    def begin(self, more: bytes = b"") -> bool:
        """Open a transaction for the next call, with a statement more at its start."""
        call = self._call
        if call.alone:
            return False
        begin = b"BEGIN" if call.identity is None else call.identity.begin.encode()
        self._open = self._command(begin + b"; " + more if more else begin) is not None
        return self._open

    def end(self, *, commit: bool) -> bool | None:
        self._open = False
        wanted = b"COMMIT" if commit else b"ROLLBACK"
        # COMMIT of a failed transaction is answered with the tag ROLLBACK.
        if self._command(wanted) == wanted:
            return True
        return False if self.alive else None

    @property
    def alive(self) -> bool:
        return self._pgconn.status == ConnStatus.OK

    @property
    def backend(self) -> int:
        """Process id of its backend, where the server runs."""
        return self._pgconn.backend_pid

    def cancel(self) -> None:
        _on_a_thread(self.cancel_now)

    def cancel_now(self) -> None:
        """Cancel the call in flight, on the thread that asks."""
        self._connection.cancel_if_it_answers()

    def abort(self) -> None:
        self._connection.shut()

    def close(self) -> None:
        self._connection.close()

    def _command(self, command: bytes) -> bytes | None:
        """The tag of the last of some commands; None where they failed."""
        try:
            result = self._pgconn.exec_(command)
        except psycopg.OperationalError:
            return None
        return result.command_status if result.status == _COMMAND_OK else None

    def _error(self, result: pq.abc.PGresult, reader: Reader) -> Answer:
        """What is no row: from now on calls go in steps, so that the next one that ends in an error is timed."""
        self._call.stepped = self._call.stepped or (self._call.overlap and result.status == _ERROR)
        return reader.read(result, self._pgconn)

    def _last_words(self, error: psycopg.OperationalError) -> Answer:
        """What the server said before it closed the connection: it may have come in one piece with the end."""
        result, self._partial = self._partial, None
        with suppress(psycopg.OperationalError):
            for _ in range(_STEPS):
                if result is not None and result.status == _ERROR:
                    return self._reader.read(result, self._pgconn)
                result = self._get_result()
        return self._reader.lost(str(error))

    def _call_in_steps(self, key: Any, variant: int) -> Answer:
        if not self._send_steps(key, variant):
            return self._reader.lost("the connection was closed")
        sockets = select.poll()
        sockets.register(self._pgconn.socket, select.POLLIN)
        while (answer := self._receive_steps()) is None:
            sockets.poll()
        return answer

    def _send_steps(self, key: Any, variant: int) -> bool:
        chosen = self._call.variants[variant]
        self._reader = chosen.reader
        chosen.parameters[chosen.key_at] = key
        groups = self._call.steps(chosen, inside=self._open)
        pgconn = self._pgconn
        try:
            pgconn.enter_pipeline_mode()
            for group in groups:
                for kind, text in group:
                    if kind is _AROUND:
                        pgconn.send_query_params(text, ())
                    elif kind is _CALL:
                        self._send(chosen.route.plain, chosen.parameters, chosen.formats, chosen.result_format)
                    else:
                        self._send(kind, (), (), 1)
                pgconn.pipeline_sync()
        except psycopg.OperationalError:
            return self.alive
        finally:
            self._steps = Steps(chosen, [kind for group in groups for kind, _ in group], len(groups))
        return True

    def _receive_steps(self) -> Answer | None:
        steps = self._steps
        assert steps is not None
        try:
            while steps.syncs_due:
                self._consume()
                if self._is_busy():
                    return None
                result = self._get_result()
                if result is None:
                    if self._pgconn.status != ConnStatus.OK or steps.nothing:
                        return self._lost_in_steps(self._pgconn.get_error_message())
                    steps.nothing = True  # what ends each step
                    continue
                steps.nothing = False
                if result.status == _SYNC:
                    steps.syncs_due -= 1
                    steps.nothing = False
                else:
                    steps.results.append(result)
                    if self._pgconn.status != ConnStatus.OK:
                        break
            if self._pgconn.status == ConnStatus.OK:
                self._pgconn.exit_pipeline_mode()
        except psycopg.OperationalError as error:
            self._steps = None
            self._partial = next((each for each in steps.results if each.status == _ERROR), None)
            return self._last_words(error)
        self._steps = None
        return steps.answer(self._pgconn, timed=self._call.overlap)

    def _lost_in_steps(self, detail: str) -> Answer:
        self._steps = None
        return self._reader.lost(detail)


class Steps:
    """A call in flight that goes in steps, and what came of each."""

    __slots__ = ("_kinds", "_variant", "nothing", "results", "syncs_due")

    def __init__(self, variant: CallVariant, kinds: Sequence[bytes], groups: int) -> None:
        self._variant = variant
        self._kinds = kinds
        self.syncs_due = groups
        self.results: list[pq.abc.PGresult] = []
        self.nothing = False

    def answer(self, pgconn: pq.abc.PGconn, *, timed: bool) -> Answer:
        """The outcome, the evidence, and when the call ran on the server.

        Of a call that ended in an error it is known when it started and whom it saw in progress then; its end counts as
        its start, so that it is said to overlap only with calls that were in progress when it came.
        """
        variant = self._variant
        came: dict[bytes, pq.abc.PGresult] = {}
        # One more than there are steps: what went wrong at the end of the transaction.
        for kind, result in zip_longest(self._kinds, self.results, fillvalue=b"error"):
            if isinstance(result, bytes):
                break
            came.setdefault(kind if result.status != _ERROR else b"error", result)
        reader = variant.plain_reader
        call, error = came.get(_CALL), came.get(b"error")
        last = self.results[-1] if self.results else None
        if error is not None or call is None:
            outcome, evidence = reader.lost("no answer came") if error is None else reader.read(error, pgconn)
            if outcome.code == _COMMITS and variant.route.description.procedure:
                variant.alone = True
        else:
            outcome, evidence = reader.read(call, pgconn)
            if last is not None and self._kinds[-1] is _AROUND and last.command_status == b"ROLLBACK":
                outcome = Outcome(FAILED, Effect.FAILED, "commit_failed", "COMMIT ended in a rollback")
        if not timed:
            return outcome, evidence
        started, ended = came.get(STARTED), came.get(ENDED)
        if started is None or started.status != _TUPLES_OK:
            return outcome, (*evidence, None, None, None, None)
        at, seen = started.get_value(0, 0), started.get_value(0, 1)
        if ended is None or ended.status != _TUPLES_OK or error is not None:
            return outcome, (*evidence, at, None, at, seen)
        return outcome, (*evidence, ended.get_value(0, 0), ended.get_value(0, 1), at, seen)


class PooledCaller:
    """One client behind a pool: it waits for a connection as an application would, within the call's latency."""

    def __init__(self, pool: ConnectionPool[own.Connection], dsn: str, timeout: float, call: ClientCall) -> None:
        self._pool = pool
        self._dsn = dsn
        self._timeout = timeout
        self._call = call
        self._held: own.Connection | None = None
        self._current: SqlCaller | None = None
        """On the connection that it has of the pool now."""
        self._returning = threading.Lock()
        """Taken to cancel: a connection that went back to the pool carries somebody else's call."""
        self._lost = False
        """Whether the last call lost its connection, or found none."""
        self.began = _NOT_YET

    def call(self, key: Any, variant: int) -> Answer:
        if self._held is not None:
            assert self._current is not None
            return self._current.call(key, variant)
        try:
            connection = self._pool.getconn(self._timeout)
        except PoolTimeout as error:
            self._lost = True
            reader = self._call.variants[variant].reader
            return reader.failed("pool_timeout", str(error)) if self.alive else reader.lost(str(error))
        self._current = SqlCaller(connection, self._call)
        self.began = time.perf_counter_ns()
        try:
            return self._current.call(key, variant)
        finally:
            self._put_back(connection)

    def begin(self, more: bytes = b"") -> bool:
        try:
            self._held = self._pool.getconn(self._timeout)
        except PoolTimeout:
            return False
        self._current = SqlCaller(self._held, self._call)
        self.began = 0
        if not self._current.begin(more):
            self.end(commit=False)
            return False
        return True

    def end(self, *, commit: bool) -> bool | None:
        if self._held is None:
            return False
        assert self._current is not None
        connection, self._held = self._held, None
        try:
            return self._current.end(commit=commit)
        finally:
            self._put_back(connection)

    def _put_back(self, connection: own.Connection) -> None:
        assert self._current is not None
        self._lost = not self._current.alive
        with self._returning:
            self._current, self.began = None, _NOT_YET
        self._pool.putconn(connection)

    @property
    def alive(self) -> bool:
        """The pool replaces a connection that was lost, as long as the server answers."""
        if self._lost:
            try:
                connect(self._dsn).close()
            except HarnessError:
                return False
        return True

    def cancel(self) -> None:
        _on_a_thread(self._cancel)

    def _cancel(self) -> None:
        with self._returning:
            if self._current is not None:
                self._current.cancel_now()

    def abort(self) -> None:
        with self._returning:
            if self._current is not None:
                self._current.abort()

    def close(self) -> None:
        """The pool belongs to the target."""


def _on_a_thread(work: Callable[[], None]) -> None:
    """Not awaited: a server that hangs takes no request to cancel, and who cancels has others to look after."""
    threading.Thread(target=work, name="cancel", daemon=True).start()
