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
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from harness.contracts.contract import (
    BROKEN_ANSWER,
    FAILED,
    IN_DOUBT,
    TIMEOUT,
    Contract,
    Effect,
    Function,
    Outcome,
    hashable,
)
from harness.environment.database import Database
from harness.environment.postgrest import DEFAULT_IMAGE, DEFAULT_POOL, PostgREST, Token, open_postgrest
from harness.environment.servers import Server, connect
from harness.errors import HarnessError, UsageError
from harness.sqltext import queries
from harness.targets import http_wire
from harness.targets.codec import TIMING
from harness.targets.description import ROW, CallDescription, Typed, describe, split_name
from harness.targets.http_wire import Head, LostError, NotSentError, Wire, address_of
from harness.targets.retrying import RetryingCaller, made_again
from harness.targets.target import Answer, Caller, Duplex, Span, decoded
from harness.targets.values import JSON_TYPES, json_text

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

_MOST_KNOWN = 10_000
_OVERLAP_SUFFIX = "_overlap"
NOT_JSON = "not_json"
"""Code of an outcome whose body is no JSON, so somebody else than PostgREST may have given it."""

# The database's side of the connection was lost, or is gone altogether: PGRST000 to 002 are PostgREST without a
# database, 57P01 to 57P05 a server that ends the session or takes none, 08 a broken connection. Most of these calls
# cannot have taken effect, but none has an answer of the function, and so none may be held against it.
# 12.0.2 gives an empty code for a connection that died under the call.
_DOUBTFUL = re.compile(r"PGRST00[012]|57P..|08...|")
_GATEWAY_STATUSES = frozenset({502, 504, 520, 521, 522, 524})
"""Without a code of PostgREST's own these come from a gateway, whose upstream may go on with the call."""

_DECODERS: Mapping[str, Callable[[Any], Any]] = {
    "uuid": UUID,
    "timestamp with time zone": datetime.fromisoformat,
    "timestamp without time zone": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time without time zone": time_of_day.fromisoformat,
    "numeric": lambda value: Decimal(str(value)),
    "bytea": lambda value: bytes.fromhex(value.removeprefix("\\x")),
}
"""From JSON to what psycopg gives for the same type; every other type is as JSON has it."""


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
        self._codec = _Codec(contract.function, description)
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
        reader = _Reader(self.contract, self._codec, token, timed=timed)
        caller = HttpCaller(wire, self._head(token, timed=timed), bodies, reader)
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
        _explain(outcome, reader.last_status, self.url, contract.function)
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
                reader.read(wire.exchange(head, _json({"seconds": seconds}), started), counters)
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

    def _reader(self) -> _Reader:
        return _Reader(self.contract, self._codec, self._token, timed=False)

    def _head(self, token: Token, *, timed: bool, prefer: str | None = None, function: str | None = None) -> Head:
        """`timed` takes the function of the harness's own schema, by default the one between clock readings."""
        name = self._codec.function + (_OVERLAP_SUFFIX if timed else "")
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

    def __init__(self, wire: Wire, head: Head, bodies: Sequence[tuple[bytes, bytes]], reader: _Reader) -> None:
        self._wire = wire
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
        if self._closed:
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

    def receive(self) -> http_wire.Answer | Answer | None:
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

    def read(self, received: http_wire.Answer | Answer) -> Answer:
        if isinstance(received, http_wire.Answer):
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


class Counters:
    """What one client counts beside its outcomes; what goes well is not counted but follows from `calls`."""

    __slots__ = ("calls", "no_body", "no_json", "opened", "slow", "statuses", "timing")

    def __init__(self) -> None:
        self.calls = self.opened = self.no_body = self.no_json = self.slow = 0
        self.statuses: dict[int, int] = {}
        """Status -> calls, of those that are not 200; 0: no answer."""
        self.timing = bytearray()
        """The Server-Timing headers as they came, each ended by a line feed."""

    def without_answer(self) -> None:
        """Count a call that got none."""
        self.statuses[0] = self.statuses.get(0, 0) + 1
        self.no_body += 1
        self.no_json += 1
        self.slow += 1


