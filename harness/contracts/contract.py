"""The contract of a function: how to call it, how to read its answer, and what must be true afterwards.

A contract is data and pure functions; nothing here knows a server. Another function needs another contract and no
change anywhere else.

Raw evidence comes first: a call's answer becomes an `Outcome` (a label with an effect) plus the answer's evidence
columns, and everything judged later is judged from those.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from harness.contracts.moved import Moved
from harness.environment.identity import Identity
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.contracts.declared import Load


class Effect(Enum):
    """What a call did to the database, as far as its answer tells."""

    APPLIED = "applied"
    REFUSED = "refused"
    FAILED = "failed"
    """An error: its transaction was rolled back."""
    IN_DOUBT = "in doubt"
    """The connection died before the answer: the call may have taken effect, now or later, or never."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A call's classified answer."""

    label: str
    effect: Effect
    code: str | None = None
    """SQLSTATE or PGRSTnnn of a failed call; a short word (`no_row`, `timeout`) where the server gave none."""
    detail: str | None = None

    @property
    def lost(self) -> bool:
        """Whether the environment took its answer: a connection, a backend, the server, or the end of the run.

        Nothing of that is the function's fault. That it took too long is.
        """
        return self.effect is Effect.IN_DOUBT and self.code != TIMEOUT


@dataclass(frozen=True, slots=True, eq=False)
class Answered(Outcome):
    """An answer that came and has not been read: what it means is SQL, which is put to the server after the load.

    Until then it counts as applied, so that a transaction that was held open and could not be committed has failed.
    """

    label: str = "answered"
    effect: Effect = Effect.APPLIED
    row: Mapping[str, Any] = field(default_factory=dict)


FAILED = "failed"
IN_DOUBT = "in_doubt"
NOT_REACHED = frozenset({"pool_timeout", "PGRST003"})
"""Codes of failed calls that never reached the function: no connection was free in time, in a pool or in PostgREST."""

TIMEOUT = "timeout"
"""Code of a call that was cancelled because its answer did not come within the limit for one call."""

OUT_OF_TIME = "out_of_time"
"""Code of a call that was given up because the time of its run was over."""

BROKEN_ANSWER = "broken_answer"
"""Code of an outcome whose answer came and could not be read (no row, two rows, NULL where a value is due)."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands in an answer for a value that Python cannot hold, such as an infinite time."""

    reason: str


def readable(outcome: Outcome, answer: dict[str, Any]) -> tuple[Outcome, dict[str, Any]]:
    """A call's outcome and evidence columns; where one of those cannot be read, it has failed and the value is None."""
    reasons = [f"{name}: {value.reason}" for name, value in answer.items() if type(value) is Unreadable]
    if not reasons:
        return outcome, answer
    failed = Outcome(FAILED, Effect.FAILED, BROKEN_ANSWER, f"unreadable answer: {', '.join(reasons)}")
    return failed, {name: None if type(value) is Unreadable else value for name, value in answer.items()}


