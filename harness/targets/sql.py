"""Target sql: a prepared statement through psycopg's low-level `pq` interface, with binary parameters and answers.

The pq interface is a third of the client CPU of a cursor and halves the spread of a race's starts (`make bench`).

What one statement cannot do goes in steps, all of them in one write to the server (libpq's pipeline mode): a call as
somebody else, with what makes it so before it; a call that cannot stand between two readings of the clock, because it
is no function, or because it may end in an error, which would take the readings with it.
"""

from __future__ import annotations

import itertools
import logging
import select
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import psycopg
from psycopg import pq
from psycopg.pq import ConnStatus, ExecStatus
from psycopg_pool import ConnectionPool, PoolTimeout

from harness.contracts.contract import FAILED, Contract, Effect, Function, Outcome
from harness.environment import own
from harness.environment.identity import Identity, IdentityStatements, bypassed_policies
from harness.environment.servers import connect
from harness.errors import HarnessError, UsageError
from harness.sqltext import queries
from harness.targets.codec import TIMING, Codec, Reader, milliseconds
from harness.targets.description import CallDescription, describe
from harness.targets.retrying import RetryingCaller, made_again
from harness.targets.target import SLOW, Answer, Caller, Duplex, Span, decoded

_SQL = queries.own("harness.targets")

_WARM_UPS = 6
"""PL/pgSQL plans a statement anew five times before it may keep a generic plan (manual, "Plan Caching")."""

_WARM_LONGEST = 1.0
"""Seconds after which a warm-up call is cancelled."""

_NOT_YET = 2**62
"""A clock reading that does not come: a call that waits for a connection has not reached the function."""

_GRACE = 2.0
"""Seconds that a cancelled warm-up call gets to come back before its connection is cut."""

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


