"""The serial judge: what happens together must be explainable by one after another. Pure: no SQL, no threads.

The result of an interleaving is *held* when some of its units, run one after another from the same baseline, give the
same answers and the same final state, and each unit left out said that it was busy, truthfully: with an answer that it
never gives one after another, about a table that one of the others touched. A result is *undecided* when it would be
held if an answer that looks like a no counted as busy, or if the unit were the transaction and nobody said which, or if
the only difference is a choice that the SQL leaves open. Everything else is *broken*.

This is serializability of the committed units in the sense of final state and answers (Papadimitriou, "The
serializability of concurrent database updates", 1979), not of reads and writes: an order that nobody can tell from a
serial one is one. The search goes along the observed answers (Wing and Gong, 1993): a prefix that answers otherwise is
not followed, and a unit that commutes with all others is taken as soon as it fits.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Protocol

from harness.verdict.findings import Truth
from harness.verdict.values import (
    CLOCKS,
    LIKE_UUID,
    RANDOM,
    Chance,
    Clock,
    Generated,
    Leaf,
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

Unit = tuple[int, int]
"""A session by its place, and one of its transactions; the second is -1 where the unit is the whole session."""

REPEATS = 6
"""Runs of each serial order before a result is called broken: a value that drifts with the clock needs a spread."""

MOST_STEPS = 20_000
"""Rows tried in one comparison; above that it is given up, and undecided."""

DEADLOCK = "40P01"
SERIALIZATION_FAILURE = "40001"
_IN_ABORTED = "25P02"
_UUID_LENGTH = 36
_RAISED = "P0001"


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


class Oracle(Protocol):
    """Gives serial runs, and remembers them."""

    def runs(self, order: tuple[Unit, ...], at_least: int = 1) -> Sequence[SerialRun]:
        """Runs of this order from the baseline, in order of time; more are made until there are so many.

        Raises TooManyError when it has had enough.
        """
        ...

    def beginning(self, order: tuple[Unit, ...]) -> tuple[Unit, ...] | None:
        """An order that was run and begins with this one, or is it; None where there is none."""
        ...

    def alike(self, order: tuple[Unit, ...]) -> tuple[Unit, ...] | None:
        """An order that was run in which the last unit of this one found all as it does here; None: not known."""
        ...

    def idle(self, order: tuple[Unit, ...]) -> bool:
        """Whether the last unit of an order, one that was run or begins one, is known to have changed nothing there."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """What the scenario and its SQL say about judging."""

    judge: str = ""
    """sessions, transactions, or nothing where no line says."""
    ordered: frozenset[str] = frozenset()
    """Sequences whose order the SQL looks at."""
    starts: Mapping[str, int] = field(default_factory=dict)
    """The last value of each sequence in the baseline."""
    reads: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """Tables that each session reads."""
    writes: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """Tables that each session writes."""
    chooses: bool = False
    """A statement chooses without an order: LIMIT without ORDER BY, random()."""
    gathers: bool = False
    """A statement puts rows one behind the other without an order: array_agg without ORDER BY."""
    most_runs: int = 400
    """Serial orders that one search may ask for where there are too many to make all of them."""

    def touched(self, unit: Unit) -> frozenset[str]:
        """The tables that a unit's session reads or writes."""
        return self.reads.get(unit[0], frozenset()) | self.writes.get(unit[0], frozenset())


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


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the judge says of one result."""

    truth: Truth
    why: str
    """held, deadlock, hung, a_no, transactions, choice, retries, unfinished, not_serial."""
    order: tuple[Unit, ...] = ()
    """The serial order that explains it, or would."""
    left_out: tuple[Unit, ...] = ()
    noes: Mapping[Unit, int] = field(default_factory=dict)
    """The answers that would have to be busy."""
    nearest: tuple[Difference, ...] = ()
    """Of the nearest serial orders, where each departs first."""


def judge(observed: Observed, sessions: Sequence[Sequence[int]], oracle: Oracle, rules: Rules) -> Judgement:
    """Judge one result. `sessions` gives, for each, the number of statements in each of its transactions.

    A red or open outcome is judged a second time after all serial orders that were asked for were run again.
    """
    first = _Judging(observed, sessions, oracle, rules)
    found = first.judged()
    if found.truth is Truth.HELD or found.why == "hung":
        return found
    try:
        for order in list(first.asked):
            # At least one more than there are: a spread must reach to this side of the result.
            more = len(oracle.runs(order)) + 1
            oracle.runs(order, max(REPEATS, more) if len(first.asked) <= _ALL_ORDERS else more)
    except TooManyError:
        return Judgement(Truth.UNDECIDED, "unfinished", nearest=found.nearest)
    return _Judging(observed, sessions, oracle, rules).judged()


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
        said = (named(answer.message) or "") if answer.code == _RAISED else ""
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


def masked(orders: Iterable[Sequence[SerialRun]]) -> dict[tuple[str, Unit | None, int, str], str]:
    """Which columns could not be compared as they are, and what was done instead.

    A key is a table and a column of it, or a unit, the place of its statement, and a column of the answer.
    """
    found: dict[tuple[str, Unit | None, int, str], str] = {}
    for runs in orders:
        expected = _Expected(runs)
        for unit, answers in expected.first.answers.items():
            for at, answer in enumerate(answers):
                for column, how in _masked_columns(expected.answer(unit, at), answer.columns):
                    found["", unit, at, column] = how
        for name, table in expected.first.state.items():
            for column, how in _masked_columns(expected.table(name), table.columns):
                found[name, None, -1, column] = how
    return found


def _masked_columns(rows: _Rows, columns: Sequence[str]) -> Iterator[tuple[str, str]]:
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


@dataclass(frozen=True, slots=True)
class Ease:
    """What may differ from a serial order, beyond what its runs allow; see Renaming's fields of these names."""

    loose: bool = False
    chance: bool = False
    gathered: bool = False


