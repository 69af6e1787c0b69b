"""The contract of a function: how to call it, how to read its answer, and what must be true afterwards.

A contract is data and pure functions; nothing here knows a server. Another function needs another contract and no
change anywhere else.

Raw evidence comes first: a call's answer becomes an `Outcome` (a label with an effect) plus the answer's evidence
columns, and everything judged later is judged from those.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, Protocol


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


FAILED = "failed"
IN_DOUBT = "in_doubt"
NOT_REACHED = frozenset({"pool_timeout", "PGRST003"})
"""Codes of failed calls that never reached the function: no connection was free in time, in a pool or in PostgREST."""

TIMEOUT = "timeout"
"""Code of a call that was cancelled because its answer did not come within the limit for one call."""

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
    """A parameter of the function; `type` is Postgres's name of it, as `format_type` spells it."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the answer.

    `evidence` columns are kept for each operation (who won, when); the others decide the label, which is worked out
    once for each distinct combination of their values.
    """

    name: str
    type: str
    evidence: bool = False


@dataclass(frozen=True, slots=True)
class Function:
    """The function under test. `key` names the parameter that calls contend for."""

    name: str
    parameters: tuple[Parameter, ...]
    columns: tuple[Column, ...]
    key: str

    def __str__(self) -> str:
        parameters = ", ".join(f"{p.name} {p.type}" for p in self.parameters)
        columns = ", ".join(f"{c.name} {c.type}" for c in self.columns)
        return f"{self.name}({parameters}) RETURNS TABLE ({columns})"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to fill the other arguments; `arguments(client)` gives them by parameter name, without the key."""

    name: str
    arguments: Callable[[int], Mapping[str, Any]]


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


@dataclass(frozen=True)
class Contract:
    """What is right for one function."""

    name: str
    function: Function
    new_keys: str
    """SQL function that creates `count` fresh keys and returns them; the seed defines it."""
    unknown_key: Callable[[], Hashable]
    """A key that is not in the database."""
    variants: tuple[Variant, ...]
    labels: Mapping[str, Effect]
    """Every label `classify` may give, with its effect."""
    classify: Callable[[Mapping[str, Any]], str | None]
    """Label of one answer row, given its columns that are not evidence; None: the answer cannot be read."""
    model: Model
    claims: tuple[Claim, ...]
    invariants: Path
    """File of queries, each of which returns the rows that violate it (see `harness.verdict.invariants`)."""
    thresholds: Mapping[str, tuple[str, ...]]
    """Metric name -> expressions in k6's notation."""
    metrics: Mapping[str, frozenset[str]]
    """Name of a counter or rate -> the labels that count towards it."""
    duration_metric: str
    """Name of the trend that holds every call's duration."""
    error_metric: str
    """Name of the rate of calls that failed or stayed in doubt."""
    accepted: str
    """The label of a call that got what it asked for: what a lone call on a fresh key must return."""
    repeated: str
    """The label of a lone call on a key that is already used up."""
    missing: str
    """The label of a call on a key that is not there."""
    capacity: int = 1
    """How many calls one fresh key accepts before it is used up."""
    description: str = field(default="")

    def outcome(self, row: Mapping[str, Any]) -> Outcome:
        """Classify one answer row, given by its columns that are not evidence."""
        label = self.classify(row)
        if label is None:
            shown = ", ".join(f"{name}={value!r}" for name, value in row.items())
            return Outcome(FAILED, Effect.FAILED, BROKEN_ANSWER, f"unreadable answer: {shown}")
        return Outcome(label, self.labels[label])