class Operation(NamedTuple):
    """A call with its outcome and its times; times are nanoseconds since the start of the run."""

    number: int
    """Position in the history, counted from 0 in order of `called`."""
    client: int
    key: Hashable
    arguments: Mapping[str, Any]
    """Every argument but the key, by parameter name."""
    due: int
    """When the call should have started; equals `called` in a closed loop."""
    called: int
    returned: int
    """When the answer was there; for a held transaction, when that had ended."""
    outcome: Outcome
    answer: Mapping[str, Any]
    """The contract's evidence columns of the answer, by name; empty where no answer came."""
    phase: int
    """What part of the plan the call belongs to: a race's round, a rescan's pass; -1 for warm-up."""
    held: bool
    """Its transaction was kept open on purpose after the answer, so its duration says nothing."""
    rolled_back: bool
    """Its transaction was rolled back on purpose after the answer, so it has no effect."""
    target: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the function."""

    name: str
    """Its name, or `$1`, `$2`, ... for one without a name, by its place."""
    type: str | None = None
    """Postgres's name of its type, as `uuid` or `app.mood[]`; None: the server's. A given one chooses an overload."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the answer.

    `evidence` columns are kept for each operation (who won, when); the others decide the label, which is worked out
    once for each distinct combination of their values.
    """

    name: str
    """A function that returns one bare value answers with a column of its own name, or that of its OUT parameter."""
    type: str | None = None
    """Postgres's name of its type; None: the server's."""
    evidence: bool = False


@dataclass(frozen=True, slots=True)
class Function:
    """What is called: a function or a procedure by its name, or a statement of plain SQL.

    What is left out is as the server knows it. Values are those that psycopg gives for a type; where it knows none (an
    enum, a domain over one, citext, money, a composite type), they are text as the server spells it, and arrays of such
    are lists of texts.
    """

    name: str
    """Its name, with its schema where the search path does not lead there; of a statement, what reports call it."""
    parameters: tuple[Parameter, ...] = ()
    """Those that are given a value; the others need defaults. Empty: those that the variants and `key` name."""
    columns: tuple[Column, ...] = ()
    """Those of the answer that matter. Empty: all, each of which decides the label and is kept as evidence."""
    key: str = ""
    """The parameter that calls contend for."""
    statement: str | None = None
    """One statement of SQL in place of a function, in which `:name` stands for a parameter.

    One that returns no rows answers with the column `rows`: how many it inserted, updated or deleted.
    """
    deciding: frozenset[str] | None = None
    """Where `columns` is empty: names of those columns of the answer that decide the label; None: all do."""
    counter: str | None = None
    """The parameter whose value is how many calls the client has made, this one included; None: none is."""

    def __post_init__(self) -> None:
        """Raises UsageError where no parameter is the key."""
        if not self.key or (self.parameters and self.key not in {p.name for p in self.parameters}):
            names = ", ".join(p.name for p in self.parameters) or "none is declared"
            raise UsageError(
                f"The key of {self.name} is {self.key!r}, which is none of its parameters.",
                tried=f"parameters: {names}",
                next_step="let Function(key=...) name the parameter that concurrent calls contend for; where there is "
                "none (a queue's claim_next()), write a scenario, or a statement that names one: "
                "SELECT * FROM claim_next() WHERE :job::int > 0",
            )

    def __str__(self) -> str:
        def listed(entries: Iterable[Parameter | Column]) -> str:
            return ", ".join(f"{e.name} {e.type or ''}".rstrip() for e in entries)

        returns = f" RETURNS TABLE ({listed(self.columns)})" if self.columns else ""
        return f"{self.name}({listed(self.parameters)}){returns}"


@dataclass(frozen=True, slots=True)
class KeysQuery:
    """A query that makes keys, in place of a function of the seed: one column, and as many rows as it is asked for."""

    parts: tuple[str, ...]
    """Its text, cut where the count stands."""
    place: str
    """Where it stands, as `FILE:LINE`."""

    def __str__(self) -> str:
        return f"the query at {self.place}"

    def text(self, count: int) -> str:
        """The query for so many keys."""
        return str(count).join(self.parts)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to call: `arguments(client)` gives every argument but the key, by parameter name.

    It is asked once for each client, not for each call: whatever it makes up, such as a uuid4(), is the same in all of
    the client's calls. What must differ from call to call is the key.
    """

    name: str
    arguments: Callable[[int], Mapping[str, Any]]
    function: Callable[[int], Function] | None = None
    """Which function a client calls, where a contract is of several (reserve and cancel); None: the contract's."""


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An error by which the function says no: a refusal, and not a failed call."""

    sqlstate: str
    """The five characters of its SQLSTATE, as `P0001` for a plain RAISE EXCEPTION."""
    label: str
    """One of the contract's labels, whose effect is not `applied`: an error has rolled everything back."""
    message: str | None = None
    """Regular expression that the message must match somewhere, in any case of letters; None: whatever it says."""

    def __post_init__(self) -> None:
        """Raises UsageError for what is not an SQLSTATE, and a pattern that is no regular expression."""
        _check_sqlstate(self.sqlstate, f"ErrorAnswer({self.sqlstate!r}, {self.label!r})")
        try:
            re.compile(self.message or "")
        except re.error as error:
            raise UsageError(
                f"The message pattern {self.message!r} of ErrorAnswer({self.sqlstate!r}, ...) cannot be read.",
                tried=f"as a regular expression: {error}",
                next_step="put a backslash before what stands for itself, as re.escape does",
            ) from error

    def matches(self, code: str, message: str) -> bool:
        """Whether an error with that SQLSTATE and message is meant."""
        return code == self.sqlstate and (self.message is None or bool(re.search(self.message, message, re.IGNORECASE)))