_STRICT = Ease()


class _Judging:
    """One look at one result."""

    def __init__(self, observed: Observed, sessions: Sequence[Sequence[int]], oracle: Oracle, rules: Rules) -> None:
        self.observed = observed
        self.sessions = sessions
        self.oracle = oracle
        self.rules = rules
        self.asked: dict[tuple[Unit, ...], None] = {}
        """Orders whose runs were looked at."""
        self.followed: set[tuple[Unit, ...]] = set()
        """Beginnings of orders that were compared."""
        self.unfinished = False

    def judged(self) -> Judgement:
        try:
            return self._judged()
        except TooManyError:
            return Judgement(Truth.UNDECIDED, "unfinished")

    def _judged(self) -> Judgement:
        if self.observed.hung:
            return Judgement(Truth.BROKEN, "hung")
        observed = self._by_transaction() if self.rules.judge == "transactions" else self.observed
        order = self._explained(observed, {})
        if order is not None:
            return Judgement(Truth.HELD, "held", order, tuple(u for u in observed.answers if u not in order))
        nearest = self._nearest(observed)
        if self.observed.used_up:
            return Judgement(Truth.UNDECIDED, "retries", nearest=nearest)
        if any(answer.code == DEADLOCK for answers in observed.answers.values() for answer in answers):
            return Judgement(Truth.BROKEN, "deadlock", nearest=nearest)
        noes = {unit: at for unit in observed.answers if (at := self._noes(observed, unit))}
        if noes and (order := self._explained(observed, noes)) is not None:
            left = {unit: at for unit, at in noes.items() if unit not in order}
            return Judgement(
                Truth.UNDECIDED, "a_no", order, tuple(left), {unit: min(at) for unit, at in left.items()}, nearest
            )
        if not self.rules.judge and any(len(lengths) > 1 for lengths in self.sessions):
            order = self._explained(self._by_transaction(), {})
            if order is not None:
                return Judgement(Truth.UNDECIDED, "transactions", order, nearest=nearest)
        for ease in self._eases():
            if (order := self._explained(observed, {}, ease)) is not None:
                return Judgement(Truth.UNDECIDED, "choice", order, nearest=nearest)
        if self.unfinished:
            return Judgement(Truth.UNDECIDED, "unfinished", nearest=nearest)
        return Judgement(Truth.BROKEN, "not_serial", nearest=nearest)

    def _eases(self) -> Iterator[Ease]:
        """What may differ where the SQL leaves a choice, the least first."""
        chance = any(self._expected(order).has(Chance) for order in list(self.asked))
        if chance or self.rules.gathers:
            yield Ease(chance=chance, gathered=self.rules.gathers)
        if self.rules.chooses:
            yield Ease(loose=True)

    def _by_transaction(self) -> Observed:
        """The result with its sessions' answers by transaction."""
        answers: dict[Unit, tuple[Answer, ...]] = {}
        busy: dict[Unit, frozenset[int]] = {}
        for (session, _), given in self.observed.answers.items():
            declared = self.observed.busy.get((session, -1), frozenset())
            at = 0
            for place, length in enumerate(self.sessions[session]):
                answers[session, place] = given[at : at + length]
                busy[session, place] = frozenset(b - at for b in declared if at <= b < at + length)
                at += length
        return Observed(answers, self.observed.state, busy)

    def _runs(self, order: tuple[Unit, ...]) -> Sequence[SerialRun]:
        runs = self.oracle.runs(order)
        if order in self.asked:
            return runs
        self.asked[order] = None
        if len(runs) < REPEATS and len(order) <= ALL_UP_TO and _Expected(runs).has(Spread):
            return self.oracle.runs(order, REPEATS)  # any two numbers are in order: that is no drift yet
        return runs

    def _explained(
        self, observed: Observed, noes: Mapping[Unit, Set[int]], ease: Ease = _STRICT
    ) -> tuple[Unit, ...] | None:
        """A serial order of some of the units that gives this result, with all others excused."""
        units = list(observed.answers)
        excusable = [u for u in units if observed.busy.get(u) or noes.get(u)]
        # Nobody left out, then everybody who may be: mostly it is one of these. Of many, mostly the second.
        likely = (0, len(excusable)) if len(units) <= ALL_UP_TO else (len(excusable), 0)
        sizes = dict.fromkeys((*likely, *range(1, len(excusable))))
        for size in sizes:
            if 0 < size < len(excusable) > _MOST_EXCUSED:
                self.unfinished = True
                return None
            for out in itertools.combinations(excusable, size):
                inside = [unit for unit in units if unit not in out]
                if not inside:
                    continue
                for order in self._orders(observed, inside, ease):
                    if all(self._excused(observed, unit, order, noes) for unit in out):
                        return order
                    if len(units) > ALL_UP_TO:
                        break  # another order of the same units hardly excuses anybody else
        return None

    def _orders(self, observed: Observed, inside: Sequence[Unit], ease: Ease) -> Iterator[tuple[Unit, ...]]:
        """Orders of these units that give their answers and the final state."""
        budget = self.rules.most_runs if len(inside) > ALL_UP_TO else None
        spent: set[tuple[Unit, ...]] = set()

        def follow(prefix: tuple[Unit, ...]) -> Iterator[tuple[Unit, ...]]:
            if len(prefix) == len(inside):
                if any(e.gives(observed, prefix, self._renaming(ease), state=True) for e in self._variants(prefix)):
                    yield prefix
                return
            idle: list[Unit] = []
            moved = False
            for unit in inside:
                if unit in prefix or any((unit[0], k) not in prefix for k in range(unit[1]) if (unit[0], k) in inside):
                    continue
                order = (*prefix, unit)
                if budget is not None and order not in self.followed and len(spent) >= budget:
                    self.unfinished = True
                    return
                spent.add(order)
                self.followed.add(order)
                rest = [u for u in inside if u not in order]
                if not self._begun(order, rest).gives(observed, order, self._renaming(ease), state=False):
                    continue
                if budget is not None and unit[1] < 0 and self.oracle.idle(order):
                    idle.append(unit)
                    continue
                moved = True
                yield from follow(order)
                if budget is not None and self._commutes(unit, rest):
                    return  # it fits here and minds nobody's place: no other place is better
            if idle and not moved:
                # From here on nobody changes anything: in whatever order, each is told what it is told here.
                whole = (*prefix, *idle)
                if len(whole) == len(inside):
                    yield from (
                        o for o in [whole] if self._expected(o).gives(observed, o, self._renaming(ease), state=True)
                    )
                return
            for unit in idle:
                yield from follow((*prefix, unit))

        yield from follow(())

    def _commutes(self, unit: Unit, others: Sequence[Unit]) -> bool:
        """Whether what a unit does is seen by none of the others: it writes nothing that they touch."""
        writes = self.rules.writes.get(unit[0])
        if writes is None:
            return False
        return all(u[0] != unit[0] and not writes & self.rules.touched(u) for u in others)

    def _renaming(self, ease: Ease) -> Renaming:
        ordered = self.rules.ordered if ease == _STRICT else frozenset()
        return Renaming(ordered, self.rules.starts, loose=ease.loose, chance=ease.chance, gathered=ease.gathered)

    def _expected(self, order: tuple[Unit, ...]) -> _Expected:
        return _Expected(self._runs(order))

    def _variants(self, order: tuple[Unit, ...]) -> Iterator[_Expected]:
        """What an order gives; where chance makes rows of another shape in some of many runs, those by themselves."""
        runs = self._runs(order)
        yield _Expected(runs)
        if len(runs) >= REPEATS:
            kinds = _by_structure(runs)
            if len(kinds) > 1:
                if min(map(len, kinds.values())) == 1:  # of one run alone nobody knows what chance made in it
                    kinds = _by_structure(self.oracle.runs(order, 2 * REPEATS))
                yield from map(_Expected, kinds.values())

    def _begun(self, order: tuple[Unit, ...], rest: Iterable[Unit] = ()) -> _Expected:
        """What is answered in the beginning of an order, of which one run tells as much as one of it alone.

        Where there is none, one is made that goes on with the `rest`: mostly it is asked for next. A session of several
        transactions stays open between them, so that what it keeps depends on whether it goes on.
        """
        if any(place >= 0 for _, place in order):
            return self._expected(order)
        known = self.oracle.beginning(order)
        if known is None and (other := self.oracle.alike(order)) is not None and other[: len(order) - 1] == order[:-1]:
            known = other
        return self._expected(known or (*order, *rest))

    def _excused(self, observed: Observed, unit: Unit, order: tuple[Unit, ...], noes: Mapping[Unit, Set[int]]) -> bool:
        """Whether a unit that is left out was busy with one of the order's, and cannot have meant anything else."""
        mine = self.rules.touched(unit)
        if mine and not any(mine & self.rules.touched(other) for other in order):
            return False
        places = observed.busy.get(unit, frozenset()) | noes.get(unit, frozenset())
        return any(not self._given_serially(observed, unit, at, order) for at in places)

    def _given_serially(self, observed: Observed, unit: Unit, at: int, order: tuple[Unit, ...]) -> bool:
        """Whether a unit gives this answer one after another, too: then it must be true, and excuses nothing."""
        answers = observed.answers[unit]
        for serial in self._orders_with(observed, unit, order):
            expected = self._begun(serial, [u for u in observed.answers if u[1] < 0 and u not in serial])
            if len(expected.first.answers[unit]) <= at:
                continue
            if expected.answers_alike(answers[at], unit, at, self._renaming(_STRICT)):
                return True
        return False

    def _orders_with(self, observed: Observed, unit: Unit, order: tuple[Unit, ...]) -> Iterator[tuple[Unit, ...]]:
        """The serial orders in which a unit's answer is looked up: all there are, or after each prefix of this one."""
        before = tuple((unit[0], place) for place in range(unit[1]))
        if len(observed.answers) <= ALL_UP_TO:
            others = [u for u in observed.answers if u != unit]
            for size in range(len(others) + 1):
                for some in itertools.permutations(others, size):
                    if _in_program_order((*some, unit)):
                        yield (*some, unit)
            return
        for length in range(len(order) + 1):
            if length and not before and self.oracle.idle(order[:length]):
                continue  # as it is here, it was one place earlier
            prefix = tuple(u for u in order[:length] if u not in before)
            yield (*prefix, *before, unit)

    def _noes(self, observed: Observed, unit: Unit) -> frozenset[int]:
        """The answers of a unit that look like a no, and that it gives in no serial order that was asked for."""
        found = set()
        for at, answer in enumerate(observed.answers[unit]):
            if answer.code in (_IN_ABORTED, DEADLOCK):
                continue
            orders = [order for order in self.asked if unit in order]
            expected = [e for order in orders if len((e := self._expected(order)).first.answers[unit]) > at]
            if any(each.answers_alike(answer, unit, at, self._renaming(_STRICT)) for each in expected):
                continue
            if looks_like_no(answer, [each.first.answers[unit][at] for each in expected]):
                found.add(at)
        return frozenset(found)

    def _nearest(self, observed: Observed) -> tuple[Difference, ...]:
        """The two full orders that come nearest, each with the place where it departs first."""
        units = list(observed.answers)
        if len(units) <= ALL_UP_TO:
            for order in itertools.permutations(units):
                if _in_program_order(order):
                    self._runs(order)
        longest = max((len(order) for order in self.asked), default=0)
        scored: list[tuple[int, int, Difference]] = []
        for order in self.asked:
            if len(order) == longest and set(order) <= set(units):
                wrong = list(_Expected(self._runs(order)).departures(observed, order, self._renaming(_STRICT)))
                if wrong:
                    first = replace(wrong[0], state=any(each.table for each in wrong))
                    scored.append((len(wrong), len(scored), first))
        return tuple(difference for _, _, difference in sorted(scored)[:2])