class _Reader:
    """Turns an answer into an outcome; each distinct answer is classified once per connection."""

    def __init__(self, contract: Contract, codec: _Codec, token: Token, *, timed: bool) -> None:
        self._contract = contract
        self._bare = codec.bare and not timed
        """The body is the one value itself."""
        self._void = codec.bare
        self._timed = timed
        self._labels = ((ROW,) if timed else ()) + codec.label_names
        self._evidence = codec.evidence_names + (TIMING if timed else ())
        self._columns = codec.label_names + codec.evidence_names
        self._no_evidence = (None,) * len(self._evidence)
        self._known: dict[tuple[Any, ...], Outcome] = {}
        self._token = token
        self.timing = bytearray()
        self.last_status = 0

    def read(self, answer: http_wire.Answer, counters: Counters) -> Answer:
        status, head, body, _ = answer
        if (at := head.find(b"\r\nserver-timing:")) >= 0:
            self.timing += head[at + 16 : head.index(b"\r\n", at + 16)]
            self.timing += b"\n"
        if status != b"200":
            self.last_status = number = int(status)
            counters.statuses[number] = counters.statuses.get(number, 0) + 1
        try:
            value = _decode(str(body, "utf-8"))
            if self._bare:
                value = {self._columns[0]: value}
            row = value[0] if type(value) is list and len(value) == 1 else value
            outcome = self._known.get(tuple([row[name] for name in self._labels]))
            evidence = [row[name] for name in self._evidence]
        except (ValueError, KeyError, TypeError, IndexError):
            return self._unusual(status, head, body, counters)
        if outcome is None:
            labels = {name: row[name] for name in self._labels}
            outcome = self._remember(tuple(labels.values()), self._classified(labels))
        return outcome, evidence

    def failed(self, code: str, detail: str, effect: Effect = Effect.FAILED, message: str | None = None) -> Answer:
        """`message`: the error's own, where the detail says more."""
        detail = self._token.redact(" ".join(detail.split()))
        known = self._known.get((code, detail, effect))
        if known is None:
            found = Outcome(IN_DOUBT if effect is Effect.IN_DOUBT else FAILED, effect, code, detail)
            if effect is Effect.FAILED and message is not None:
                found = replace(self._contract.error_outcome(code, message), detail=detail)
            known = self._remember((code, detail, effect), found)
        return known, self._no_evidence

    def _classified(self, labels: Mapping[str, Any]) -> Outcome:
        if not self._timed:
            return self._contract.outcome(labels)
        if labels[ROW] is None:
            return self._contract.no_row_outcome()
        return self._contract.outcome({name: value for name, value in labels.items() if name != ROW})

    def _unusual(self, status: bytes, head: bytes, body: bytes, counters: Counters) -> Answer:
        """Everything that is not one row with the columns asked for: the body's code decides, then the status."""
        number, content = int(status), body.decode(errors="replace").strip()
        readable = True
        if not body:
            counters.no_body += 1
        try:
            answer = _decode(content)
        except ValueError:
            counters.no_json += 1
            readable, answer = False, None
        if isinstance(answer, list) and len(answer) != 1 and 200 <= number < 300:
            if answer:
                return self.failed(BROKEN_ANSWER, f"{len(answer)} rows instead of one")
            return self._contract.no_row_outcome(), self._no_evidence
        row = answer[0] if isinstance(answer, list) and answer else answer
        if isinstance(row, dict) and all(column in row for column in self._columns):
            # A column that decides the label holds JSON: it cannot be a key of what is known.
            outcome = self._classified({name: row[name] for name in self._labels})
            return outcome, [row[name] for name in self._evidence]
        if number == 204 and self._void:
            return self._contract.outcome(dict.fromkeys(self._labels)), self._no_evidence
        if isinstance(answer, dict) and isinstance(answer.get("code"), str):
            return self._error(answer)
        if number in _GATEWAY_STATUSES:
            return self.failed(f"http_{number}", "a gateway lost sight of the call", Effect.IN_DOUBT)
        if 300 <= number < 400:
            at = head.find(b"\r\nlocation:")
            where = head[at + 11 : head.index(b"\r\n", at + 11)].decode(errors="replace").strip() if at >= 0 else "?"
            return self.failed(f"http_{number}", f"redirected to {where}; a call is never sent twice")
        shown = content if len(content) <= 120 else content[:117] + "..."
        if not readable:
            what = "HTML" if content[:1] == "<" else "no JSON"
            return self.failed(NOT_JSON, f"{what}, with status {number}: {shown or 'an empty body'}")
        if 200 <= number < 300:
            return self.failed(BROKEN_ANSWER, f"no row with the columns {', '.join(self._columns)}: {shown}")
        return self.failed(f"http_{number}", f"no error code of PostgREST: {shown}")

    def _error(self, answer: Mapping[str, Any]) -> Answer:
        code = answer["code"]
        detail = "; ".join(str(answer[part]) for part in ("message", "details", "hint") if answer.get(part))
        effect = Effect.IN_DOUBT if _DOUBTFUL.fullmatch(code) else Effect.FAILED
        return self.failed(
            code or "no_code", detail or "an error without a code", effect, str(answer.get("message") or "")
        )

    def _remember(self, key: tuple[Any, ...], outcome: Outcome) -> Outcome:
        if len(self._known) < _MOST_KNOWN:
            self._known[key] = outcome
        return outcome