class SqlTarget:
    """Calls the function in a database; with `pool_size`, through a pool of that many connections."""

    name = "sql"

    def __init__(
        self,
        dsn: str,
        contract: Contract,
        *,
        pool_size: int | None = None,
        timeout: float = 10.0,
        run_beside: Callable[[int, int], None] | None = None,
    ) -> None:
        """`timeout`, in seconds, holds for the wait for a connection of the pool.

        `run_beside` is told backend and client of each connection whose calls race.

        Raises HarnessError when the function is missing or has other parameters or columns, or when a role that calls
        are made as cannot be taken, and UsageError for arguments that the function cannot take.
        """
        self.contract = contract
        self._dsn = dsn
        self._timeout = timeout
        self._run_beside = run_beside
        self._slow = threading.Event()
        self._routes: dict[Function, Route] = {}
        self._identities: dict[str, IdentityStatements] = {}
        self._looking = threading.Lock()
        """Taken to look something up that has not been yet: clients connect side by side."""
        self._tried_again: list[Counter[str]] = []
        self._pool_size = pool_size
        self._pool: ConnectionPool[own.Connection] | None = None
        self._opening = threading.Lock()
        with connect(dsn) as connection:
            self.route = self._look_up(connection, contract.function)
            for variant in contract.variants:
                for client in (0, 1):
                    route = self._look_up(connection, contract.function_of(variant, client))
                    route.codec.check(connection, variant.name, variant.arguments(client))
            self.identity(connection, contract.identity_of(0))
        self.codec = self.route.codec

    @property
    def evidence_names(self) -> tuple[str, ...]:
        """Names of the columns that are kept of each answer, those of all functions of the contract."""
        return tuple(dict.fromkeys(e.name for route in self._routes.values() for e in route.description.evidence))

    @property
    def slow(self) -> bool:
        """Whether a warm-up call, on this clone or another, took so long that none is worth its time any more."""
        return self._slow.is_set()

    def identity(self, connection: psycopg.Connection[Any], identity: Identity | None) -> IdentityStatements | None:
        """The statements of an identity, looked up once."""
        if identity is None:
            return None
        name = str(identity)
        if name not in self._identities:
            self._identities[name] = identity.statements(connection)
        return self._identities[name]

    def calls(self, variant: int, clients: int) -> list[Route]:
        """What each of so many clients calls in a variant."""
        functions = [self.contract.function_of(self.contract.variants[variant], client) for client in range(clients)]
        if any(function not in self._routes for function in functions):
            with self._looking, connect(self._dsn) as connection:
                for function in functions:
                    self._look_up(connection, function)
        return [self._routes[function] for function in functions]

    def on(self, dsn: str) -> SqlTarget:
        """The same target on another clone of its template, where nothing needs looking up again."""
        twin = copy(self)
        twin._dsn, twin._pool, twin._opening, twin._tried_again = dsn, None, threading.Lock(), []
        return twin

    def connect(
        self, client: int, arguments: Sequence[Mapping[str, Any]], *, overlap: bool, warm_up: Hashable
    ) -> Caller:
        call = self._call(client, arguments, overlap=overlap)
        caller: _SqlCaller | _PooledCaller
        caller = (
            self._opened(call)
            if self._pool_size is None
            else _PooledCaller(self._opened_pool(), self._dsn, self._timeout, call)
        )
        try:
            if not self.slow:
                self._warm(caller, self.encode_key(warm_up))
        except BaseException:
            caller.close()  # nobody has it yet
            raise
        if not caller.alive:
            caller.close()
            caller = self._opened(call)
        if overlap and self._run_beside is not None and isinstance(caller, _SqlCaller):
            self._run_beside(caller.backend, client)
        if self.contract.retry is None:
            return caller
        counter = Counter[str]()
        self._tried_again.append(counter)
        return RetryingCaller(caller, self.contract.retry, counter)

    def _call(self, client: int, arguments: Sequence[Mapping[str, Any]], *, overlap: bool) -> _Call:
        """What a client calls in each variant, and as whom."""
        contract = self.contract
        functions = [contract.function_of(variant, client) for variant in contract.variants]
        identity = contract.identity_of(client)
        with self._looking:
            known = all(f in self._routes for f in functions)
            if not known or (identity is not None and str(identity) not in self._identities):
                with connect(self._dsn) as connection:
                    for function in functions:
                        self._look_up(connection, function)
                    self.identity(connection, identity)
            statements = None if identity is None else self._identities[str(identity)]
        layout = self.evidence_names
        routes = [self._routes[function] for function in functions]
        readers = {id(r): Reader(contract, r.codec, layout, overlap=overlap) for r in routes}
        plain = {id(r): Reader(contract, r.codec, layout, overlap=False) for r in routes} if overlap else readers
        variants = []
        calls = itertools.count(1)
        for route, values in zip(routes, arguments, strict=True):
            parameters, formats = route.codec.encode(values)
            if route.codec.counter_at is not None:
                parameters = _Counting(parameters, route.codec.counter_at, calls)
            reader, stepped = readers[id(route)], plain[id(route)]
            variants.append(_Variant(route, parameters, formats, reader, stepped))
        return _Call(variants, statements, overlap)

    def _look_up(self, connection: psycopg.Connection[Any], function: Function) -> Route:
        route = self._routes.get(function)
        if route is None:
            description = describe(connection, self.contract, function)
            number = b"%d" % len(self._routes)
            plain, timed = b"harness_call_" + number, b"harness_timed_call_" + number
            route = Route(description, Codec(connection, description), plain, timed if description.timed else plain)
            for other in self._routes.values():
                _check_alike(other, route)
            self._routes[function] = route
        return route

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
        limit = b"SET LOCAL statement_timeout = %d" % milliseconds(_WARM_LONGEST)
        # A function may swallow its cancellation.
        cut = threading.Timer(_WARM_LONGEST + _GRACE, caller.abort)
        cut.daemon = True
        cut.start()
        try:
            started = time.monotonic()
            for _ in range(_WARM_UPS):
                if time.monotonic() - started > SLOW:
                    break
                if not caller.begin(limit):
                    break  # a procedure that commits would leave a trace
                called = time.monotonic()
                outcome, _evidence = caller.call(key, 0)
                if time.monotonic() - called > SLOW:
                    self._slow.set()
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
        name = self.evidence_names[column]
        loaders = (route.codec.evidence_loaders.get(name) for route in self._routes.values())
        return decoded(next(load for load in loaders if load is not None), raw, psycopg.DataError)

    timing = len(TIMING)

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

    def notes(self) -> Iterator[str]:
        """What a report should say: the overload that was chosen, tries that were repeated, policies passed by."""
        for route in self._routes.values():
            yield from route.description.notes()
        yield from made_again(sum(self._tried_again, Counter[str]()))
        for name, statements in self._identities.items():
            if statements.left_out:
                yield f"settings of {name} that this session may not make: {', '.join(statements.left_out)}"
        with suppress(HarnessError, psycopg.Error), connect(self._dsn) as connection:
            identity = self.identity(connection, self.contract.identity_of(0))
            yield from bypassed_policies(connection, identity)
            connection.execute((identity.begin if identity else "BEGIN").encode())
            unusual = [str(row[0]) for row in connection.execute(_SQL["unusual_settings"]).fetchall()]
            connection.execute("ROLLBACK")
            if unusual:
                yield f"the calls ran with {', '.join(unusual)}"

    def close(self) -> None:
        """Close the pool, where there is one."""
        if self._pool is not None:
            self._pool.close()

    def _prepare(self, connection: psycopg.Connection[Any]) -> None:
        texts: dict[bytes, tuple[bytes, list[int]]] = {
            _STARTED: (_SQL["started"].encode(), []),
            _ENDED: (_SQL["ended"].encode(), []),
        }
        for route in self._routes.values():
            description, oids = route.description, route.codec.parameter_oids
            texts[route.plain] = description.statement, oids
            if description.timed is not None:
                texts[route.timed] = description.timed, oids
        for name, (text, oids) in texts.items():
            result = connection.pgconn.prepare(name, text, oids)
            if result.status != ExecStatus.COMMAND_OK:
                if connection.closed:
                    raise psycopg.OperationalError(result.get_error_message())
                raise HarnessError(
                    "The call cannot be prepared.",
                    tried=f"{text.decode()}\n    {result.get_error_message()}",
                    next_step="check the contract's function against the migrations",
                )

    def _opened_pool(self) -> ConnectionPool[own.Connection]:
        with self._opening:
            if self._pool is None:
                assert self._pool_size is not None
                # What it would tell on standard error is in the record: calls whose connection died.
                logging.getLogger("psycopg.pool").addHandler(logging.NullHandler())
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