_LONG = 5
"""Digits of a number that chance does not make twice: a shorter one may be there by accident."""

_MOST_EXCUSED = 8
"""Above so many who may be left out, not every choice among them is tried."""

ALL_UP_TO = 4
"""So many units have all their serial orders run; with more, orders are looked for along the answers."""

_ALL_ORDERS = 64
"""The serial orders of the non-empty subsets of so many units."""


def _in_program_order(order: Sequence[Unit]) -> bool:
    """Whether no transaction of a session comes before an earlier one."""
    last: dict[int, int] = {}
    for session, place in order:
        if last.get(session, -1) > place:
            return False
        last[session] = place
    return True


def looks_like_no(answer: Answer, serial: Sequence[Answer]) -> bool:
    """An error, no row, nothing changed, false, NULL, or a text that no serial order gives in this column."""
    if answer.code is not None or answer.changed == 0:
        return True
    if not answer.columns:
        return False
    if not answer.rows:
        return True
    known = {(at, row[at]) for each in serial for row in each.rows for at in range(len(row))}
    for row in answer.rows:
        for at, (value, type_) in enumerate(zip(row, answer.types, strict=True)):
            kind = None if value is None else read_row([value], [type_])
            if kind is None or any(leaf.kind == "bool" and leaf.text in ("f", "false") for leaf in kind.leaves):
                return True
            if any(leaf.kind == "text" for leaf in kind.leaves) and (at, value) not in known:
                return True
    return False


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of one answer or table as they are expected: a shape and a mark for each leaf."""

    place: str
    ordered: bool
    rows: tuple[tuple[str, tuple[Mark, ...]], ...]


class _Expected:
    """What a serial order gives, with what its several runs say about each value."""

    def __init__(self, runs: Sequence[SerialRun]) -> None:
        self.runs = runs
        self.first = runs[0]

    def gives(self, observed: Observed, units: Sequence[Unit], renaming: Renaming, *, state: bool) -> bool:
        """Whether the units answered so, and, if asked, whether the final state is this one."""
        pieces: list[tuple[_Rows, list[Row]]] = []
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
        return _match(pieces, renaming)

    def answers_alike(self, answer: Answer, unit: Unit, at: int, renaming: Renaming) -> bool:
        if not _tags_alike(self.first.answers[unit][at], answer):
            return False
        return _match([(self.answer(unit, at), _rows_of(answer))], renaming)

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
            if known is None or not _match([(self.table(name), rows)], renaming):
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

    def answer(self, unit: Unit, at: int) -> _Rows:
        place = f"answer {unit[0]} {unit[1]} {at}"
        runs = [r for r in self.runs if len(r.answers[unit]) > at]
        samples = [(_rows_of(run.answers[unit][at]), run) for run in runs]
        return _Rows(place, self.first.answers[unit][at].ordered, _marked(samples, place))

    def table(self, name: str) -> _Rows:
        runs = [run for run in self.runs if name in run.state]
        samples = [([read_row(r, run.state[name].types) for r in run.state[name].rows], run) for run in runs]
        return _Rows(name, False, _marked(samples, name))


def _rows_of(answer: Answer) -> list[Row]:
    if answer.code is not None:
        # What a function raises is what it says; of other errors the code is.
        return [read_row([answer.message or ""], [25])] if answer.code == _RAISED else []
    return [read_row(row, answer.types) for row in answer.rows]


def _by_structure(runs: Sequence[SerialRun]) -> dict[object, list[SerialRun]]:
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


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An expected row that is to be found among those in the slots; in an ordered answer it has its place."""

    slots: list[Row | None]
    shape: str
    marks: tuple[Mark, ...]
    fixed: int | None = None


