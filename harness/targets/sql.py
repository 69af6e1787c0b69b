"""Target sql: a prepared statement through psycopg's low-level `pq` interface, with binary parameters and answers.

The pq interface is a third of the client CPU of a cursor and halves the spread of a race's starts (`make bench`).
"""

from __future__ import annotations

import math
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq, sql
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, Format
from psycopg_pool import ConnectionPool, PoolTimeout

from harness.contracts.contract import BROKEN_ANSWER, FAILED, IN_DOUBT, Contract, Effect, Function, Outcome
from harness.environment import own
from harness.environment.servers import connect
from harness.errors import HarnessError
from harness.sqltext import queries
from harness.targets.target import Answer, Caller, Duplex, Span, decoded

_SQL = queries.own("harness.targets")

_PLAIN_STATEMENT, _TIMED_STATEMENT = b"harness_call", b"harness_timed_call"
_WARM_UPS = 6
"""PL/pgSQL plans a statement anew five times before it may keep a generic plan (manual, "Plan Caching")."""

_NOT_YET = 2**62
"""A clock reading that does not come: a call that waits for a connection has not reached the function."""

_GRACE = 2.0
"""Seconds that a cancelled warm-up call gets to come back before its connection is cut."""

_MOST_KNOWN = 10_000
"""Distinct answers remembered per connection; messages that hold an id would grow without end."""

_TIMING = ("harness_ended", "harness_transaction", "harness_started", "harness_seen")
"""The columns that overlap.sql adds, in its order."""

_BYTEA = psycopg.adapters.types["bytea"].oid
_TUPLES_OK = int(ExecStatus.TUPLES_OK)
_Raw = tuple[bytes | None, ...]


