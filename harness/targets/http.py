"""Target http: the function through PostgREST, `POST /rpc/<function>`, one kept-alive connection per client.

An answer is classified by its body: a row with the function's columns, or an error's `code` (SQLSTATE or PGRSTnnn).
The status alone says little: 55P03 comes as 500, 23505 as 409, P0001 as 400, and a function may set it at will.
"""

from __future__ import annotations

import json
import re
import time
from array import array
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from harness.contracts.contract import (
    TIMEOUT,
    Contract,
    Effect,
    Outcome,
)
from harness.environment import own
from harness.environment.postgrest import PostgREST, Token
from harness.errors import HarnessError
from harness.targets import http_wire
from harness.targets.codec import TIMING
from harness.targets.description import CallDescription
from harness.targets.http_answers import Counters, JsonCodec, JsonReader, json_body
from harness.targets.http_mistakes import explain
from harness.targets.http_wire import Head, LostError, NotSentError, Wire, address_of
from harness.targets.retrying import RetryingCaller, made_again
from harness.targets.target import Answer, Caller, Duplex, Span

CHECKS = ("status is 200", "has body", "response time under 200 ms", "valid JSON")
"""The checks of the original load test, which are metrics here."""

PARTS = ("jwt", "parse", "plan", "transaction", "response")
"""What PostgREST's Server-Timing header tells of a request."""

_SLOW = 0.2
_PROBE_TIMEOUT = 10.0

_WARM_UPS = 6
"""As for sql: a statement is planned anew five times before it may keep its plan."""

_PAUSES = (0.05, 0.15)
"""Seconds that the server is made to wait, to see what its clock counts."""

OVERLAP_SUFFIX = "_overlap"
"""Of the function between clock readings, in the harness's own schema."""


@dataclass(frozen=True, slots=True)
class HttpEvidence:
    """What HTTP itself told during a run, beside the outcomes."""

    calls: int
    passed: Mapping[str, int]
    """For each of `CHECKS`, how many of the calls passed it."""
    statuses: Mapping[int, int]
    """Status -> calls; 0 counts those without an answer."""
    connections: int
    """Opened by these clients in all; more than their number means that some were cut or closed."""
    server_timing: Mapping[str, array[float]] = field(repr=False)
    """For each of `PARTS`, the header's figure of every call that had one, in the server's own unit."""


@dataclass(frozen=True, slots=True)
class ServerClock:
    """What the figures of a Server-Timing header are, in this version of PostgREST."""

    unit: float
    """Seconds per unit: 0.001 by the header's specification."""
    counts: str
    """`wall time`, or `CPU time of the whole process`."""