def _match(pieces: Sequence[tuple[_Rows, list[Row]]], renaming: Renaming) -> bool:
    """Whether all observed rows can be paired with expected ones under one renaming. Leaves `renaming` as it was."""
    start = renaming.position()
    renaming.fixed = frozenset(
        each.leaf.text
        for expected, _ in pieces
        for _, marks in expected.rows
        for each in marks
        if isinstance(each, Plain)
        and (each.leaf.kind in ("text", "uuid") or (each.leaf.kind == "number" and len(each.leaf.text) >= _LONG))
    )
    todo: list[_Wanted] = []
    if renaming.gathered:
        pieces = [each for expected, rows in pieces for each in _scattered(expected, rows)]
    for expected, rows in pieces:
        if len(expected.rows) != len(rows):
            return False
        if expected.ordered:
            slots: list[Row | None] = list(rows)
            todo += [_Wanted(slots, shape, marks, at) for at, (shape, marks) in enumerate(expected.rows)]
            continue
        plain = Counter(row for row in rows)
        left = []
        for shape, marks in expected.rows:
            row = _as_row(shape, marks)
            if row is not None and plain[row] > 0:
                plain[row] -= 1
            else:
                left.append((shape, marks))
        slots = list(plain.elements())
        if len(slots) != len(left):
            return False
        if (
            left
            and not (renaming.loose or renaming.chance)
            and all(_as_row(*each) is not None and not _floats(each[1]) for each in left)
        ):
            return False
        todo += [_Wanted(slots, shape, marks) for shape, marks in left]
    try:
        return _place(todo, renaming)
    finally:
        renaming.undo(start)