def _check_alike(first: Route, second: Route) -> None:
    """Raises UsageError for two functions whose keys or whose evidence cannot stand in one history."""
    one, two = first.codec, second.codec
    names = first.description.signature, second.description.signature
    if one.key_type.base != two.key_type.base:
        raise UsageError(
            f"The functions {names[0]} and {names[1]} have keys of different types.",
            tried=f"{one.key_type.name} and {two.key_type.name}",
            next_step="let the functions of one contract contend for keys of one type",
        )
    types = {each.name: (each.kind.oid, first.description.binary) for each in first.description.evidence}
    for each in second.description.evidence:
        if types.get(each.name, (each.kind.oid, second.description.binary)) != (
            each.kind.oid,
            second.description.binary,
        ):
            raise UsageError(
                f"The functions {names[0]} and {names[1]} both answer with {each.name}, and not alike.",
                tried=f"{each.name} as evidence of both",
                next_step="let it be evidence of one of them only, or of the same type in both",
            )


_STARTED, _CALL, _ENDED, _AROUND = b"harness_started", b"harness_call", b"harness_ended", b"harness_around"
"""The first and the third are names of prepared statements, too."""

_Step = tuple[bytes, bytes]
"""What kind of step, and its text where it is one of those around the call."""


class _Counting(list[Any]):
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


