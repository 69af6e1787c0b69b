"""What a serial order gives: the answers and the state of its first run, each value marked by what its other runs say.

Where a result departs from it, and which columns could not be compared as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.verdict.matching import ExpectedRows, rows_match
from harness.verdict.observed import RAISED, SHOWN, Answer, Observed, SerialRun, Table, Unit, format_answer, format_row
from harness.verdict.values import (
    RANDOM,
    Chance,
    Clock,
    Generated,
    Mark,
    Parts,
    Plain,
    Renaming,
    Row,
    Sample,
    Spread,
    leaf_columns,
    mark,
    read_row,
)


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a result departs from a serial one. `unit` and `answer` say which answer; `table` says which table."""

    order: tuple[Unit, ...]
    unit: Unit | None = None
    answer: int = -1
    table: str = ""
    observed: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    state: bool = False
    """The final state departs from this order's, here or further on."""


def masked(orders: Iterable[Sequence[SerialRun]]) -> dict[tuple[str, Unit | None, int, str], str]:
    """Which columns could not be compared as they are, and what was done instead.

    A key is a table and a column of it, or a unit, the place of its statement, and a column of the answer.
    """
    found: dict[tuple[str, Unit | None, int, str], str] = {}
    for runs in orders:
        expected = Expected(runs)
        for unit, answers in expected.first.answers.items():
            for at, answer in enumerate(answers):
                for column, how in _masked_columns(expected.answer(unit, at), answer.columns):
                    found["", unit, at, column] = how
        for name, table in expected.first.state.items():
            for column, how in _masked_columns(expected.table(name), table.columns):
                found[name, None, -1, column] = how
    return found


