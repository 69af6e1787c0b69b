"""What was observed: of an interleaving or of a serial run, the answers of each unit and the final state of the tables.

Pure values, how they are told as text, and which of them are judged alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from harness.verdict.values import CLOCKS, LIKE_UUID

Unit = tuple[int, int]
"""A session by its place, and one of its transactions; the second is -1 where the unit is the whole session."""

DEADLOCK = "40P01"
SERIALIZATION_FAILURE = "40001"
RAISED = "P0001"
"""Of an exception that a function raises: its message is what the function says."""

_UUID_LENGTH = 36


@dataclass(frozen=True, slots=True)
class Answer:
    """What a session saw of one statement: rows and a command tag, or an SQLSTATE with its message."""

    columns: tuple[str, ...] = ()
    types: tuple[int, ...] = ()
    """OIDs."""
    rows: tuple[tuple[str | None, ...], ...] = ()
    """Values as the server's text."""
    command: str = ""
    """The command tag, such as `UPDATE 1`; nothing for an error."""
    code: str | None = None
    message: str | None = None
    ordered: bool = False
    """The statement says in which order its rows come."""

    @property
    def changed(self) -> int | None:
        """How many rows a command changed; None for what changes none."""
        words = self.command.split()
        return int(words[-1]) if words and words[0] in _CHANGING and words[-1].isdigit() else None


_CHANGING = ("INSERT", "UPDATE", "DELETE", "MERGE")


@dataclass(frozen=True, slots=True)
class Table:
    """A table's final state, or the rows in which it differs from the baseline, each then with a sign in front."""

    columns: tuple[str, ...]
    types: tuple[int, ...]
    rows: tuple[tuple[str | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Observed:
    """What came of one interleaving."""

    answers: Mapping[Unit, tuple[Answer, ...]]
    state: Mapping[str, Table]
    busy: Mapping[Unit, frozenset[int]] = field(default_factory=dict)
    """The answers, by their place in the unit, that the scenario declares busy."""
    hung: Mapping[Unit, str] = field(default_factory=dict)
    """Units that did not end, and whom they waited for."""
    used_up: frozenset[Unit] = frozenset()
    """Units whose retries were used up."""


@dataclass(frozen=True, slots=True)
class SerialRun:
    """One run of some units one after another."""

    answers: Mapping[Unit, tuple[Answer, ...]]
    state: Mapping[str, Table]
    shifts: Mapping[str, int] = field(default_factory=dict)
    """How far each sequence was set forward before it; those of the first run of an order are 0."""
    at: float = 0.0
    """Seconds from the beginning of the check to this run."""


class TooManyError(Exception):
    """There are more serial orders, or ways to pair rows, than can be tried: what is judged is undecided."""


def canonical(
    observed: Observed, is_now: Callable[[str], bool] = lambda _: False, constants: Set[str] | None = None
) -> object:
    """Equal for results that are judged alike: answers in order, rows of tables and of unordered answers as sets.

    `is_now` says of a time that it is a reading of the clock; such differ from result to result and mean nothing.
    `constants` are all UUIDs that were there before: any other one is made by chance, and is called by its place among
    them. None: it is not known, and each is taken as it is.
    """
    names: dict[str, str] = {}

    def named(value: str | None) -> str | None:
        if constants is None or value is None or len(value) < _UUID_LENGTH:
            return value
        return LIKE_UUID.sub(lambda m: m[0] if m[0] in constants else names.setdefault(m[0], f"#{len(names)}"), value)

    def plain(rows: Iterable[tuple[str | None, ...]], types: Sequence[int]) -> list[tuple[str | None, ...]]:
        clocks = [at for at, type_ in enumerate(types) if type_ in CLOCKS]
        found = list(rows)
        if clocks:
            found = [
                tuple("now" if at in clocks and v is not None and is_now(v) else v for at, v in enumerate(row))
                for row in found
            ]
        if constants is None:
            return found
        # In the order of what chance did not make: the names that chance's values get do not depend on them.
        found.sort(key=lambda row: [("", "") if v is None else (" ", LIKE_UUID.sub(_known, v)) for v in row])
        return [tuple(map(named, row)) for row in found]

    def _known(match: re.Match[str]) -> str:
        return match[0] if constants is not None and match[0] in constants else names.get(match[0], "")

    def of_answer(answer: Answer) -> object:
        if answer.ordered:
            rows = [row for each in answer.rows for row in plain([each], answer.types)]
        else:
            rows = plain(answer.rows, answer.types)
        said = (named(answer.message) or "") if answer.code == RAISED else ""
        return (
            answer.command,
            answer.code or "",
            said,
            tuple(rows) if answer.ordered else frozenset(Counter(rows).items()),
        )

    return (
        tuple((unit, tuple(map(of_answer, observed.answers[unit]))) for unit in sorted(observed.answers)),
        tuple((n, frozenset(Counter(plain(t.rows, t.types)).items())) for n, t in sorted(observed.state.items())),
        tuple(sorted(observed.busy.items())),
        tuple(sorted(observed.hung)),
        tuple(sorted(observed.used_up)),
    )


SHOWN = 5


def format_row(columns: Sequence[str], row: Sequence[str | None]) -> str:
    """A row as one line of text, each column with its value."""
    return ", ".join(
        f"{name}={'NULL' if value is None else value[:80]}" for name, value in zip(columns, row, strict=False)
    )


def format_answer(answer: Answer) -> tuple[str, ...]:
    """An answer as lines of text: its rows, its command tag, or its error."""
    if answer.code is not None:
        return (f"error {answer.code}: {answer.message or ''}".rstrip(": "),)
    if answer.columns:
        lines = [format_row(answer.columns, row) for row in answer.rows[:SHOWN]]
        if len(answer.rows) > SHOWN:
            lines.append(f"and {len(answer.rows) - SHOWN} more rows")
        return tuple(lines) or ("no row",)
    return (answer.command,)