class _Variant:
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


class _Call:
    """What one client calls, and as whom."""

    __slots__ = ("identity", "overlap", "stepped", "variants")

    def __init__(self, variants: Sequence[_Variant], identity: IdentityStatements | None, overlap: bool) -> None:
        self.variants = variants
        self.identity = identity
        self.overlap = overlap
        no_query = any(v.route.description.timed is None for v in variants)
        self.stepped = identity is not None or (overlap and (no_query or bool(variants[0].reader.errors_are_answers)))
        """Whether calls go in steps. Where overlap is measured, also from the first error on: an error takes the
        readings of the one statement with it."""

    @property
    def alone(self) -> bool:
        return any(variant.alone for variant in self.variants)

    def steps(self, variant: _Variant, *, inside: bool) -> list[list[_Step]]:
        """The steps of a call, in groups of which each is a transaction of its own where none is open.

        `inside` a transaction that was begun for it, only the call itself is made.
        """
        call = [(_CALL, b"")]
        if self.overlap and not variant.alone:
            call = [(_STARTED, b""), *call, (_ENDED, b"")]
        around = _texts(self.identity.only_begin) if self.identity is not None and not inside else []
        if variant.alone:
            before = [] if self.identity is None else [_texts(text) for text in self.identity.for_session]
            after = [] if self.identity is None else [_texts(text) for text in self.identity.undone]
            timed = [[(_STARTED, b"")], call, [(_ENDED, b"")]] if self.overlap else [call]
            return [*before, *timed, *after]
        if not around:
            return [call]
        assert self.identity is not None
        # The end comes whatever became of the call: of a failed transaction it makes a roll-back.
        return [[*around, *_texts(*self.identity.for_transaction), *call], _texts("COMMIT")]


def _texts(*texts: str) -> list[_Step]:
    return [(_AROUND, text.encode()) for text in texts]


class _SqlCaller:
    """One client on its own connection. `call`, `send`, `receive` and `read` are the hot path."""

    began = 0

    def __init__(self, connection: own.Connection, call: _Call) -> None:
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
        self._steps: _Steps | None = None
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
        if isinstance(first, _SqlCaller) and self._one and first._one:
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
            self._steps = _Steps(chosen, [kind for group in groups for kind, _ in group], len(groups))
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


class _Steps:
    """A call in flight that goes in steps, and what came of each."""

    __slots__ = ("_kinds", "_variant", "nothing", "results", "syncs_due")

    def __init__(self, variant: _Variant, kinds: Sequence[bytes], groups: int) -> None:
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
        started, ended = came.get(_STARTED), came.get(_ENDED)
        if started is None or started.status != _TUPLES_OK:
            return outcome, (*evidence, None, None, None, None)
        at, seen = started.get_value(0, 0), started.get_value(0, 1)
        if ended is None or ended.status != _TUPLES_OK or error is not None:
            return outcome, (*evidence, at, None, at, seen)
        return outcome, (*evidence, ended.get_value(0, 0), ended.get_value(0, 1), at, seen)


class _PooledCaller:
    """One client behind a pool: it waits for a connection as an application would, within the call's latency."""

    def __init__(self, pool: ConnectionPool[own.Connection], dsn: str, timeout: float, call: _Call) -> None:
        self._pool = pool
        self._dsn = dsn
        self._timeout = timeout
        self._call = call
        self._held: own.Connection | None = None
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
            reader = self._call.variants[variant].reader
            return reader.failed("pool_timeout", str(error)) if self.alive else reader.lost(str(error))
        self._current = _SqlCaller(connection, self._call)
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
        self._current = _SqlCaller(self._held, self._call)
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