class HttpTarget:
    """Calls the function through a PostgREST, ours or somebody else's."""

    name = "http"
    slow = False

    def __init__(
        self,
        url: str,
        token: Token,
        contract: Contract,
        *,
        apikey: bool = False,
        rollback: bool = False,
        overlap: bool = False,
        postgrest: PostgREST | None = None,
        description: CallDescription | None = None,
        token_of: Callable[[int], Token] | None = None,
    ) -> None:
        """`url` is PostgREST's base (for Supabase, with /rest/v1). Nothing is sent yet.

        `apikey`: send the token as `apikey` too, as Supabase's gateway wants it. `rollback`: the server honours
        `Prefer: tx=rollback`, so connections can be warmed by calls that leave no trace. `overlap`: http_own.sql is
        installed, so races can be timed on the server. `postgrest`: stopped when the target is closed.
        `description`: of the call, where its database is in reach; None: the contract has to say it all. `token_of`:
        a token of each client's own, by number, where calls are made as somebody. Raises UsageError for an address
        that is none.
        """
        self.contract = contract
        self.url = url.rstrip("/")
        self._address = address_of(self.url)
        self._token = token
        self._token_of = token_of
        self._apikey = apikey
        self.postgrest = postgrest
        self._rollback = rollback
        self._overlap = overlap
        self._codec = JsonCodec(contract.function, description)
        self._callers: list[HttpCaller] = []
        self._tried_again = Counter[str]()

    def connect(
        self, client: int, arguments: Sequence[Mapping[str, Any]], *, overlap: bool, warm_up: Hashable
    ) -> Caller:
        """Raises HarnessError when there is no connection to be had."""
        timed = overlap and self._overlap
        bodies = [self._codec.body(values) for values in arguments]
        token = self._token if self._token_of is None else self._token_of(client)
        wire = Wire(self._address)
        reader = JsonReader(self.contract, self._codec, token, timed=timed)
        database = "" if self.postgrest is None else self.postgrest.maintenance
        caller = HttpCaller(wire, self._head(token, timed=timed), bodies, reader, database)
        try:
            wire.open()
            if self._rollback:
                caller.warm(self._head(token, timed=timed, prefer="tx=rollback"), self.encode_key(warm_up))
        except BaseException:
            caller.close()
            raise
        self._callers.append(caller)
        if self.contract.retry is None:
            return caller
        return RetryingCaller(caller, self.contract.retry, self._tried_again)

    @property
    def evidence_names(self) -> tuple[str, ...]:
        return self._codec.evidence_names

    def encode_key(self, key: Hashable) -> bytes:
        return self._codec.encode_key(key)

    def decode_key(self, raw: Any) -> Hashable:
        return self._codec.decode_key(json.loads(raw))

    def decode_evidence(self, column: int, raw: Sequence[Any]) -> Sequence[Any]:
        return self._codec.decode_evidence(column, raw)

    @property
    def timing(self) -> int:
        return len(TIMING) if self._overlap else 0

    def span(self, timing: Sequence[Any]) -> Span:
        ended, transaction, started, seen = timing
        _, next_transaction, running = seen.split(":")
        return Span(
            _microseconds(started),
            _microseconds(ended),
            None if transaction is None else int(transaction),
            frozenset(map(int, running.split(","))) if running else frozenset(),
            int(next_transaction),
        )

    def probe(self) -> Outcome:
        """Call once with a key that does not exist, and say what is wrong where that shows a mistake of set-up.

        Returns the outcome of a call that reached the function. Raises HarnessError for a token that is not accepted
        or may not do enough, a function that is not exposed, an address without PostgREST behind it.
        """
        contract = self.contract
        variant = contract.variants[0]
        prefer = "tx=rollback" if self._rollback else None
        reader, wire = self._reader(), Wire(self._address)
        body = self._codec.body(variant.arguments(0))
        token = self._token if self._token_of is None else self._token_of(0)
        caller = HttpCaller(wire, self._head(token, timed=False, prefer=prefer), [body], reader)
        try:
            wire.open(_PROBE_TIMEOUT)
            outcome, _ = caller.call(self.encode_key(contract.unknown_key()), 0)
        finally:
            caller.close()
        explain(outcome, reader.last_status, self.url, contract.function)
        return outcome

    def notes(self) -> Iterator[str]:
        """What was chosen to be called, where there was a choice, and how many calls were made again."""
        yield from self._codec.notes
        yield from made_again(self._tried_again)

    def close(self) -> None:
        """Stop the PostgREST, where it is the target's own."""
        if self.postgrest is not None:
            self.postgrest.stop()

    def details(self, evidence: HttpEvidence | None = None) -> dict[str, Any]:
        """What a record keeps of the evidence, by default that since the last time it was asked, as JSON values."""
        evidence = evidence or self.evidence()
        return {
            "url": self.url,
            "postgrest": None if self.postgrest is None else asdict(self.postgrest.describe()),
            "checks": {name: {"passed": n, "failed": evidence.calls - n} for name, n in evidence.passed.items()},
            "statuses": {str(status): count for status, count in sorted(evidence.statuses.items())},
            "connections": evidence.connections,
        }

    def evidence(self) -> HttpEvidence:
        """What HTTP told of all calls since the last time this was asked, warm-up left out."""
        counters = [caller.take() for caller in self._callers]
        calls = sum(c.calls for c in counters)
        statuses: dict[int, int] = {}
        for each in counters:
            for status, count in each.statuses.items():
                statuses[status] = statuses.get(status, 0) + count
        passed = dict.fromkeys(CHECKS, calls)
        passed["status is 200"] -= sum(n for status, n in statuses.items() if status != 200)
        passed["has body"] -= sum(c.no_body for c in counters)
        passed["response time under 200 ms"] -= sum(c.slow for c in counters)
        passed["valid JSON"] -= sum(c.no_json for c in counters)
        ok = calls - sum(n for status, n in statuses.items() if status != 200)
        if ok:
            statuses[200] = ok
        self._callers = [caller for caller in self._callers if caller.alive]
        timing = _timing(b"".join(c.timing for c in counters))
        return HttpEvidence(calls, passed, statuses, sum(c.opened for c in counters), timing)

    def server_clock(self) -> ServerClock | None:
        """Find out what Server-Timing counts, by pauses of known length; None where there is no such header.

        For our own PostgREST, which serves such a pause.

        PostgREST 12.0 gives microseconds where milliseconds are due, and takes CPU time for elapsed time, that of all
        its requests together (https://github.com/PostgREST/postgrest/issues/3219).
        """
        wire, reader, counters = Wire(self._address), self._reader(), Counters()
        head = self._head(self._token, timed=True, function="pause")
        try:
            wire.open(_PROBE_TIMEOUT)
            elapsed = []
            for seconds in _PAUSES:
                started = time.monotonic()
                reader.read(wire.exchange(head, json_body({"seconds": seconds}), started), counters)
                elapsed.append(time.monotonic() - started)
        except (LostError, NotSentError) as error:
            raise HarnessError("PostgREST went away during the comparison.", tried=str(error)) from error
        finally:
            wire.close()
        figures = _timing(bytes(reader.timing))["transaction"]
        if len(figures) < len(_PAUSES):
            return None
        for unit in (1e-3, 1e-6):
            # Elapsed time is no shorter than the pause, and no longer than the caller waited.
            if all(p <= f * unit <= e for p, f, e in zip(_PAUSES, figures, elapsed, strict=True)):
                return ServerClock(unit, "wall time")
        # The CPU time of one transaction is some hundred microseconds, and well under ten milliseconds.
        return ServerClock(1e-6 if min(figures) >= 20 else 1e-3, "CPU time of the whole process")

    def _reader(self) -> JsonReader:
        return JsonReader(self.contract, self._codec, self._token, timed=False)

    def _head(self, token: Token, *, timed: bool, prefer: str | None = None, function: str | None = None) -> Head:
        """`timed` takes the function of the harness's own schema, by default the one between clock readings."""
        name = self._codec.function + (OVERLAP_SUFFIX if timed else "")
        path = f"{self._address.path}/rpc/{function or name}"
        headers = {
            "Host": self._address.netloc.rpartition("@")[2],
            "Authorization": f"Bearer {token.reveal()}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "pg-concurrency-harness",
        }
        if self._apikey:
            headers["apikey"] = token.reveal()
        schema = "harness" if timed else self._codec.schema
        if schema is not None:
            headers["Content-Profile"] = schema
        if prefer is not None:
            headers["Prefer"] = prefer
        return Head(path, headers)