@dataclass(frozen=True, slots=True)
class Retry:
    """On which errors a call is made again, as an application would: after a random pause, in a new transaction."""

    sqlstates: tuple[str, ...] = ("40001", "40P01")
    most: int = 5
    """Tries after the first; the last one's answer is the call's."""
    pause: float = 0.02
    """Longest pause before a try, in seconds."""

    def __post_init__(self) -> None:
        """Raises UsageError for what is not an SQLSTATE, and numbers that cannot be."""
        for each in self.sqlstates:
            _check_sqlstate(each, f"Retry(({each!r}, ...))")
        if self.most < 1 or not 0 <= self.pause < 60:
            raise UsageError(
                f"Retry(most={self.most}, pause={self.pause}) cannot be meant.",
                next_step="give 1 try or more, and a pause from 0 to 60 seconds",
            )


def _check_sqlstate(text: str, where: str) -> None:
    if not re.fullmatch("[0-9A-Z]{5}", text):
        raise UsageError(
            f"{text!r} in {where} is not an SQLSTATE.",
            next_step="give its five digits and capitals, as P0001 for a plain RAISE EXCEPTION",
        )


class Model(Protocol):
    """The sequential specification of one key, in the manner of Herlihy and Wing, "Linearizability", 1990.

    States are hashable values.
    """

    def initial(self, exists: bool) -> Hashable:
        """The state before the first call; `exists` is false for a key that was never created."""
        ...

    def step(self, state: Hashable, operation: Operation) -> tuple[Hashable, ...]:
        """The states the operation may leave when it takes effect at once in `state`; empty: its answer is illegal.

        For an operation in doubt: the states in case it did take effect. Failed operations are never asked.
        """
        ...


class KeyHistory(NamedTuple):
    """All operations on one key, in order of `called`, and what the plan expected of them."""

    key: Hashable
    exists: bool
    operations: Sequence[Operation]


