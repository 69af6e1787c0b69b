"""The serial judge agrees with a brute-force judge of the tests' own, and calls what that calls broken broken."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from harness.verdict.findings import Truth
from harness.verdict.observed import Answer, Observed, SerialRun, Table, Unit
from harness.verdict.serial import Rules, judge
from harness.verdict.values import leaf_columns, read_row
from tests import brute_force

INT, TEXT = 23, 25


def _answer(given: tuple[Any, ...]) -> Answer:
    match given:
        case ("row", kind, value):
            return Answer((kind,), (TEXT if kind == "text" else INT,), ((str(value),),), "SELECT 1")
        case ("changed", number):
            return Answer(command=f"UPDATE {number}")
        case ("error", code):
            return Answer(code=code, message="")
    raise AssertionError(given)


def _answers(outcome: brute_force.Outcome) -> dict[Unit, tuple[Answer, ...]]:
    return {unit: tuple(map(_answer, given)) for unit, given in outcome[0].items()}


def _state(outcome: brute_force.Outcome) -> dict[str, Table]:
    return {
        name: Table(("id", "n"), (INT, INT), tuple((str(key), str(value)) for key, value in rows))
        for name, rows in outcome[1]
    }


class _AsAsked:
    """Of an oracle of which nothing is known but what is asked for: each order is run by itself."""

    def beginning(self, order: tuple[Unit, ...]) -> tuple[Unit, ...] | None:
        return order

    alike = beginning

    def idle(self, order: tuple[Unit, ...]) -> bool:
        return not order


class _World:
    """The oracle of the little world: its serial runs, every second one with the ids set forward."""

    def __init__(self, sessions: brute_force.Sessions) -> None:
        self.sessions = sessions
        self.known: dict[tuple[Unit, ...], list[SerialRun]] = {}

    def runs(self, order: tuple[Unit, ...], at_least: int = 1) -> Sequence[SerialRun]:
        made = self.known.setdefault(order, [])
        while len(made) < max(at_least, 2):
            shift = 1000 * (len(made) % 2)
            outcome = brute_force.one_after_another(self.sessions, order, shift)
            made.append(SerialRun(_answers(outcome), _state(outcome), {"ids": shift}))
        return made

    def beginning(self, order: tuple[Unit, ...]) -> tuple[Unit, ...] | None:
        return next((known for known in self.known if known[: len(order)] == order), None)

    def alike(self, order: tuple[Unit, ...]) -> tuple[Unit, ...] | None:
        wanted = self._standing(order[:-1])
        found = (o for o in self.known if order[-1] in o and self._standing(o[: o.index(order[-1])]) == wanted)
        return next(found, None)

    def _standing(self, order: tuple[Unit, ...]) -> object:
        return brute_force.one_after_another(self.sessions, order, 0)[1]

    def idle(self, order: tuple[Unit, ...]) -> bool:
        return self._standing(order) == self._standing(order[:-1])


def _judged(
    sessions: brute_force.Sessions,
    outcome: brute_force.Outcome,
    *,
    busy: bool,
    judge_: str = "",
    on: Callable[[brute_force.Sessions], _World] | None = None,
    words: Sequence[str] = ("come back later", "55P03"),
) -> Truth:
    answers = _answers(outcome)
    declared = {
        unit: frozenset(at for at, each in enumerate(given) if busy and each[-1] in words)
        for unit, given in outcome[0].items()
    }
    touched = {number: frozenset(brute_force.tables(each)) for number, each in enumerate(sessions)}
    lengths = [[len(transaction) for transaction in each] for each in sessions]
    rules = Rules(judge=judge_, starts={"ids": brute_force.FIRST_ID}, reads=touched, writes=touched)
    observed = Observed(answers, _state(outcome), declared)
    return judge(observed, lengths, (on or _World)(sessions), rules).truth


def test_it_agrees_with_brute_force_over_random_transactions() -> None:
    """Over random interleavings of pairs and triples, 300 at least and 30 of each verdict, both judges say the same."""
    chance = random.Random(16)
    seen: Counter[str] = Counter()
    while seen.total() < 300 or min(seen[truth.value] for truth in Truth) < 30:
        sessions = brute_force.random_sessions(chance)
        turns, outcome = brute_force.interleave(sessions, chance)
        busy, judge_ = chance.random() < 0.3, chance.choice(("", "", "sessions", "transactions"))
        wanted = brute_force.verdict(sessions, outcome, busy=busy, judge=judge_)
        assert _judged(sessions, outcome, busy=busy, judge_=judge_).value == wanted, (sessions, turns, outcome, busy)
        seen[wanted] += 1


class _Plain(_AsAsked, _World):
    """The same, each order run by itself."""


def test_what_is_taken_from_longer_orders_and_idle_turns_changes_no_verdict() -> None:
    """Over random results of five sessions or six, with excuses: the verdict is that of orders run one by one."""
    chance = random.Random(11)
    seen: Counter[Truth] = Counter()
    while min(seen[truth] for truth in (Truth.HELD, Truth.BROKEN)) < 10:
        sessions: brute_force.Sessions = ()
        while len(sessions) < 5:
            sessions += tuple(each for each in brute_force.random_sessions(chance) if len(each) == 1)
        _, outcome = brute_force.interleave(sessions[:6], chance)
        words = ("come back later", "55P03", "sold out")  # the last is given one after another, too
        plain, quick = (_judged(sessions[:6], outcome, busy=True, on=on, words=words) for on in (_Plain, _World))
        assert quick is plain, (sessions, outcome)
        seen[plain] += 1


def test_a_right_result_that_is_changed_is_broken() -> None:
    """Of 50 results that hold, each change that no serial order explains is called broken, and no other is."""
    chance = random.Random(61)
    right = changed = broken = 0
    while right < 50:
        sessions = brute_force.random_sessions(chance)
        _, outcome = brute_force.interleave(sessions, chance)
        if brute_force.verdict(sessions, outcome, busy=True, judge="sessions") != "held":
            continue
        right += 1
        for mutant in chance.sample(mutants := brute_force.mutants(outcome), min(5, len(mutants))):
            wanted = brute_force.verdict(sessions, mutant, busy=True, judge="sessions")
            assert _judged(sessions, mutant, busy=True, judge_="sessions").value == wanted, (sessions, mutant)
            changed += 1
            broken += wanted == "broken"
    assert broken > changed / 2 > 100


def test_an_answer_that_is_also_given_one_after_another_excuses_nobody() -> None:
    """Sold out, declared busy, is a false refusal where nobody has bought; come back later is none."""
    buy = (("take", "a", 1),)
    sessions: brute_force.Sessions = (((("read", "a", 1, "x"),),), (buy,), (buy,))
    state = brute_force.new_world().state()
    for said, wanted in (("sold out", "broken"), ("come back later", "held")):
        answers = {
            (0, -1): (("row", "number", 1),),
            (1, -1): (("row", "text", said),),
            (2, -1): (("row", "text", said),),
        }
        observed = Observed(
            _answers((answers, state)), _state((answers, state)), {(1, -1): frozenset({0}), (2, -1): frozenset({0})}
        )
        touched = {number: frozenset("a") for number in range(3)}
        found = judge(observed, [[1], [1], [1]], _World(sessions), Rules(reads=touched, writes=touched))
        assert found.truth.value == wanted


class _Clock(_AsAsked):
    """An oracle whose one session is told milliseconds since some time, by a clock that goes on from run to run."""

    def __init__(self, first: float) -> None:
        self.now = first
        self.made: list[SerialRun] = []

    def runs(self, order: tuple[Unit, ...], at_least: int = 1) -> Sequence[SerialRun]:
        del order
        while len(self.made) < max(at_least, 2):
            self.made.append(SerialRun({(0, -1): _told(self.now)}, {}, {}, self.now))
            self.now += 0.01
        return self.made


def _told(now: float) -> tuple[Answer, ...]:
    return (Answer(("ms",), (20,), ((str(round(1_000_000 + now * 1000)),),), "SELECT 1"),)


def test_a_value_that_drifts_is_followed_back_to_a_result_that_is_older_than_all_runs() -> None:
    """An order may be run first after the result that it explains; what no clock can have shown is broken."""
    for seen, wanted in ((0.9, Truth.HELD), (0.2, Truth.HELD), (-1.5, Truth.BROKEN), (60.0, Truth.BROKEN)):
        observed = Observed({(0, -1): _told(seen)}, {})
        assert judge(observed, [(1,)], _Clock(1.0), Rules()).truth is wanted, seen


def test_keys_of_a_json_object_that_chance_made_are_values() -> None:
    """They are leaves, in an order that does not depend on them; words stay part of the shape."""
    made = [
        read_row([f'{{"n": 1, "{one}": "a", "{other}": "b"}}'], [3802])
        for one, other in (("7bbefe15-9b41-429c-befd-d61d43976d8d", "0e54b0fb-d6c9-4046-b5d4-d136ce737043"),
                           ("1bbefe15-9b41-429c-befd-d61d43976d8d", "8e54b0fb-d6c9-4046-b5d4-d136ce737043"))
    ]  # fmt: skip
    assert made[0].shape == made[1].shape
    assert [leaf.text for leaf in made[0].leaves][2::2] == ["a", "b"] == [leaf.text for leaf in made[1].leaves][2::2]
    assert leaf_columns(made[0].shape) == [0] * 5


class _Shop:
    """An oracle of sessions that each take the one seat, or are told that nothing was inserted."""

    def __init__(self) -> None:
        self.made: dict[tuple[Unit, ...], SerialRun] = {}

    def runs(self, order: tuple[Unit, ...], at_least: int = 1) -> Sequence[SerialRun]:
        answers = {unit: (Answer(command=f"INSERT 0 {int(unit == order[0])}"),) for unit in order}
        self.made[order] = SerialRun(answers, _seats([order[0]]))
        return [self.made[order]] * max(at_least, 2)

    def beginning(self, order: tuple[Unit, ...]) -> tuple[Unit, ...] | None:
        return next((known for known in self.made if known[: len(order)] == order), None)

    alike = beginning

    def idle(self, order: tuple[Unit, ...]) -> bool:
        return len(order) != 1


def _seats(winners: Sequence[Unit]) -> dict[str, Table]:
    return {"seats": Table(("change", "who"), (TEXT, INT), tuple(("+", str(who)) for who, _ in winners))}


def test_of_ten_sessions_that_change_nothing_not_every_order_is_tried() -> None:
    """Four of ten took the one seat: broken, in some orders more than there are sessions, and not given up."""
    for won, wanted in ((1, Truth.HELD), (4, Truth.BROKEN)):
        units = [(number, -1) for number in range(10)]
        answers = {unit: (Answer(command=f"INSERT 0 {int(unit[0] < won)}"),) for unit in units}
        shop = _Shop()
        found = judge(Observed(answers, _seats(units[:won])), [[1]] * 10, shop, Rules())
        assert found.truth is wanted
        assert len(shop.made) < 60


def test_what_is_chosen_by_chance_among_few_is_undecided_and_nothing_else_is() -> None:
    """Of runs that differ and agree by turns nothing follows; what stands beside it must still be as it is."""
    for n, wanted in (("7", Truth.UNDECIDED), ("8", Truth.BROKEN)):
        told = {(0, -1): (Answer(("die", "n"), (INT, INT), (("3", n),), "SELECT 1"),) * 2}
        assert judge(Observed(told, {}), [[2]], _Dice(), Rules()).truth is wanted


class _Dice(_AsAsked):
    """An oracle whose one session throws two dice."""

    def __init__(self) -> None:
        self.made = 2

    def runs(self, order: tuple[Unit, ...], at_least: int = 1) -> Sequence[SerialRun]:
        del order
        self.made = max(at_least, self.made)
        throws = [("1", "2"), ("4", "3"), ("1", "3"), ("2", "1"), ("4", "4"), ("2", "3"), ("1", "1")]
        return [
            SerialRun({(0, -1): tuple(Answer(("die", "n"), (INT, INT), ((t, "7"),), "SELECT 1") for t in both)}, {})
            for both in throws[: self.made]
        ]


def test_a_time_in_a_text_hides_nothing_beside_it() -> None:
    """A time is no part of the text; other figures are compared."""
    at = "2026-11-26 12:00:0{}.123456+00 there are {}"
    for n, wanted in ((5, Truth.HELD), (6, Truth.BROKEN)):
        oracle = _Lines([at.format(second, 5) for second in range(8)])
        told = {(0, -1): (Answer(("line",), (TEXT,), ((at.format(9, n),),), "SELECT 1"),)}
        assert judge(Observed(told, {}), [[1]], oracle, Rules()).truth is wanted


class _Lines(_AsAsked):
    """An oracle whose one session is told one line after the other."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines

    def runs(self, order: tuple[Unit, ...], at_least: int = 1) -> Sequence[SerialRun]:
        del order
        return [
            SerialRun({(0, -1): (Answer(("line",), (TEXT,), ((line,),), "SELECT 1"),)}, {})
            for line in self.lines[: max(at_least, 2)]
        ]