class HttpCaller:
    """One client on its own connection. `send` and `receive` are the hot path."""

    began = 0

    def __init__(
        self, wire: Wire, head: Head, bodies: Sequence[tuple[bytes, bytes]], reader: JsonReader, database: str = ""
    ) -> None:
        """`database`: the DSN of the server behind our own PostgREST, which goes on when that is stopped."""
        self._wire = wire
        self._database = database
        self._head = head
        self._bodies = bodies
        self._reader = reader
        self._started = 0.0
        self._failure: Answer | None = None
        """What the call in flight comes to, where it could not be sent."""
        self._closed = False
        self._gave_up = False
        self._counters = Counters()

    def call(self, key: Any, variant: int) -> Answer:
        if not self.send(key, variant):
            return self._reader.failed("connection_lost", "the connection was closed", Effect.IN_DOUBT)
        received = self.receive()
        while received is None:
            received = self.receive()
        return self.read(received)

    def beside(self, first: Duplex) -> None:
        """Each connection counts for itself."""

    def fileno(self) -> int:
        return self._wire.fileno()

    def send(self, key: Any, variant: int) -> bool:
        if self._closed or (self._database and own.is_silent(self._database)):
            return False
        before, after = self._bodies[variant]
        self._counters.calls += 1
        self._gave_up = False
        self._started = started = time.monotonic()
        try:
            self._wire.send(self._head, before + key + after, started)
        except NotSentError as error:
            self._failure = self._reader.failed("not_sent", str(error), Effect.IN_DOUBT)
        except HarnessError as error:
            self._closed = True
            self._failure = self._reader.failed("connection_refused", error.tried, Effect.IN_DOUBT)
        return True

    def receive(self) -> http_wire.Response | Answer | None:
        counters = self._counters
        if self._failure is not None:
            failure, self._failure = self._failure, None
            counters.without_answer()
            return failure
        try:
            received = self._wire.receive()
        except LostError as error:
            counters.without_answer()
            code = TIMEOUT if self._gave_up else "connection_lost"
            return self._reader.failed(code, str(error), Effect.IN_DOUBT)
        if received is not None and time.monotonic() - self._started >= _SLOW:
            counters.slow += 1
        return received

    def read(self, received: http_wire.Response | Answer) -> Answer:
        if isinstance(received, http_wire.Response):
            return self._reader.read(received, self._counters)
        return received

    def begin(self) -> bool:
        """False: each HTTP call is a transaction of its own."""
        return False

    def end(self, *, commit: bool) -> bool | None:
        return False

    @property
    def alive(self) -> bool:
        """A cut connection is opened again by the next call, as an application would; one that is refused ends it."""
        return not self._closed

    def cancel(self) -> None:
        """Give up the answer: HTTP knows no other way. The server may go on, so the call ends in doubt."""
        self._gave_up = True
        self._wire.shut()

    def abort(self) -> None:
        self._closed = True
        self._wire.shut()

    def close(self) -> None:
        self._closed = True
        self._wire.close()

    def warm(self, head: Head, key: bytes) -> None:
        """Call with a head that asks for a roll-back, and forget what came back."""
        mine, self._head = self._head, head
        for _ in range(_WARM_UPS):
            outcome, _ = self.call(key, 0)
            if outcome.effect in (Effect.FAILED, Effect.IN_DOUBT):
                break
        self._head = mine
        self._counters = Counters()
        self._reader.timing.clear()

    def take(self) -> Counters:
        """The counters since the last time this was asked."""
        taken, self._counters = self._counters, Counters()
        taken.timing, self._reader.timing = self._reader.timing, bytearray()
        taken.opened = self._wire.opened
        return taken


def _timing(lines: bytes) -> dict[str, array[float]]:
    found = {part: array("d") for part in PARTS}
    for part, figure in re.findall(rb"(\w+);dur=([0-9.]+)", lines):
        column = found.get(part.decode())
        if column is not None:
            column.append(float(figure))
    return found


def _microseconds(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)


_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""Postgres's own, so that spans of both targets are on one scale."""
