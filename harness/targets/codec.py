"""How a call's parameters are sent and its answer is read: binary where Postgres and Python agree on it, else text.

Each distinct answer is classified once per connection; evidence is kept as the bytes it came in, and decoded when the
run is judged.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from psycopg import pq
from psycopg.abc import Dumper
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, Format

from harness.contracts.contract import BROKEN_ANSWER, FAILED, IN_DOUBT, Contract, Effect, Outcome, hashable
from harness.errors import UsageError
from harness.history import LONG
from harness.targets.description import CallDescription, Typed, readable_binary
from harness.targets.target import Answer
from harness.targets.values import JsonText, Type, json_text, text_form

TIMING = ("harness_ended", "harness_transaction", "harness_started", "harness_seen")
"""The columns that overlap.sql adds after those of the function, in its order."""

_MOST_KNOWN = 10_000
"""Distinct answers remembered per connection; messages that hold an id would grow without end."""

_BYTEA = psycopg.adapters.types["bytea"].oid
_TUPLES_OK = int(ExecStatus.TUPLES_OK)
_Raw = tuple[bytes | None, ...]

_NATURAL: Mapping[int, tuple[type, ...]] = {
    psycopg.adapters.types[name].oid: kinds
    for name, kinds in {
        "bool": (bool,),
        "int2": (int,),
        "int4": (int,),
        "int8": (int,),
        "float8": (float,),
        "numeric": (Decimal,),
        "uuid": (UUID,),
        "text": (str,),
        "varchar": (str,),
        "bpchar": (str,),
        "date": (date,),
        "timestamp": (datetime,),
        "timestamptz": (datetime,),
        "bytea": (bytes, bytearray),
    }.items()
}
"""Types that are sent in binary, and the Python values that can be: any other value is sent as text."""

_UNFIT = (TypeError, ValueError, AttributeError, OverflowError, struct.error, psycopg.Error, RecursionError)
"""What the making of a parameter may raise for a value that is none of its type."""


class Codec:
    """Forms of the parameters and columns of one description."""

    def __init__(self, connection: psycopg.Connection[Any], description: CallDescription) -> None:
        self._transformer = Transformer(connection)
        self._adapters = connection.adapters
        self._dumpers: dict[int, Dumper] = {}
        self.description = description
        self.parameters = description.parameters
        self.key_at = description.key_at
        self.counter_at = description.counter_at
        self.parameter_oids = [each.kind.oid for each in self.parameters]
        self.key_type = self.parameters[self.key_at].kind
        self.key_format = Format.BINARY if self.key_type.base in _NATURAL else Format.TEXT
        self._load_key = self._transformer.get_loader(self.key_type.base, Format.BINARY).load
        self.result_format = Format.BINARY if description.binary else Format.TEXT
        self._label_loaders = [(each.name, self._loader(connection, each)) for each in description.labels]
        self._text_loaders = [
            (name, self._json_as_text if each.kind.is_json else load)
            for (name, load), each in zip(self._label_loaders, description.labels, strict=True)
        ]
        self.evidence_loaders = {each.name: self._loader(connection, each) for each in description.evidence}

    def encode(self, arguments: Mapping[str, Any], *, call: int = 1) -> tuple[list[Any], list[int]]:
        """All parameters in order, the key's place left empty, and the format of each.

        `call`: which one of the client's it is, where a parameter says so. Raises UsageError for a value that its
        parameter cannot take.
        """
        values: list[Any] = []
        formats: list[int] = []
        for at, parameter in enumerate(self.parameters):
            if at == self.key_at:
                values.append(None)
                formats.append(int(self.key_format))
                continue
            if at == self.counter_at:
                values.append(b"%d" % call)
                formats.append(int(Format.TEXT))
                continue
            value = arguments.get(parameter.name)
            try:
                encoded, form = self._encoded(value, parameter.kind)
            except _UNFIT as error:
                raise _unfit(parameter, value, error) from error
            values.append(encoded)
            formats.append(int(form))
        return values, formats

    def encode_key(self, key: Hashable) -> bytes:
        """Raises UsageError for a key that the parameter cannot take."""
        try:
            encoded, form = self._encoded(key, self.key_type)
            if form != self.key_format:
                # A text where the parameter is a uuid, say: read it as the type, and send that.
                loader = self._transformer.get_loader(self.key_type.base, Format.TEXT)
                encoded, form = self._encoded(loader.load(encoded or b""), self.key_type)
        except _UNFIT as error:
            raise _unfit(self.parameters[self.key_at], key, error) from error
        if encoded is None or form != self.key_format:
            raise _unfit(self.parameters[self.key_at], key, ValueError("it is not a value of the type"))
        return encoded

    def decode_key(self, raw: bytes) -> Hashable:
        """The key as the contract and the history have it."""
        if self.key_format is Format.BINARY:
            loaded: Hashable = self._load_key(raw)
            return loaded
        return raw.decode()

    def decode_labels(self, raw: _Raw, *, json_as_text: bool = False) -> dict[str, Any]:
        """The columns that decide a call's label, by name; JSON as text where it goes back to the server."""
        loaders = self._text_loaders if json_as_text else self._label_loaders
        return {name: None if value is None else load(value) for (name, load), value in zip(loaders, raw, strict=True)}

    def check(self, connection: psycopg.Connection[Any], variant: str, arguments: Mapping[str, Any]) -> None:
        """Have the server read the arguments of a variant once. Raises UsageError for one that it cannot read."""
        values, formats = self.encode(arguments)
        others = [at for at in range(len(values)) if at != self.key_at]
        if not others:
            return
        text = f"SELECT {', '.join(f'${number}' for number in range(1, len(others) + 1))}".encode()
        oids, forms = [self.parameter_oids[at] for at in others], [formats[at] for at in others]
        result = connection.pgconn.exec_params(text, [values[at] for at in others], oids, forms)
        if result.status != _TUPLES_OK:
            error = error_from_result(result)
            if (error.sqlstate or "").startswith("22"):
                shown = ", ".join(
                    f"{self.parameters[at].name}={arguments.get(self.parameters[at].name)!r}" for at in others
                )
                raise UsageError(
                    f"The server cannot read the arguments of the variant {variant!r} of {self.description.signature}.",
                    tried=f"{shown}: {error.diag.message_primary} (SQLSTATE {error.sqlstate})",
                    next_step="let Variant.arguments give values of the parameters' types",
                )

    def _encoded(self, value: Any, kind: Type) -> tuple[bytes | None, Format]:
        if value is None:
            return None, Format.TEXT
        natural = _NATURAL.get(kind.base, ())
        if isinstance(value, natural) and not (isinstance(value, bool) and bool not in natural):
            # By the parameter's type, not by the value's: an int must fill an int8 parameter with eight bytes.
            dumper = self._dumpers.get(kind.base)
            if dumper is None:
                made_by = self._adapters.get_dumper_by_oid(kind.base, Format.BINARY)
                dumper = self._dumpers[kind.base] = made_by(object, self._transformer.connection)
            dumped = dumper.dump(value)
            return (None if dumped is None else bytes(dumped)), Format.BINARY
        text = text_form(value, kind, self._adapted)
        return (None if text is None else text.encode()), Format.TEXT

    def _adapted(self, value: Any) -> str:
        dumped = self._transformer.get_dumper(value, PyFormat.TEXT).dump(value)
        return "" if dumped is None else bytes(dumped).decode()

    @staticmethod
    def _json_as_text(raw: bytes) -> JsonText:
        return JsonText(raw.removeprefix(b"\1").decode())  # jsonb's binary form begins with its version

    def _loader(self, connection: psycopg.Connection[Any], column: Typed) -> Callable[[Any], Any]:
        kind = column.kind
        if not self.description.binary:
            return self._transformer.get_loader(kind.base, Format.TEXT).load
        if readable_binary(connection, kind):
            return self._transformer.get_loader(kind.base, Format.BINARY).load
        # As description.py had it cast.
        name = "text" if kind.element is None else "text[]"
        oid = psycopg.adapters.types["text"].array_oid if name == "text[]" else psycopg.adapters.types["text"].oid
        return self._transformer.get_loader(oid, Format.BINARY).load