def _scattered(expected: _Rows, rows: list[Row]) -> Iterator[tuple[_Rows, list[Row]]]:
    """Rows without their arrays, and the elements of each column's arrays as rows of their own, which have no order."""
    wanted: dict[int, list[tuple[str, tuple[Mark, ...]]]] = {}
    found: dict[int, list[Row]] = {}
    kept: list[tuple[str, tuple[Mark, ...]]] = []
    for shape, marks in expected.rows:
        places = _gathered_columns(shape)
        kept.append(
            (shape, tuple(_shuffled(m) for m, at in zip(marks, leaf_columns(shape), strict=True) if at not in places))
        )
        for each, at in zip(marks, leaf_columns(shape), strict=True):
            if at in places:
                wanted.setdefault(at, []).append(("_", (each,)))
    left = []
    for row in rows:
        places = _gathered_columns(row.shape)
        columns = leaf_columns(row.shape)
        of_row = [_shuffled_leaf(leaf) for leaf, at in zip(row.leaves, columns, strict=True) if at not in places]
        left.append(Row(row.shape, tuple(of_row)))
        for leaf, at in zip(row.leaves, columns, strict=True):
            if at in places:
                found.setdefault(at, []).append(Row("_", (leaf,)))
    yield _Rows(expected.place, expected.ordered, tuple(kept)), left
    for at in sorted(wanted.keys() | found.keys()):
        yield _Rows(f"{expected.place}.{at}", False, tuple(wanted.get(at, ()))), found.get(at, [])