class SqlTarget:
    """Calls the function in a database; with `pool_size`, through a pool of that many connections."""

    name = "sql"

    def __init__(self, dsn: str, contract: Contract, *, pool_size: int | None = None, timeout: float = 10.0) -> None:
        """`timeout`, in seconds, holds for a warm-up call and for the wait for a connection of the pool.

        Raises HarnessError when the function is missing or has other parameters or columns.
        """
        self.contract = contract
        self._dsn = dsn
        self._timeout = timeout
        with connect(dsn) as connection:
            schema = _check_function(connection, contract.function)
            self.codec = Codec(connection, contract.function)
            call = _call(schema, contract.function)
            self.statement = _statement(connection, call, self.codec.order, overlap=False)
            self._timed = _statement(connection, call, self.codec.order, overlap=True)
        self._pool_size = pool_size
        self._pool: ConnectionPool[psycopg.Connection[Any]] | None = None
        self._opening = threading.Lock()

    def on(self, dsn: str) -> SqlTarget:
        """The same target on another clone of its template, where nothing needs looking up again."""
        twin = copy(self)
        twin._dsn, twin._pool, twin._opening = dsn, None, threading.Lock()
        return twin

    def connect(
        self, client: int, arguments: Sequence[Mapping[str, Any]], *, overlap: bool, warm_up: Hashable
    ) -> Caller:
        call = _Call(
            _TIMED_STATEMENT if overlap else _PLAIN_STATEMENT,
            self.codec,
            Reader(self.contract, self.codec, overlap=overlap),
            [self.codec.encode(values) for values in arguments],
        )
        caller: _SqlCaller | _PooledCaller
        caller = (
            self._opened(call)
            if self._pool_size is None
            else _PooledCaller(self._opened_pool(), self._dsn, self._timeout, call)
        )
        self._warm(caller, self.encode_key(warm_up))
        if not caller.alive:
            caller.close()
            caller = self._opened(call)
        return caller

    def _opened(self, call: _Call) -> _SqlCaller:
        connection = connect(self._dsn)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return _SqlCaller(connection, call)

    def _warm(self, caller: _SqlCaller | _PooledCaller, key: bytes) -> None:
        """Without this, the first call of each connection would pay for filling its plan caches."""
        transaction = f"BEGIN; SET LOCAL statement_timeout = {math.ceil(self._timeout * 1000)}".encode()
        # A function may swallow its cancellation.
        cut = threading.Timer(self._timeout + _GRACE, caller.abort)
        cut.daemon = True
        cut.start()
        try:
            for _ in range(_WARM_UPS):
                caller.begin(transaction)
                outcome, _evidence = caller.call(key, 0)
                caller.end(commit=False)
                if outcome.effect in (Effect.FAILED, Effect.IN_DOUBT):
                    break  # the run itself will show it, once for each call
        finally:
            cut.cancel()

    def encode_key(self, key: Hashable) -> bytes:
        return self.codec.encode_key(key)

    def decode_key(self, raw: Any) -> Hashable:
        return self.codec.decode_key(raw)

    def decode_evidence(self, column: int, raw: Sequence[Any]) -> Sequence[Any]:
        return self.codec.decode_evidence(column, raw)

    timing = len(_TIMING)

    def span(self, timing: Sequence[Any]) -> Span:
        """Binary timestamps are microseconds, so they can be compared as they are."""
        ended, transaction, started, seen = timing
        # Binary pg_snapshot: count of ids, xmin, xmax, the ids (pg_snapshot_send).
        _, _, next_transaction, *running = struct.unpack(f"!iqq{(len(seen) - 20) // 8}q", seen)
        return Span(
            int.from_bytes(started, signed=True),
            int.from_bytes(ended, signed=True),
            None if transaction is None else int.from_bytes(transaction),
            frozenset(running),
            next_transaction,
        )

    def details(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        """Close the pool, where there is one."""
        if self._pool is not None:
            self._pool.close()

    def _prepare(self, connection: psycopg.Connection[Any]) -> None:
        for name, text in ((_PLAIN_STATEMENT, self.statement), (_TIMED_STATEMENT, self._timed)):
            result = connection.pgconn.prepare(name, text, self.codec.parameter_oids)
            if result.status != ExecStatus.COMMAND_OK:
                raise HarnessError(
                    "The call cannot be prepared.",
                    tried=f"{text.decode()}\n    {result.get_error_message()}",
                    next_step="check the contract's function against the migrations",
                )

    def _opened_pool(self) -> ConnectionPool[psycopg.Connection[Any]]:
        with self._opening:
            if self._pool is None:
                assert self._pool_size is not None
                self._pool = ConnectionPool(
                    self._dsn,
                    min_size=self._pool_size,
                    max_size=self._pool_size,
                    connection_class=own.Connection,
                    kwargs={"autocommit": True},
                    configure=self._prepare,
                    open=False,
                )
                try:
                    self._pool.open(wait=True, timeout=self._timeout)
                except PoolTimeout as error:
                    raise HarnessError(
                        f"The pool's {self._pool_size} connections were not there within {self._timeout:g} s.",
                        tried=str(error),
                        next_step="give a smaller --pool-size, or a longer --timeout",
                    ) from error
            return self._pool


@dataclass(frozen=True, slots=True)
class _Call:
    """What one client calls, on whatever connection."""

    statement: bytes
    codec: Codec
    reader: Reader
    parameters: Sequence[list[Any]]
    """Of each variant; the key's place is filled for each call."""


class _SqlCaller:
    """One client on its own connection. `call` is the hot path."""

    began = 0

    def __init__(self, connection: psycopg.Connection[Any], call: _Call) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._execute = self._pgconn.exec_prepared
        self._send = self._pgconn.send_query_prepared
        self._consume, self._is_busy = self._pgconn.consume_input, self._pgconn.is_busy
        self._get_result = self._pgconn.get_result
        self._statement = call.statement
        self._key_at = call.codec.key_at
        self._formats = call.codec.formats
        self._parameters = call.parameters
        self._reader = call.reader
        self._read = call.reader.read

    def call(self, key: Any, variant: int) -> Answer:
        parameters = self._parameters[variant]
        parameters[self._key_at] = key
        try:
            result = self._execute(self._statement, parameters, self._formats, 1)
        except psycopg.OperationalError as error:
            return self._reader.lost(str(error))
        return self._read(result, self._pgconn)

    def beside(self, first: Duplex) -> None:
        if isinstance(first, _SqlCaller):
            self._reader, self._read = first._reader, first._read

    def fileno(self) -> int:
        return self._pgconn.socket

    def send(self, key: Any, variant: int) -> bool:
        parameters = self._parameters[variant]
        parameters[self._key_at] = key
        try:
            self._send(self._statement, parameters, self._formats, 1)
        except psycopg.OperationalError:
            return self.alive  # what fails on the way makes the socket readable, and is found out there
        return True

    def receive(self) -> pq.abc.PGresult | Answer | None:
        try:
            self._consume()
            if self._is_busy():
                return None
            result = self._get_result()
            if result is None:
                return self._reader.lost(self._pgconn.get_error_message())
            while (more := self._get_result()) is not None:
                result = more  # after the row: what went wrong at commit
        except psycopg.OperationalError as error:
            return self._reader.lost(str(error))
        # An error is read at once: it says how the connection is now.
        return result if result.status == _TUPLES_OK else self._read(result, self._pgconn)

    def read(self, received: pq.abc.PGresult | Answer) -> Answer:
        return received if isinstance(received, tuple) else self._read(received, self._pgconn)

    def begin(self, command: bytes = b"BEGIN") -> bool:
        return self._command(command)

    def end(self, *, commit: bool) -> bool | None:
        ended = self._command(b"COMMIT" if commit else b"ROLLBACK")
        return ended if ended or self.alive else None

    @property
    def alive(self) -> bool:
        return self._pgconn.status == ConnStatus.OK

    def cancel(self) -> None:
        with suppress(psycopg.Error):
            self._pgconn.get_cancel().cancel()

    def abort(self) -> None:
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self._pgconn.socket)) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._connection.close()

    def _command(self, command: bytes) -> bool:
        try:
            result = self._pgconn.exec_(command)
        except psycopg.OperationalError:
            return False
        # COMMIT of a failed transaction is answered with the tag ROLLBACK.
        return result.status == ExecStatus.COMMAND_OK and result.command_status == command