def plain_key(value: Any, kind: int | None = None) -> Hashable:
    """A key as the contract and the history have it; JSON, by its type's oid, is one text for one value."""
    if kind in (psycopg.adapters.types["json"].oid, psycopg.adapters.types["jsonb"].oid):
        return json_text(value)
    return hashable(value)


def _unfit(parameter: Typed, value: Any, error: BaseException) -> UsageError:
    return UsageError(
        f"The parameter {parameter.name} cannot take the value {value!r}.",
        tried=f"sending it as {parameter.kind.name}: {' '.join(str(error).split())}",
        next_step="give a value of its type: a list for an array, a tuple for a composite type, text for any",
    )


class Reader:
    """Turns a result into an outcome; each distinct answer is classified once per connection."""

    def __init__(self, contract: Contract, codec: Codec, layout: Sequence[str] | None = None, *, overlap: bool) -> None:
        """`layout`: the names of the columns that every answer is kept by; None: those of the description."""
        self._contract = contract
        self._codec = codec
        self._known: dict[Any, Outcome] = {}
        description = codec.description
        own = [each.name for each in description.evidence]
        wanted = (*description.labels, *description.evidence)
        self._timed = overlap and description.timed is not None
        self.labels = len(description.labels) + self._timed
        self.width = self.labels + len(own)
        names = own if layout is None else list(layout)
        # Where the contract is of several functions, each fills the columns that it has.
        self._places = None if names == own else [own.index(name) if name in own else None for name in names]
        self.nothing: _Raw = (None,) * len(names)
        self._no_evidence: _Raw = self.nothing + (None,) * (len(TIMING) * overlap)
        # Every column as the bytes it came in: one call into C for the whole row, and decoding waits until judgement.
        transformer = Transformer()
        came = self.width + len(TIMING) * self._timed if description.binary else len(description.columns)
        transformer.set_loader_types([_BYTEA] * came, Format.BINARY)
        # A statement's own columns, and a procedure's, come as they like.
        self._order = (
            None if description.binary else [description.columns.index(e.name) for e in wanted if description.rows]
        )
        self._set_result, self._load_row = transformer.set_pgresult, transformer.load_row

    @property
    def errors_are_answers(self) -> bool:
        """Whether the contract takes some errors for refusals: calls will end in them as a matter of course."""
        return bool(self._contract.errors)

    def read(self, result: pq.abc.PGresult, pgconn: pq.abc.PGconn) -> Answer:
        """The outcome of a result, and its evidence columns as they came."""
        if result.status != _TUPLES_OK or result.ntuples != 1:
            return self._unusual(result, pgconn)
        self._set_result(result, set_loaders=False)
        row = self._load_row(0, tuple)
        if self._order is not None:
            row = tuple([row[at] for at in self._order])
        key = row[: self.labels]
        outcome = self._known.get(key)
        if outcome is None:
            try:
                outcome = self._classified(key)
            except psycopg.DataError as error:
                return self.failed(BROKEN_ANSWER, f"unreadable answer: {error}")
            self._remember(key, outcome)
        evidence = row[self.labels :]
        return outcome, evidence if self._places is None else self._placed(evidence)

    def failed(self, code: str, detail: str, effect: Effect = Effect.FAILED) -> Answer:
        """A call without an answer: with this SQLSTATE or code, and why."""
        outcome = self._known.get((code, detail))
        if outcome is None:
            if effect is Effect.FAILED:
                outcome = self._contract.error_outcome(code, detail)
            else:
                outcome = Outcome(IN_DOUBT if effect is Effect.IN_DOUBT else FAILED, effect, code, detail)
            self._remember((code, detail), outcome)
        return outcome, self._no_evidence

    def lost(self, detail: str) -> Answer:
        """The connection died before the answer."""
        return self.failed("connection_lost", " ".join(detail.split()), Effect.IN_DOUBT)

    def _classified(self, key: _Raw) -> Outcome:
        if self._timed:
            if key[0] is None:
                return self._contract.no_row_outcome()
            key = key[1:]
        load = self._contract.declared
        later = load is not None and load.ask is None
        return self._contract.outcome(self._codec.decode_labels(key, json_as_text=later))

    def _placed(self, evidence: Sequence[Any]) -> Sequence[Any]:
        assert self._places is not None
        own = len(self._codec.description.evidence)
        kept = [None if at is None else evidence[at] for at in self._places]
        return (*kept, *evidence[own:])

    def _remember(self, key: Any, outcome: Outcome) -> None:
        if len(self._known) < _MOST_KNOWN and sum(len(value) for value in key if isinstance(value, bytes | str)) < LONG:
            self._known[key] = outcome

    def _unusual(self, result: pq.abc.PGresult, pgconn: pq.abc.PGconn) -> Answer:
        if result.status == _TUPLES_OK:
            if result.ntuples:
                return self.failed(BROKEN_ANSWER, f"{result.ntuples} rows instead of one")
            return self._contract.no_row_outcome(), self._no_evidence
        if result.status == ExecStatus.COMMAND_OK:
            return self._command(result)
        code = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()
        message = (result.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace")
        if pgconn.status != ConnStatus.OK:
            # Whatever the last words were: a commit may have happened before them.
            detail = message or result.get_error_message()
            return self.failed(code or "connection_lost", " ".join(detail.split()), Effect.IN_DOUBT)
        return self.failed(code or BROKEN_ANSWER, message or f"unexpected result {ExecStatus(result.status).name}")

    def _command(self, result: pq.abc.PGresult) -> Answer:
        """A statement without rows answers with how many it changed; a procedure without OUT parameters is silent."""
        changed = result.command_tuples
        key = ("command", changed)
        outcome = self._known.get(key)
        if outcome is None:
            row = {each.name: changed for each in self._codec.description.labels}
            outcome = self._contract.outcome(row)
            self._remember(key, outcome)
        return outcome, self._no_evidence


def milliseconds(seconds: float) -> int:
    """Seconds as whole milliseconds, at least one."""
    return math.ceil(seconds * 1000)