class _Codec:
    """JSON forms of the function's parameters and columns."""

    def __init__(self, function: Function, description: CallDescription | None) -> None:
        """Raises UsageError for what no POST /rpc can call, and for a contract that leaves open what only the database
        could tell."""
        schema, self.function = split_name(function.name)
        self._key = function.key
        if description is None:
            if function.statement is not None or not function.columns:
                raise UsageError(
                    f"{function.name} cannot be called through an API alone.",
                    tried="the contract's Function: it is a statement, or names no columns",
                    next_step="name the columns of its answer, with their types, in the contract",
                )
            self._types = {p.name: p.type or "" for p in function.parameters}
            labels = [(c.name, c.type or "") for c in function.columns if not c.evidence]
            evidence = [(c.name, c.type or "") for c in function.columns if c.evidence]
            self.bare, self.notes = False, tuple[str, ...]()
        else:
            if description.oid is None or description.procedure:
                raise UsageError(
                    f"{function.name} is {'a procedure' if description.procedure else 'a statement'}: PostgREST calls "
                    "functions only.",
                    next_step="leave --http out, or let a function hold it",
                )
            self._types = {p.name: p.kind.name for p in description.parameters}
            labels = [(c.name, c.kind.name) for c in description.labels]
            evidence = [(c.name, c.kind.name) for c in description.evidence]
            schema = description.schema if description.schema != "public" else schema
            self.bare, self.notes = description.bare, tuple(description.notes())
        self.schema = schema
        self.label_names = tuple(name for name, _ in labels)
        self.evidence_names = tuple(name for name, _ in evidence)
        self._decode_key = _DECODERS.get(self._types.get(function.key, ""), _same)
        self._evidence_decoders = [_DECODERS.get(kind, _same) for _, kind in evidence]

    def encode_key(self, key: Hashable) -> bytes:
        return _json(self._plain(self._key, key))

    def decode_key(self, value: Any) -> Hashable:
        if self._types.get(self._key) in JSON_TYPES:
            return json_text(value)
        return hashable(self._decode_key(value))

    def body(self, arguments: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """The body up to the key, and what follows it."""
        others = _json({name: self._plain(name, value) for name, value in arguments.items() if name != self._key})
        before = b"{%s:" % _json(self._key)
        return before, b"}" if others == b"{}" else b"," + others[1:]

    def decode_evidence(self, column: int, raw: Sequence[Any]) -> Sequence[Any]:
        return decoded(self._evidence_decoders[column], raw, ValueError)

    def _plain(self, name: str, value: Any) -> Any:
        """JSON that a contract or a key holds as text goes into the body as what it is."""
        if isinstance(value, str) and self._types.get(name) in JSON_TYPES:
            try:
                return json.loads(value)
            except ValueError as error:
                raise UsageError(
                    f"The parameter {name} cannot take the value {value!r}.", tried=f"reading it as JSON: {error}"
                ) from error
        return value


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How PostgREST is served beside a server."""

    postgrest: str | None = None
    """The binary to run; None: the container beside a container server, else the fetched one, PATH, node_modules."""
    image: str = DEFAULT_IMAGE
    pool: int = DEFAULT_POOL
    """PostgREST's connections to the database."""
    pool_timeout: float = 10.0
    """Seconds that a request waits for one of them."""


def open_http(server: Server, database: Database, contract: Contract, options: HttpOptions) -> HttpTarget:
    """Serve a scratch database by a PostgREST of its own, and probe it by one call; closing the target ends it.

    The roles of Supabase must be there (`SupabaseRoles`). Raises HarnessError when there is no PostgREST to be had, it
    does not become ready, or it does not expose the function.
    """
    postgrest = open_postgrest(
        server,
        database,
        choice=options.postgrest,
        image=options.image,
        pool=options.pool,
        pool_timeout=options.pool_timeout,
    )
    # Before the start: PostgREST reads the schema once.
    description = _install(database.dsn, contract)
    postgrest.start()
    try:
        target = HttpTarget(
            postgrest.url,
            postgrest.token(),
            contract,
            rollback=True,
            overlap=True,
            postgrest=postgrest,
            description=description,
            token_of=None if contract.identity is None else lambda client: _token_of(contract, postgrest, client),
        )
        target.probe()
    except BaseException:
        postgrest.stop()
        raise
    return target


_SUPABASE = frozenset({"anon", "authenticated", "service_role"})


def _token_of(contract: Contract, postgrest: PostgREST, client: int) -> Token:
    """The token that makes a client's calls those of the contract's identity. Raises UsageError where none can."""
    identity = contract.identity_of(client)
    assert identity is not None
    if identity.isolation is not None or identity.settings:
        what = (
            "an isolation level" if identity.isolation is not None else f"the setting {next(iter(identity.settings))}"
        )
        raise UsageError(
            f"PostgREST gives a call no {what.partition(' ')[2]}: a token says the role and its claims.",
            tried=f"calls as {identity}",
            next_step=f"ALTER ROLE {identity.role or 'service_role'} SET ... in a migration, which PostgREST applies, "
            "or leave --http out",
        )
    role = identity.role or "service_role"
    if role not in _SUPABASE:
        postgrest.let_take(role)
    return postgrest.token(role, identity.claims)


def _install(dsn: str, contract: Contract) -> CallDescription:
    """Create `http_own.sql` in a scratch database; the description of the call there."""
    function = contract.function
    with connect(dsn) as connection:
        description = describe(connection, contract, function)
        if description.oid is None or description.procedure:
            return description
        columns = list(dict.fromkeys((*description.labels, *description.evidence)))
        of = [sql.SQL("g.") + sql.Identifier(c.name) for c in columns]
        query = sql.SQL(queries.text("harness.targets", "overlap.sql")).format(
            found=sql.SQL(", ").join(
                sql.SQL("f.") + sql.Identifier(name) for name in (ROW, *(c.name for c in columns))
            ),
            columns=sql.SQL(", ").join(of),
            call=sql.SQL(description.call),
            names=sql.SQL("({})").format(sql.SQL(", ").join(sql.Identifier(name) for name in description.columns)),
        )
        try:
            connection.execute(
                sql.SQL(queries.text("harness.targets", "http_own.sql")).format(
                    overlap=sql.Identifier(split_name(function.name)[1] + _OVERLAP_SUFFIX),
                    parameters=_declared(description.parameters),
                    columns=_declared(columns),
                    body=sql.Literal(query.as_string(connection)),
                )
            )
        except psycopg.Error as error:
            raise HarnessError(
                f"The function {function.name} is not as the contract expects it.",
                tried=f"a call of {function}: {' '.join(str(error).split())} (SQLSTATE {error.sqlstate})",
                next_step="check --migrations, or give the contract that the function follows with --contract",
            ) from error
    return description


def _declared(entries: Sequence[Typed]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(e.name) + sql.SQL(f" {e.kind.name}") for e in entries)


def _explain(outcome: Outcome, status: int, url: str, function: Function) -> None:
    """Raise HarnessError where an outcome shows a mistake of set-up; an error of the function itself is none."""
    if outcome.effect not in (Effect.FAILED, Effect.IN_DOUBT):
        return
    code, detail = outcome.code or "", outcome.detail or ""
    tried = f"POST {url}/rpc/{function.name.rpartition('.')[2]}: {status or 'no status'} {code}: {detail}"
    for prefix, what, next_step in _MISTAKES:
        if f"{code}: {detail}".startswith(prefix):
            raise HarnessError(what, tried=tried, next_step=next_step)


_WRONG_URL = (
    "check the address: a Supabase project's ends in /rest/v1, PostgREST's own has no path; it may need https, and a "
    "redirect is not followed because a call is never sent twice"
)
_MISTAKES = (
    ("PGRST202", "PostgREST does not expose the function.",
     "reload the schema cache if it is there (NOTIFY pgrst, 'reload schema'), or expose its schema (db-schemas)"),
    ("PGRST106", "PostgREST does not expose the function's schema.",
     "add the schema to db-schemas (in Supabase Settings > API > Exposed schemas)"),
    ("PGRST300", "PostgREST has no JWT secret.", "set jwt-secret"),
    ("PGRST301", "The token is not accepted.", "use a token that has not expired, signed with this server's secret"),
    ("PGRST303", "The token is not accepted.", "use a token that has not expired, signed with this server's secret"),
    ("PGRST302", "PostgREST takes no anonymous calls.", "give a service_role token"),
    ("PGRST", "PostgREST does not take the call.", "see its code at https://docs.postgrest.org/en/stable/references/errors.html"),
    ("42501", "The token's role may not do what the function does.",
     "use a service_role token, or GRANT the role the rights on the function and its tables"),
    ("22023: role ", "The token's role does not exist.", "use a token for a role of the database, as service_role"),
    ("http_401", "The gateway does not accept the token.", "use the project's own service_role key"),
    ("http_403", "The gateway does not accept the token.", "use the project's own service_role key"),
    ("http_", "There is no PostgREST behind the address.", _WRONG_URL),
    (NOT_JSON, "There is no PostgREST behind the address.", _WRONG_URL),
    ("connection_lost", "The connection was cut before the answer.", _WRONG_URL),
    ("not_sent", "The connection was cut before the call was sent.", _WRONG_URL),
)  # fmt: skip
"""Start of an outcome's code and detail, what it says of the set-up, what to do about it; the first that fits."""


def _timing(lines: bytes) -> dict[str, array[float]]:
    found = {part: array("d") for part in PARTS}
    for part, figure in re.findall(rb"(\w+);dur=([0-9.]+)", lines):
        column = found.get(part.decode())
        if column is not None:
            column.append(float(figure))
    return found


def _json(value: Any) -> bytes:
    return json.dumps(value, default=_plain, separators=(",", ":"), ensure_ascii=False).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, (datetime, date, time_of_day)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return "\\x" + value.hex()
    return str(value)


def _microseconds(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)


def _same(value: Any) -> Any:
    return value


_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""Postgres's own, so that spans of both targets are on one scale."""

_decode = json.JSONDecoder().decode
