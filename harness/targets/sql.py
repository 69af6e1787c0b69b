"""Target sql: a prepared statement through psycopg's low-level `pq` interface, with binary parameters and answers.

The pq interface is a third of the client CPU of a cursor and halves the spread of a race's starts (`make bench`).
"""

from __future__ import annotations

import math
import os
import socket
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from importlib import resources
from typing import Any

import psycopg
from psycopg import pq, sql
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, Format
from psycopg_pool import ConnectionPool, PoolTimeout

from harness.contracts.contract import BROKEN_ANSWER, FAILED, IN_DOUBT, Contract, Effect, Function, Outcome
from harness.environment.servers import connect
from harness.errors import HarnessError
from harness.targets.target import Answer, Caller, Span

_STATEMENT = b"harness_call"
_WARM_UPS = 6
"""PL/pgSQL plans a statement anew five times before it may keep a generic plan (manual, "Plan Caching")."""

_GRACE = 2.0
"""Seconds that a cancelled warm-up call gets to come back before its connection is cut."""

_MOST_KNOWN = 10_000
"""Distinct answers remembered per connection; messages that hold an id would grow without end."""

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
            self._overlap = _statement(connection, call, self.codec.order, overlap=True)
        self._pools: dict[bool, ConnectionPool[psycopg.Connection[Any]]] = {}
        self._pool_size = pool_size
        self._opening = threading.Lock()

    def connect(
        self, client: int, arguments: Sequence[Mapping[str, Any]], *, overlap: bool, warm_up: Hashable
    ) -> Caller:
        reader = Reader(self.contract, self.codec, overlap=overlap)
        parameters = [self.codec.encode(values) for values in arguments]
        caller: _SqlCaller | _PooledCaller
        if self._pool_size is not None:
            caller = _PooledCaller(self._pool(overlap), self._dsn, self._timeout, self.codec, reader, parameters)
        else:
            caller = self._opened(reader, parameters, overlap=overlap)
        self._warm(caller, self.encode_key(warm_up))
        if not caller.alive:
            caller.close()
            caller = self._opened(reader, parameters, overlap=overlap)
        reader.forget_spans()
        return caller

    def _opened(self, reader: Reader, parameters: Sequence[list[Any]], *, overlap: bool) -> _SqlCaller:
        connection = connect(self._dsn)
        try:
            self._prepare(connection, overlap=overlap)
        except BaseException:
            connection.close()
            raise
        return _SqlCaller(connection, self.codec, reader, parameters)

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

    def decode_evidence(self, raw: Sequence[Any]) -> Sequence[Any]:
        return self.codec.decode_evidence(raw)

    def details(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        """Close the pool, where there is one."""
        for pool in self._pools.values():
            pool.close()

    def _prepare(self, connection: psycopg.Connection[Any], *, overlap: bool) -> None:
        text = self._overlap if overlap else self.statement
        result = connection.pgconn.prepare(_STATEMENT, text, self.codec.parameter_oids)
        if result.status != ExecStatus.COMMAND_OK:
            raise HarnessError(
                "The call cannot be prepared.",
                tried=f"{text.decode()}\n    {result.get_error_message()}",
                next_step="check the contract's function against the migrations",
            )

    def _pool(self, overlap: bool) -> ConnectionPool[psycopg.Connection[Any]]:
        with self._opening:
            if overlap not in self._pools:
                assert self._pool_size is not None
                self._pools[overlap] = pool = ConnectionPool(
                    self._dsn,
                    min_size=self._pool_size,
                    max_size=self._pool_size,
                    kwargs={"autocommit": True},
                    configure=lambda connection: self._prepare(connection, overlap=overlap),
                    open=False,
                )
                pool.open(wait=True)
            return self._pools[overlap]


class _SqlCaller:
    """One client on its own connection. `call` is the hot path."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        codec: Codec,
        reader: Reader,
        parameters: Sequence[list[Any]],
    ) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._execute = self._pgconn.exec_prepared
        self._send = self._pgconn.send_query_prepared
        self._consume, self._is_busy = self._pgconn.consume_input, self._pgconn.is_busy
        self._get_result = self._pgconn.get_result
        self._key_at = codec.key_at
        self._formats = codec.formats
        self._parameters = parameters
        self._reader = reader
        self._read = reader.read

    def call(self, key: Any, variant: int) -> Answer:
        parameters = self._parameters[variant]
        parameters[self._key_at] = key
        try:
            result = self._execute(_STATEMENT, parameters, self._formats, 1)
        except psycopg.OperationalError as error:
            return self._reader.lost(str(error))
        return self._read(result, self._pgconn)

    def beside(self, first: Caller) -> None:
        if isinstance(first, _SqlCaller):
            self._reader, self._read = first._reader, first._read

    def fileno(self) -> int:
        return self._pgconn.socket

    def send(self, key: Any, variant: int) -> None:
        parameters = self._parameters[variant]
        parameters[self._key_at] = key
        try:  # noqa: SIM105 - suppress() is three calls of Python on the hot path
            self._send(_STATEMENT, parameters, self._formats, 1)
        except psycopg.OperationalError:
            pass  # what fails makes the socket readable, and is found out there

    def receive(self) -> Answer | None:
        pgconn = self._pgconn
        try:
            self._consume()
            if self._is_busy():
                return None
            result = self._get_result()
            if result is None:
                return self._reader.lost(pgconn.get_error_message())
            while self._get_result() is not None:
                pass
        except psycopg.OperationalError as error:
            return self._reader.lost(str(error))
        return self._read(result, pgconn)

    def begin(self, command: bytes = b"BEGIN") -> bool:
        return self._command(command)

    def end(self, *, commit: bool) -> bool:
        return self._command(b"COMMIT" if commit else b"ROLLBACK")

    @property
    def alive(self) -> bool:
        return self._pgconn.status == ConnStatus.OK

    @property
    def spans(self) -> Sequence[Span | None]:
        return self._reader.spans

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

    def __init__(
        self,
        pool: ConnectionPool[psycopg.Connection[Any]],
        dsn: str,
        timeout: float,
        codec: Codec,
        reader: Reader,
        parameters: Sequence[list[Any]],
    ) -> None:
        self._pool = pool
        self._dsn = dsn
        self._timeout = timeout
        self._codec = codec
        self._reader = reader
        self._parameters = parameters
        self._held: tuple[psycopg.Connection[Any], _SqlCaller] | None = None
        self._current: _SqlCaller | None = None
        self._lost = False
        """Whether the last call lost its connection, or found none."""

    def call(self, key: Any, variant: int) -> Answer:
        if self._held is not None:
            return self._held[1].call(key, variant)
        try:
            connection = self._pool.getconn(self._timeout)
        except PoolTimeout as error:
            self._lost = True
            return self._reader.failed("pool_timeout", str(error)) if self.alive else self._reader.lost(str(error))
        caller = self._current = _SqlCaller(connection, self._codec, self._reader, self._parameters)
        try:
            return caller.call(key, variant)
        finally:
            self._lost = not caller.alive
            self._current = None
            self._pool.putconn(connection)

    def begin(self, command: bytes = b"BEGIN") -> bool:
        try:
            connection = self._pool.getconn(self._timeout)
        except PoolTimeout:
            return False
        self._held = (connection, _SqlCaller(connection, self._codec, self._reader, self._parameters))
        if not self._held[1].begin(command):
            self.end(commit=False)
            return False
        return True

    def end(self, *, commit: bool) -> bool:
        if self._held is None:
            return False
        connection, caller = self._held
        self._held = None
        try:
            return caller.end(commit=commit)
        finally:
            self._lost = not caller.alive
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

    @property
    def spans(self) -> Sequence[Span | None]:
        return self._reader.spans

    def cancel(self) -> None:
        caller = self._current or (self._held[1] if self._held else None)
        if caller is not None:
            caller.cancel()

    def abort(self) -> None:
        caller = self._current or (self._held[1] if self._held else None)
        if caller is not None:
            caller.abort()

    def close(self) -> None:
        """The pool belongs to the target."""


class Reader:
    """Turns a result into an outcome; each distinct answer is classified once per connection."""

    def __init__(self, contract: Contract, codec: Codec, *, overlap: bool) -> None:
        self._contract = contract
        self._codec = codec
        self._known: dict[_Raw | tuple[str, str], Outcome] = {}
        self._labels, self._width = codec.labels, codec.width
        self._no_evidence: _Raw = (None,) * (codec.width - codec.labels)
        self._overlap = overlap
        self._spans: list[tuple[bytes, bytes] | None] = []
        # Every column as the bytes it came in: one call into C for the whole row, and decoding waits until judgement.
        transformer = Transformer()
        transformer.set_loader_types([_BYTEA] * (codec.width + 2 * overlap), Format.BINARY)
        self._set_result, self._load_row = transformer.set_pgresult, transformer.load_row

    def read(self, result: pq.abc.PGresult, pgconn: pq.abc.PGconn) -> Answer:
        if result.status != _TUPLES_OK or result.ntuples != 1:
            return self._unusual(result, pgconn)
        self._set_result(result, set_loaders=False)
        row = self._load_row(0, tuple)
        key = row[: self._labels]
        outcome = self._known.get(key)
        if outcome is None:
            outcome = self._remember(key, self._contract.outcome(self._codec.decode_labels(key)))
        if self._overlap:
            self._spans.append(row[self._width :])
        return outcome, row[self._labels : self._width]

    @property
    def spans(self) -> Sequence[Span | None]:
        """Binary timestamps are microseconds, so they can be compared as they are."""
        return [
            None if span is None else Span(int.from_bytes(span[1], signed=True), int.from_bytes(span[0], signed=True))
            for span in self._spans
        ]

    def forget_spans(self) -> None:
        self._spans.clear()

    def failed(self, code: str, detail: str, effect: Effect = Effect.FAILED) -> Answer:
        if self._overlap:
            self._spans.append(None)
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

    def decode_evidence(self, raw: Sequence[Any]) -> Sequence[Any]:
        return [None if v is None else load(v) for load, v in zip(self._evidence_loaders, raw, strict=True)]

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
    text = resources.files("harness.targets").joinpath("overlap.sql").read_text() if overlap else _PLAIN
    return sql.SQL(text).format(columns=names, call=call).as_bytes(connection)


_PLAIN = "SELECT {columns} FROM {call} AS g"


def _type_oids(connection: psycopg.Connection[Any], types: Sequence[str]) -> list[int]:
    rows = connection.execute(
        "SELECT t.name::regtype::oid FROM unnest(%s::text[]) WITH ORDINALITY AS t (name, place) ORDER BY t.place",
        [list(types)],
    ).fetchall()
    return [row[0] for row in rows]


def _check_function(connection: psycopg.Connection[Any], function: Function) -> str:
    """The schema of the function the contract asks for. Raises HarnessError with expected and found."""
    schema, _, name = function.name.rpartition(".")
    text = resources.files("harness.targets").joinpath("function.sql").read_text()
    found = connection.execute(text, {"name": name, "schema": schema or None}).fetchall()
    parameters = [f"{p.name} {p.type}" for p in function.parameters]
    columns = [f"{c.name} {c.type}" for c in function.columns]
    for _, found_schema, _, found_parameters, found_columns in found:
        if found_parameters == parameters and sorted(found_columns) == sorted(columns):
            return str(found_schema)
    if not found:
        raise HarnessError(
            f"There is no function {function.name} in the database.",
            tried=f"pg_proc in the schemas of the search path; expected {function}",
            next_step="check that --migrations names the migrations that create it",
        )
    shown = "\n    ".join(f"found:    ({', '.join(p)}) RETURNS ({', '.join(c)})" for _, _, _, p, c in found)
    raise HarnessError(
        f"The function {function.name} is not as the contract expects it.",
        tried=f"\n    expected: ({', '.join(parameters)}) RETURNS ({', '.join(columns)})\n    {shown}",
        next_step="change the function, or give the contract it follows with --contract",
    )