def _gathered_columns(shape: str) -> frozenset[int]:
    """The places of the columns that are arrays or JSON."""
    found = set()
    column = depth = 0
    for sign in re.sub(r'"(?:\\.|[^"\\])*"', "", shape):
        if sign in "{[" and depth == 0:
            found.add(column)
        depth += (sign in "{[(") - (sign in ")]}")
        column += sign == "," and depth == 0
    return frozenset(found)


def _shuffled(each: Mark) -> Mark:
    return Plain(_shuffled_leaf(each.leaf)) if isinstance(each, Plain) else each


def _shuffled_leaf(leaf: Leaf) -> Leaf:
    return Leaf(leaf.kind, "".join(sorted(leaf.text))) if leaf.kind == "text" else leaf


def _as_row(shape: str, marks: tuple[Mark, ...]) -> Row | None:
    """The row itself, where nothing in it may differ."""
    if all(isinstance(each, Plain) for each in marks):
        return Row(shape, tuple(each.leaf for each in marks if isinstance(each, Plain)))
    return None


def _floats(marks: tuple[Mark, ...]) -> bool:
    return any(isinstance(each, Plain) and each.leaf.kind == "float" for each in marks)


def _place(todo: Sequence[_Wanted], renaming: Renaming) -> bool:
    """Backtracking over which observed row is which expected one, without recursion: there may be many rows."""
    steps = 0
    placed: list[tuple[int, Row, int]] = []  # slot, the row that was in it, and how long the renaming was before it
    following = 0
    while len(placed) < len(todo):
        wanted = todo[len(placed)]
        for slot in (
            range(following, len(wanted.slots)) if wanted.fixed is None else ((wanted.fixed,) * (not following))
        ):
            row = wanted.slots[slot]
            if row is None:
                continue
            steps += 1
            if steps > MOST_STEPS:
                raise TooManyError
            before = renaming.position()
            if renaming.row(row, wanted.shape, wanted.marks):
                wanted.slots[slot] = None
                placed.append((slot, row, before))
                following = 0
                break
            renaming.undo(before)
        else:
            if not placed:
                return False
            slot, row, before = placed.pop()
            renaming.undo(before)
            todo[len(placed)].slots[slot] = row
            following = slot + 1
    return True


def _unlike(table: Table, known: Table | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The rows that only one of two states has, as text."""
    here = Counter(table.rows)
    there = Counter(known.rows if known is not None else ())
    return (
        tuple(_format_row(table.columns, row) for row in (here - there).elements())[:_SHOWN],
        tuple(_format_row(table.columns, row) for row in (there - here).elements())[:_SHOWN],
    )


_SHOWN = 5


def _format_row(columns: Sequence[str], row: Sequence[str | None]) -> str:
    return ", ".join(
        f"{name}={'NULL' if value is None else value[:80]}" for name, value in zip(columns, row, strict=False)
    )


def format_answer(answer: Answer) -> tuple[str, ...]:
    """An answer as lines of text: its rows, its command tag, or its error."""
    if answer.code is not None:
        return (f"error {answer.code}: {answer.message or ''}".rstrip(": "),)
    if answer.columns:
        lines = [_format_row(answer.columns, row) for row in answer.rows[:_SHOWN]]
        if len(answer.rows) > _SHOWN:
            lines.append(f"and {len(answer.rows) - _SHOWN} more rows")
        return tuple(lines) or ("no row",)
    return (answer.command,)