def _masked_columns(rows: ExpectedRows, columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    for shape, marks in rows.rows:
        for place, each in zip(leaf_columns(shape), marks, strict=True):
            if not isinstance(each, Plain):
                yield columns[place] if place < len(columns) else "message", _how(each)


def _how(each: Mark) -> str:
    match each:
        case Clock():
            return "a time, not compared"
        case Spread():
            return "drifts with the clock, compared within its spread"
        case Parts(_, numbers):
            return _how(next((number for number in numbers if not isinstance(number, Plain)), Clock()))
        case Chance():
            return "chosen by chance, not the same when it is run again"
        case Generated(domain, _):
            return "random, renamed one to one" if domain == RANDOM else "generated, renamed one to one"
    return ""


class Expected:
    """What a serial order gives, with what its several runs say about each value."""

    def __init__(self, runs: Sequence[SerialRun]) -> None:
        self.runs = runs
        self.first = runs[0]

    def gives(self, observed: Observed, units: Sequence[Unit], renaming: Renaming, *, state: bool) -> bool:
        """Whether the units answered so, and, if asked, whether the final state is this one."""
        pieces: list[tuple[ExpectedRows, list[Row]]] = []
        for unit in units:
            expected, answers = self.first.answers[unit], observed.answers[unit]
            if len(expected) != len(answers):
                return False
            for at, (wanted, answer) in enumerate(zip(expected, answers, strict=True)):
                if not _tags_alike(wanted, answer):
                    return False
                pieces.append((self.answer(unit, at), _rows_of(answer)))
        if state:
            if self.first.state.keys() != observed.state.keys():
                return False
            for name, table in observed.state.items():
                pieces.append((self.table(name), [read_row(row, table.types) for row in table.rows]))
        return rows_match(pieces, renaming)

    def answers_alike(self, answer: Answer, unit: Unit, at: int, renaming: Renaming) -> bool:
        """Whether one answer of a unit, by its place, is what is expected there."""
        if not _tags_alike(self.first.answers[unit][at], answer):
            return False
        return rows_match([(self.answer(unit, at), _rows_of(answer))], renaming)

    def departures(self, observed: Observed, order: tuple[Unit, ...], renaming: Renaming) -> Iterator[Difference]:
        """Where a result departs from this order: each answer and table on its own, then all of them together."""
        found = False
        for unit in order:
            expected, answers = self.first.answers[unit], observed.answers[unit]
            for at, answer in enumerate(answers):
                wanted = expected[at] if at < len(expected) else Answer(command="(nothing)")
                if at >= len(expected) or not self.answers_alike(answer, unit, at, renaming):
                    found = True
                    yield Difference(order, unit, at, "", format_answer(answer), format_answer(wanted))
                    break  # what follows in this unit follows from it
        for name, table in observed.state.items():
            known = self.first.state.get(name)
            rows = [read_row(row, table.types) for row in table.rows]
            if known is None or not rows_match([(self.table(name), rows)], renaming):
                found = True
                extra, missing = _unlike(table, known)
                yield Difference(order, None, -1, name, extra, missing)
        if not found:
            yield Difference(order, None, -1, "", ("generated values that cannot be renamed one to one",), ())

    def has(self, kind: type[Mark]) -> bool:
        """Whether something in this order is marked so."""
        answers = (self.answer(unit, at) for unit, given in self.first.answers.items() for at in range(len(given)))
        return any(
            isinstance(each, kind) or (isinstance(each, Parts) and any(isinstance(n, kind) for n in each.numbers))
            for rows in (*answers, *map(self.table, self.first.state))
            for _, marks in rows.rows
            for each in marks
        )

    def answer(self, unit: Unit, at: int) -> ExpectedRows:
        """The rows of one answer of a unit, by its place, each value marked by what it is in the other runs."""
        place = f"answer {unit[0]} {unit[1]} {at}"
        runs = [r for r in self.runs if len(r.answers[unit]) > at]
        samples = [(_rows_of(run.answers[unit][at]), run) for run in runs]
        return ExpectedRows(place, self.first.answers[unit][at].ordered, _marked(samples, place))

    def table(self, name: str) -> ExpectedRows:
        """The final rows of a table, each value marked by what it is in the other runs."""
        runs = [run for run in self.runs if name in run.state]
        samples = [([read_row(r, run.state[name].types) for r in run.state[name].rows], run) for run in runs]
        return ExpectedRows(name, False, _marked(samples, name))


def _rows_of(answer: Answer) -> list[Row]:
    if answer.code is not None:
        # What a function raises is what it says; of other errors the code is.
        return [read_row([answer.message or ""], [25])] if answer.code == RAISED else []
    return [read_row(row, answer.types) for row in answer.rows]


def by_structure(runs: Sequence[SerialRun]) -> dict[object, list[SerialRun]]:
    """The runs by what they come to, but for values: chance may make rows of another shape."""
    kinds: dict[object, list[SerialRun]] = {}
    for run in runs:
        kinds.setdefault(_structure(run), []).append(run)
    return kinds


def _structure(run: SerialRun) -> object:
    """The same for runs that differ in values alone."""
    answers = [
        (unit, at, a.code, a.command, tuple(sorted(read_row(row, a.types).shape for row in a.rows)))
        for unit, given in run.answers.items()
        for at, a in enumerate(given)
    ]
    state = [
        (name, tuple(sorted((row[0] or "") + read_row(row, t.types).shape for row in t.rows)))
        for name, t in sorted(run.state.items())
    ]
    return tuple(answers), tuple(state)


def _tags_alike(one: Answer, other: Answer) -> bool:
    if one.code is not None or other.code is not None:
        return one.code == other.code
    return one.command == other.command and len(one.rows) == len(other.rows)


def _marked(samples: Sequence[tuple[list[Row], SerialRun]], place: str) -> tuple[tuple[str, tuple[Mark, ...]], ...]:
    """The first run's rows, each leaf marked by what it is in the others' rows that are most like it."""
    first, run = samples[0]
    aligned: list[list[tuple[Row, SerialRun]]] = [[(row, run)] for row in first]
    for rows, other in samples[1:]:
        if Counter(row.shape for row in rows) != Counter(row.shape for row in first):
            continue  # it went otherwise with other numbers, and says nothing of these
        if rows == first:
            for each, row in zip(aligned, rows, strict=True):
                each.append((row, other))
            continue
        left = list(rows)
        for each in aligned:
            best = max(left, key=lambda row: _likeness(row, each[0][0]))
            left.remove(best)
            each.append((best, other))
    found = []
    for each in aligned:
        head = each[0][0]
        marks = tuple(
            mark(leaf.kind, [Sample(row.leaves[at].text, r.shifts, r.at) for row, r in each], f"{place}.{at}")
            for at, leaf in enumerate(head.leaves)
        )
        found.append((head.shape, marks))
    return tuple(found)


def _likeness(one: Row, other: Row) -> tuple[bool, int]:
    alike = one.shape == other.shape
    return alike, sum(a.text == b.text for a, b in zip(one.leaves, other.leaves, strict=False)) if alike else 0


def _unlike(table: Table, known: Table | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The rows that only one of two states has, as text."""
    here = Counter(table.rows)
    there = Counter(known.rows if known is not None else ())
    return (
        tuple(format_row(table.columns, row) for row in (here - there).elements())[:SHOWN],
        tuple(format_row(table.columns, row) for row in (there - here).elements())[:SHOWN],
    )
