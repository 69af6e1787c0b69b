"""Findings: one judged claim each, and the verdict they add up to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from harness.contracts.contract import Operation

SHOWN = 5
"""Violations kept as evidence for one finding; the count is always whole."""

SHOWN_OPERATIONS = 12
"""Operations kept of one violation."""


class Truth(Enum):
    """A claim that was not put to the test is undecided, not held."""

    HELD = "held"
    BROKEN = "broken"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Location:
    """What a claim is about, in the SQL; None where it is not known, as for a function that a DO block creates."""

    file: str | None = None
    """The file that defines the function, or the scenario's."""
    line: int | None = None
    """Line of the definition's first word, from 1."""
    function: str | None = None
    step: str | None = None
    """The statement or guard inside that the claim turns on."""

    def __str__(self) -> str:
        place = self.file if self.file is None or self.line is None else f"{self.file}:{self.line}"
        return ", ".join(part for part in (place, self.function, self.step) if part)


@dataclass(frozen=True, slots=True)
class Finding:
    """One judged claim. `id` is stable: reports, tests and CI may refer to it."""

    id: str
    claim: str
    truth: Truth
    observed: str
    limit: str = ""
    evidence: tuple[Mapping[str, Any], ...] = ()
    remedy: str = ""
    replay: str = ""
    """The command that repeats it; filled in for what is not held."""
    location: Location | None = None
    anomaly: str = ""
    """What it is in the field's words, such as lost update; empty where it has no name."""


def truth_of(findings: Iterable[Finding]) -> Truth:
    """Broken if one is broken, else undecided if one is undecided, else held. Nothing judged is undecided."""
    found = None
    for finding in findings:  # by identity: a hundred thousand hashes of an enum take as long as the rest of a report
        if finding.truth is Truth.BROKEN:
            return Truth.BROKEN
        found = Truth.UNDECIDED if Truth.UNDECIDED in (found, finding.truth) else Truth.HELD
    return found or Truth.UNDECIDED


def pluralize(number: int, thing: str) -> str:
    """`1 key`, `2 keys`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def format_operation(operation: Operation) -> dict[str, Any]:
    """An operation as evidence: what was asked, what was answered, and when, in milliseconds since the start."""
    outcome = operation.outcome
    answer = {
        "number": operation.number,
        "client": operation.client,
        "key": str(operation.key),
        "arguments": {name: None if value is None else str(value) for name, value in operation.arguments.items()},
        "called_ms": round(operation.called / 1e6, 3),
        "returned_ms": round(operation.returned / 1e6, 3) if outcome.effect.value != "in doubt" else None,
        "outcome": outcome.label,
        "answer": {name: None if value is None else str(value) for name, value in operation.answer.items()},
        "target": operation.target,
        "phase": operation.phase,
    }
    if outcome.code:
        answer["code"] = outcome.code
    if outcome.detail:
        answer["detail"] = outcome.detail
    if operation.held:
        answer["held_open"] = "rolled back" if operation.rolled_back else "committed"
    return answer


def flatten(values: Mapping[str, Any]) -> str:
    """`name=value, name=value`, without what is None."""
    return ", ".join(f"{name}={value}" for name, value in values.items() if value is not None)
