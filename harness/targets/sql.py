"""Target sql: a prepared statement through psycopg's low-level `pq` interface, with binary parameters and answers.

The pq interface is a third of the client CPU of a cursor and halves the spread of a race's starts (`make bench`).

What one statement cannot do goes in steps, all of them in one write to the server (libpq's pipeline mode): a call as
somebody else, with what makes it so before it; a call that cannot stand between two readings of the clock, because it
is no function, or because it may end in an error, which would take the readings with it.
"""

from __future__ import annotations

import itertools
import logging
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from typing import Any

import psycopg
from psycopg.pq import ExecStatus
from psycopg_pool import ConnectionPool, PoolTimeout

from harness.contracts.contract import Contract, Effect, Function
from harness.environment import own
from harness.environment.identity import Identity, IdentityStatements, bypassed_policies
from harness.environment.servers import connect
from harness.errors import HarnessError, UsageError
from harness.sqltext import queries
from harness.targets.codec import TIMING, Codec, Reader, milliseconds
from harness.targets.description import describe
from harness.targets.retrying import RetryingCaller, made_again
from harness.targets.sql_caller import (
    ENDED,
    STARTED,
    CallVariant,
    ClientCall,
    Counting,
    PooledCaller,
    Route,
    SqlCaller,
)
from harness.targets.target import SLOW, Caller, Span, decoded, decoder

_SQL = queries.own("harness.targets")

_WARM_UPS = 6
"""PL/pgSQL plans a statement anew five times before it may keep a generic plan (manual, "Plan Caching")."""

_WARM_LONGEST = 1.0
"""Seconds after which a warm-up call is cancelled."""

_GRACE = 2.0
"""Seconds that a cancelled warm-up call gets to come back before its connection is cut."""


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
        caller: SqlCaller | PooledCaller
        caller = (
            self._opened(call)
            if self._pool_size is None
            else PooledCaller(self._opened_pool(), self._dsn, self._timeout, call)
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
        if overlap and self._run_beside is not None and isinstance(caller, SqlCaller):
            self._run_beside(caller.backend, client)
        if self.contract.retry is None:
            return caller
        counter = Counter[str]()
        self._tried_again.append(counter)
        return RetryingCaller(caller, self.contract.retry, counter)

    def _call(self, client: int, arguments: Sequence[Mapping[str, Any]], *, overlap: bool) -> ClientCall:
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
                parameters = Counting(parameters, route.codec.counter_at, calls)
            reader, stepped = readers[id(route)], plain[id(route)]
            variants.append(CallVariant(route, parameters, formats, reader, stepped))
        return ClientCall(variants, statements, overlap)

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

    def _opened(self, call: ClientCall) -> SqlCaller:
        connection = connect(self._dsn)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return SqlCaller(connection, call)

    def _warm(self, caller: SqlCaller | PooledCaller, key: bytes) -> None:
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
        return decoded(self._evidence_loader(column), raw, psycopg.DataError)

    def evidence_decoder(self, column: int) -> Callable[[bytes | None], Any]:
        """The same for one value after the other."""
        return decoder(self._evidence_loader(column), psycopg.DataError)

    def _evidence_loader(self, column: int) -> Callable[[Any], Any]:
        name = self.evidence_names[column]
        loaders = (route.codec.evidence_loaders.get(name) for route in self._routes.values())
        return next(load for load in loaders if load is not None)

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
            STARTED: (_SQL["started"].encode(), []),
            ENDED: (_SQL["ended"].encode(), []),
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