class Violation(NamedTuple):
    """Operations (or rows) that break a claim, and why, in one sentence."""

    reason: str
    operations: tuple[Operation, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """A promise about the operations of one key; `judge` yields what breaks it and must be pure."""

    id: str
    statement: str
    remedy: str
    judge: Callable[[KeyHistory], Iterable[Violation]]
    concerns: str | None = None
    """The label of the only answers it speaks of: where none was given, a report says so."""
    naming: str | None = None
    """The evidence column that says what it is about: a report counts the answers that leave it empty."""


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What is right for one function."""

    name: str
    function: Function
    new_keys: str | KeysQuery
    """SQL function that creates `count` fresh keys and returns them; the seed defines it."""
    unknown_key: Callable[[], Hashable] = uuid.uuid4
    """A key that is not in the database. What is left at uuid4 goes by the type of the key: a negative number, say."""
    variants: tuple[Variant, ...] = (Variant("call", lambda client: {}),)  # noqa: ARG005
    """The ways to call it that runs vary over."""
    labels: Mapping[str, Effect] = field(
        default_factory=lambda: {"accepted": Effect.APPLIED, "refused": Effect.REFUSED, "missing": Effect.REFUSED}
    )
    """Every label `classify` may give, with its effect."""
    classify: Callable[[Mapping[str, Any]], str | None]
    """Label of one answer row, given its columns that are not evidence; None: the answer cannot be read."""
    model: Model
    """What calls one after another would answer: `harness.contracts.claims.UpTo(capacity)` for most."""
    claims: tuple[Claim, ...] = ()
    """Promises beyond the model: see `harness.contracts.claims`."""
    invariants: Path | None = None
    """File of queries, each of which returns the rows that violate it (see `harness.contracts.invariants`)."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What `:"name"` in the invariants stands for, by default: tables and columns that a project may call otherwise."""
    thresholds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Metric name -> expressions in k6's notation."""
    metrics: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Name of a counter or rate -> the labels that count towards it."""
    duration_metric: str = "duration"
    """Name of the trend that holds every call's duration."""
    error_metric: str = "errors"
    """Name of the rate of calls that failed or stayed in doubt."""
    accepted: str = "accepted"
    """The label of a call that got what it asked for: what a lone call on a fresh key must return."""
    repeated: str = "refused"
    """The label of a lone call on a key that is already used up."""
    missing: str = "missing"
    """The label of a call on a key that is not there; `accepted`, too, where a call makes its key (a rate limiter)."""
    detail: str | None = None
    """The column, of those that decide the label, that says why in words: kept with each refusal."""
    capacity: int = 1
    """How many calls one fresh key accepts before it is used up."""
    description: str = field(default="")
    no_row: str | None = None
    """The label of a call that gave no row; None: such a call has failed."""
    errors: tuple[ErrorAnswer, ...] = ()
    """Errors that are answers."""
    identity: Identity | Callable[[int], Identity] | None = None
    """As whom a client calls; None: as the owner of the scratch database, whom policies do not hold back."""
    retry: Retry | None = None
    """When a call is made again."""
    declared: Load | None = None
    """The file that the contract was made from, which says in SQL how answers are read; `classify` is not used then."""

    def __post_init__(self) -> None:
        """Raises UsageError for a declared answer that cannot be."""
        for label in (self.no_row, *(error.label for error in self.errors)):
            if label is not None and label not in self.labels:
                raise UsageError(
                    f"The contract {self.name} gives an answer the label {label!r}, which it does not have.",
                    next_step=f"add it to labels, or give one of {', '.join(self.labels)}",
                )
        for error in self.errors:
            if self.labels[error.label] is Effect.APPLIED:
                raise UsageError(
                    f"The contract {self.name} takes the error {error.sqlstate} for {error.label!r}, which is applied.",
                    next_step="give it a label whose effect is refused: an error has rolled everything back",
                )

    def function_of(self, variant: Variant, client: int) -> Function:
        """What a client calls in a variant."""
        return self.function if variant.function is None else variant.function(client)

    def identity_of(self, client: int) -> Identity | None:
        """As whom a client calls."""
        return self.identity(client) if callable(self.identity) else self.identity

    @property
    def texts(self) -> tuple[str, ...]:
        """What names what a run touches: the functions and statements that are called, and what makes keys."""
        calls = [self.function]
        queries: list[str | KeysQuery] = [self.new_keys]
        if self.declared is not None:
            calls += [call.function for call in self.declared.calls]
            queries += [] if self.declared.missing_keys is None else [self.declared.missing_keys]
        keys = [each.text(1) if isinstance(each, KeysQuery) else each for each in queries]
        return tuple(dict.fromkeys([*(each.statement or each.name for each in calls), *keys]))

    @property
    def of_fresh_keys(self) -> frozenset[str]:
        """The labels of calls on keys that are there, fresh or used up."""
        return frozenset(self.labels) - ({self.missing} - {self.accepted, self.repeated})

    def no_row_outcome(self) -> Outcome:
        """What a call comes to that gave no row."""
        if self.no_row is None:
            return Outcome(FAILED, Effect.FAILED, BROKEN_ANSWER, "no rows instead of one")
        return Outcome(self.no_row, self.labels[self.no_row], "no_row")

    def error_outcome(self, code: str, message: str) -> Outcome:
        """What a call comes to that ended in an error of the server."""
        for error in self.errors:
            if error.matches(code, message):
                return Outcome(error.label, self.labels[error.label], code, message)
        return Outcome(FAILED, Effect.FAILED, code, message)

    def outcome(self, row: Mapping[str, Any]) -> Outcome:
        """Classify one answer row, given by its columns that are not evidence."""
        if self.declared is not None:
            return self.declared.read(row)
        label = self.classify(row)
        if label is None or label not in self.labels:
            shown = ", ".join(f"{name}={value!r}" for name, value in row.items())
            why = "" if label is None else f" (classify gave {label!r}, which is none of the contract's labels)"
            return Outcome(FAILED, Effect.FAILED, BROKEN_ANSWER, f"unreadable answer: {shown}{why}")
        effect = self.labels[label]
        said = row.get(self.detail) if self.detail is not None and effect is Effect.REFUSED else None
        return Outcome(label, effect, None, None if said is None else str(said))

    def with_options(self, options: Mapping[str, str]) -> Contract:
        """The contract for a project that calls tables and columns otherwise. Raises UsageError for an unknown name."""
        if unknown := sorted(set(options) - set(self.names)):
            known = ", ".join(f"{name}={value}" for name, value in self.names.items()) or "none"
            raise UsageError(
                f"The contract {self.name} has no option {unknown[0]!r}.",
                tried=f"its options, with their defaults: {known}",
                next_step="give --contract-option NAME=VALUE with one of these names",
            )
        return replace(self, names={**self.names, **options})


def hashable(value: Any) -> Hashable:
    """A value as a key: lists as tuples, JSON objects and whatever else has no hash as text."""
    if isinstance(value, Mapping):
        return json.dumps(value, sort_keys=True, default=str)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return tuple(hashable(each) for each in value)
    try:
        hash(value)
    except TypeError:
        return str(value)
    return value  # type: ignore[no-any-return]


sys.modules[__name__].__class__ = Moved