def test_what_some_runs_of_an_order_come_to_is_explained_by_it() -> None:
    """The first row by a random key is one or the other: both are explained, and a third thing is not."""
    for rows, wanted in (
        ([("+", "k9", "paid")], Truth.HELD),
        ([("-", "k0", "new"), ("+", "k0", "paid"), ("+", "k9", "new")], Truth.HELD),
        ([("-", "k0", "new"), ("+", "k0", "paid"), ("+", "k9", "paid")], Truth.BROKEN),
    ):
        found = judge(Observed({(0, -1): ()}, _first_by_key(rows)), [[0]], _FirstByKey(), Rules())
        assert found.truth is wanted, rows


def _first_by_key(rows: Sequence[tuple[str, str, str]]) -> dict[str, Table]:
    def key(text: str) -> str:
        return f"0000000{text[1]}-0000-4000-8000-000000000000"

    return {"t": Table(("change", "id", "state"), (TEXT, 2950, TEXT), tuple((s, key(k), v) for s, k, v in rows))}


class _FirstByKey(_AsAsked):
    """An oracle of an order in which one inserts a row by a random key, and one pays the first row by its key."""

    def __init__(self) -> None:
        self.made: list[SerialRun] = []

    def runs(self, order: tuple[Unit, ...], at_least: int = 1) -> Sequence[SerialRun]:
        while len(self.made) < max(at_least, 2):
            new = f"k{len(self.made) % 8 + 1}"
            rows = [("-", "k0", "new"), ("+", "k0", "paid"), ("+", new, "new")]
            if len(self.made) % 3 == 2:
                rows = [("+", new, "paid")]
            self.made.append(SerialRun(dict.fromkeys(order, ()), _first_by_key(rows)))
        return self.made