class _PooledCaller:
    """One client behind a pool: it waits for a connection as an application would, within the call's latency."""

    def __init__(self, pool: ConnectionPool[psycopg.Connection[Any]], dsn: str, timeout: float, call: _Call) -> None:
        self._pool = pool
        self._dsn = dsn
        self._timeout = timeout
        self._call = call
        self._held: psycopg.Connection[Any] | None = None
        self._current: _SqlCaller | None = None
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
            reader = self._call.reader
            return reader.failed("pool_timeout", str(error)) if self.alive else reader.lost(str(error))
        self._current = _SqlCaller(connection, self._call)
        self.began = time.perf_counter_ns()
        try:
            return self._current.call(key, variant)
        finally:
            self._put_back(connection)

    def begin(self, command: bytes = b"BEGIN") -> bool:
        try:
            self._held = self._pool.getconn(self._timeout)
        except PoolTimeout:
            return False
        self._current = _SqlCaller(self._held, self._call)
        self.began = 0
        if not self._current.begin(command):
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

    def _put_back(self, connection: psycopg.Connection[Any]) -> None:
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
        with self._returning:
            if self._current is not None:
                self._current.cancel()

    def abort(self) -> None:
        with self._returning:
            if self._current is not None:
                self._current.abort()

    def close(self) -> None:
        """The pool belongs to the target."""


