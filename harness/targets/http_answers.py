"""What came through PostgREST, as an outcome: the body's JSON decides, its error code, and the status last."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any
from uuid import UUID

from harness.contracts.contract import (
    BROKEN_ANSWER,
    FAILED,
    IN_DOUBT,
    Contract,
    Effect,
    Function,
    Outcome,
    hashable,
)
from harness.environment.postgrest import Token
from harness.errors import UsageError
from harness.history import LONG
from harness.targets import http_wire
from harness.targets.codec import TIMING
from harness.targets.description import ROW, CallDescription, split_name
from harness.targets.target import Answer, decoded
from harness.targets.values import JSON_TYPES, json_text

_MOST_KNOWN = 10_000
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


class JsonReader:
    """Turns an answer into an outcome; each distinct answer is classified once per connection."""

    def __init__(self, contract: Contract, codec: JsonCodec, token: Token, *, timed: bool) -> None:
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

    def read(self, answer: http_wire.Response, counters: Counters) -> Answer:
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
        if len(self._known) < _MOST_KNOWN and sum(len(each) for each in key if isinstance(each, str)) < LONG:
            self._known[key] = outcome
        return outcome


class JsonCodec:
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
                    next_step="let a function hold it, or measure it by SQL alone: harness run without --http",
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
        return json_body(self._plain(self._key, key))

    def decode_key(self, value: Any) -> Hashable:
        if self._types.get(self._key) in JSON_TYPES:
            return json_text(value)
        return hashable(self._decode_key(value))

    def body(self, arguments: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """The body up to the key, and what follows it."""
        others = json_body({name: self._plain(name, value) for name, value in arguments.items() if name != self._key})
        before = b"{%s:" % json_body(self._key)
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


def json_body(value: Any) -> bytes:
    """The value as the body of a request: what JSON has no form for as PostgreSQL reads it."""
    return json.dumps(value, default=_plain, separators=(",", ":"), ensure_ascii=False).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, (datetime, date, time_of_day)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return "\\x" + value.hex()
    return str(value)


def _same(value: Any) -> Any:
    return value


_decode = json.JSONDecoder().decode
