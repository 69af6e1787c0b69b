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
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Protocol

from harness.verdict.expected import Difference, Expected, by_structure
from harness.verdict.findings import Truth
from harness.verdict.observed import DEADLOCK, Answer, Observed, SerialRun, TooManyError, Unit
from harness.verdict.values import Chance, Renaming, Spread, read_row

REPEATS = 6
"""Runs of each serial order before a result is called broken: a value that drifts with the clock needs a spread."""

_IN_ABORTED = "25P02"


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
        if len(runs) < REPEATS and len(order) <= ALL_UP_TO and Expected(runs).has(Spread):
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

    def _expected(self, order: tuple[Unit, ...]) -> Expected:
        return Expected(self._runs(order))

    def _variants(self, order: tuple[Unit, ...]) -> Iterator[Expected]:
        """What an order gives; where chance makes rows of another shape in some of many runs, those by themselves."""
        runs = self._runs(order)
        yield Expected(runs)
        if len(runs) >= REPEATS:
            kinds = by_structure(runs)
            if len(kinds) > 1:
                if min(map(len, kinds.values())) == 1:  # of one run alone nobody knows what chance made in it
                    kinds = by_structure(self.oracle.runs(order, 2 * REPEATS))
                yield from map(Expected, kinds.values())

    def _begun(self, order: tuple[Unit, ...], rest: Iterable[Unit] = ()) -> Expected:
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
                wrong = list(Expected(self._runs(order)).departures(observed, order, self._renaming(_STRICT)))
                if wrong:
                    first = replace(wrong[0], state=any(each.table for each in wrong))
                    scored.append((len(wrong), len(scored), first))
        return tuple(difference for _, _, difference in sorted(scored)[:2])


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