class Reader:
    """Turns a result into an outcome; each distinct answer is classified once per connection."""

    def __init__(self, contract: Contract, codec: Codec, *, overlap: bool) -> None:
        self._contract = contract
        self._codec = codec
        self._known: dict[_Raw | tuple[str, str], Outcome] = {}
        self._labels = codec.labels
        width = codec.width + len(_TIMING) * overlap
        self._no_evidence: _Raw = (None,) * (width - codec.labels)
        # Every column as the bytes it came in: one call into C for the whole row, and decoding waits until judgement.
        transformer = Transformer()
        transformer.set_loader_types([_BYTEA] * width, Format.BINARY)
        self._set_result, self._load_row = transformer.set_pgresult, transformer.load_row

    def read(self, result: pq.abc.PGresult, pgconn: pq.abc.PGconn) -> Answer:
        if result.status != _TUPLES_OK or result.ntuples != 1:
            return self._unusual(result, pgconn)
        self._set_result(result, set_loaders=False)
        row = self._load_row(0, tuple)
        key = row[: self._labels]
        outcome = self._known.get(key)
        if outcome is None:
            try:
                outcome = self._contract.outcome(self._codec.decode_labels(key))
            except psycopg.DataError as error:
                return self.failed(BROKEN_ANSWER, f"unreadable answer: {error}")
            self._remember(key, outcome)
        return outcome, row[self._labels :]

    def failed(self, code: str, detail: str, effect: Effect = Effect.FAILED) -> Answer:
        outcome = self._known.get((code, detail))
        if outcome is None:
            label = IN_DOUBT if effect is Effect.IN_DOUBT else FAILED
            outcome = self._remember((code, detail), Outcome(label, effect, code, detail))
        return outcome, self._no_evidence

    def lost(self, detail: str) -> Answer:
        """The connection died before the answer."""
        return self.failed("connection_lost", " ".join(detail.split()), Effect.IN_DOUBT)

    def _remember(self, key: _Raw | tuple[str, str], outcome: Outcome) -> Outcome:
        if len(self._known) < _MOST_KNOWN:
            self._known[key] = outcome
        return outcome

    def _unusual(self, result: pq.abc.PGresult, pgconn: pq.abc.PGconn) -> Answer:
        if result.status == _TUPLES_OK:
            return self.failed(BROKEN_ANSWER, f"{result.ntuples or 'no'} rows instead of one")
        code = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()
        message = (result.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace")
        if pgconn.status != ConnStatus.OK:
            # Whatever the last words were: a commit may have happened before them.
            detail = message or result.get_error_message()
            return self.failed(code or "connection_lost", " ".join(detail.split()), Effect.IN_DOUBT)
        return self.failed(code or BROKEN_ANSWER, message or f"unexpected result {ExecStatus(result.status).name}")


class Codec:
    """Binary forms of the function's parameters and columns, as psycopg's adapters make and read them."""

    def __init__(self, connection: psycopg.Connection[Any], function: Function) -> None:
        self._transformer = Transformer(connection)
        self._adapters = connection.adapters
        self._parameters = function.parameters
        self.key_at = next(i for i, p in enumerate(function.parameters) if p.name == function.key)
        labels = [c for c in function.columns if not c.evidence]
        evidence = [c for c in function.columns if c.evidence]
        self.order = [c.name for c in (*labels, *evidence)]
        """Columns as the statement selects them: those that decide the label first."""
        self.labels, self.width = len(labels), len(self.order)
        self._label_names = [c.name for c in labels]
        oids = _type_oids(connection, [p.type for p in function.parameters] + [c.type for c in (*labels, *evidence)])
        self.parameter_oids = oids[: len(function.parameters)]
        self._dumpers = [self._dumper(oid) for oid in self.parameter_oids]
        self.formats = [int(dumper_format) for _, dumper_format in self._dumpers]
        loaders = [self._transformer.get_loader(oid, Format.BINARY).load for oid in oids[len(function.parameters) :]]
        self._label_loaders, self._evidence_loaders = loaders[: self.labels], loaders[self.labels :]
        self._load_key = self._transformer.get_loader(
            self.parameter_oids[self.key_at], Format(self.formats[self.key_at])
        )

    def encode(self, arguments: Mapping[str, Any]) -> list[Any]:
        """All parameters in order, the key's place left empty."""
        return [
            None if at == self.key_at else self._dump(at, arguments[parameter.name])
            for at, parameter in enumerate(self._parameters)
        ]

    def encode_key(self, key: Hashable) -> bytes:
        dumped = self._dump(self.key_at, key)
        assert dumped is not None
        return dumped

    def decode_key(self, raw: bytes) -> Hashable:
        loaded: Hashable = self._load_key.load(raw)
        return loaded

    def decode_labels(self, raw: _Raw) -> dict[str, Any]:
        return {
            name: None if value is None else load(value)
            for name, load, value in zip(self._label_names, self._label_loaders, raw, strict=True)
        }

    def decode_evidence(self, column: int, raw: Sequence[Any]) -> Sequence[Any]:
        return decoded(self._evidence_loaders[column], raw, psycopg.DataError)

    def _dump(self, at: int, value: Any) -> bytes | None:
        if value is None:
            return None
        dump, _ = self._dumpers[at]
        return dump(value)

    def _dumper(self, oid: int) -> tuple[Callable[[Any], bytes | None], Format]:
        """By the parameter's type, not by the value's: an int must fill an int8 parameter with eight bytes."""
        try:
            dumper = self._adapters.get_dumper_by_oid(oid, Format.BINARY)(object, self._transformer.connection)
        except psycopg.ProgrammingError:

            def as_text(value: Any) -> bytes | None:
                dumped = self._transformer.get_dumper(value, PyFormat.TEXT).dump(value)
                return None if dumped is None else bytes(dumped)

            return as_text, Format.TEXT

        def as_binary(value: Any) -> bytes | None:
            dumped = dumper.dump(value)
            return None if dumped is None else bytes(dumped)

        return as_binary, Format.BINARY


def _call(schema: str, function: Function) -> sql.Composed:
    arguments = sql.SQL(", ").join(
        sql.SQL("{} => {}").format(sql.Identifier(parameter.name), sql.SQL(f"${number}"))
        for number, parameter in enumerate(function.parameters, 1)
    )
    return sql.SQL("{}({})").format(sql.Identifier(schema, function.name.rpartition(".")[2]), arguments)


def _statement(
    connection: psycopg.Connection[Any], call: sql.Composed, columns: Sequence[str], *, overlap: bool
) -> bytes:
    names = sql.SQL(", ").join(sql.SQL("g.{}").format(sql.Identifier(name)) for name in columns)
    text = queries.text("harness.targets", "overlap.sql") if overlap else _SQL["call"]
    return sql.SQL(text).format(columns=names, call=call).as_bytes(connection)


def _type_oids(connection: psycopg.Connection[Any], types: Sequence[str]) -> list[int]:
    rows = connection.execute(_SQL["type_oids"], [list(types)]).fetchall()
    return [row[0] for row in rows]


def _check_function(connection: psycopg.Connection[Any], function: Function) -> str:
    """The schema of the function the contract asks for. Raises HarnessError with expected and found."""
    schema, _, name = function.name.rpartition(".")
    found = connection.execute(_SQL["functions"], {"name": name, "schema": schema or None}).fetchall()
    parameters = [f"{p.name} {p.type}" for p in function.parameters]
    columns = [f"{c.name} {c.type}" for c in function.columns]
    for _, found_schema, _, procedure, found_parameters, found_columns in found:
        if not procedure and found_parameters == parameters and sorted(found_columns) == sorted(columns):
            return str(found_schema)
    if not found:
        raise HarnessError(
            f"There is no function {function.name} in the database.",
            tried=f"pg_proc in the schemas of the search path; expected {function}",
            next_step="check that --migrations names the migrations that create it",
        )
    if all(procedure for _, _, _, procedure, _, _ in found):
        raise HarnessError(
            f"{found[0][0]} is a procedure, which may commit in the middle.",
            tried=f"calling it as a function, whose call is one transaction; expected {function}",
            next_step="let a function hold what must be one transaction, and put that to the test",
        )
    shown = "\n    ".join(f"found:    ({', '.join(p)}) RETURNS ({', '.join(c)})" for _, _, _, _, p, c in found)
    raise HarnessError(
        f"The function {function.name} is not as the contract expects it.",
        tried=f"\n    expected: ({', '.join(parameters)}) RETURNS ({', '.join(columns)})\n    {shown}",
        next_step="change the function, or give the contract it follows with --contract",
    )
