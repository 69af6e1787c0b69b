"""A judge apart from the product, which it does not import: every subset, every order, every renaming, in plain Python.

Its little world has two tables of numbers by key, transactions of a few steps over them, and no concurrency control at
all, so that anything can go wrong. Steps: ("read", table, key, variable), ("write", table, key, variable, plus),
("add", table, key, number), ("insert", table, number), ("take", table, key) with a text for an answer, and
("lock", table, key), an error where somebody else holds it.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from typing import Any

Step = tuple[Any, ...]
Transaction = tuple[Step, ...]
FIRST_ID = 100


@dataclass
class World:
    tables: dict[str, dict[int, int]]
    next_id: int = FIRST_ID
    locks: dict[tuple[str, int], int] = field(default_factory=dict)

    def state(self) -> tuple[Any, ...]:
        return tuple((name, tuple(sorted(rows.items()))) for name, rows in sorted(self.tables.items()))


def new_world() -> World:
    return World({"a": {1: 1, 2: 5}, "b": {1: 2, 2: 7}})


@dataclass
class Actor:
    """One session on its way through its transactions."""

    number: int
    transactions: tuple[Transaction, ...]
    variables: dict[str, int] = field(default_factory=dict)
    at: tuple[int, int] = (0, 0)
    failed: bool = False

    @property
    def done(self) -> bool:
        return self.at[0] == len(self.transactions)

    def step(self, world: World) -> tuple[Any, ...]:
        transaction, place = self.at
        step = self.transactions[transaction][place]
        answer = ("error", "25P02") if self.failed else self._do(step, world)
        if answer == ("error", "55P03"):
            self.failed = True
        if place + 1 == len(self.transactions[transaction]):
            world.locks = {key: owner for key, owner in world.locks.items() if owner != self.number}
            self.at, self.failed = (transaction + 1, 0), False
        else:
            self.at = (transaction, place + 1)
        return answer

    def _do(self, step: Step, world: World) -> tuple[Any, ...]:
        kind, table = step[0], world.tables[step[1]]
        match kind:
            case "read":
                self.variables[step[3]] = table[step[2]]
                return ("row", "number", table[step[2]])
            case "write":
                table[step[2]] = self.variables.get(step[3], 0) + step[4]
                return ("changed", 1)
            case "add":
                table[step[2]] += step[3]
                return ("changed", 1)
            case "insert":
                world.next_id += 1
                table[world.next_id] = step[2]
                return ("row", "id", world.next_id)
            case "take":
                owner = world.locks.setdefault((step[1], step[2]), self.number)
                if owner != self.number:
                    return ("row", "text", "come back later")
                if table[step[2]] <= 0:
                    return ("row", "text", "sold out")
                table[step[2]] -= 1
                return ("row", "text", "yours")
            case "lock":
                if world.locks.setdefault((step[1], step[2]), self.number) != self.number:
                    return ("error", "55P03")
                return ("row", "number", table[step[2]])
        raise AssertionError(kind)


Sessions = tuple[tuple[Transaction, ...], ...]
Unit = tuple[int, int]
Outcome = tuple[dict[Unit, tuple[Any, ...]], tuple[Any, ...]]


def interleave(sessions: Sessions, chance: random.Random) -> tuple[list[int], Outcome]:
    """One random interleaving: who stepped when, and each session's answers with the final state."""
    world = new_world()
    actors = [Actor(number, transactions) for number, transactions in enumerate(sessions)]
    answers: dict[Unit, list[Any]] = {(number, -1): [] for number in range(len(sessions))}
    turns = []
    while going := [actor for actor in actors if not actor.done]:
        actor = chance.choice(going)
        turns.append(actor.number)
        answers[actor.number, -1].append(actor.step(world))
    return turns, ({unit: tuple(given) for unit, given in answers.items()}, world.state())


def one_after_another(sessions: Sessions, order: tuple[Unit, ...], shift: int = 0) -> Outcome:
    """The units of `order` alone, one after another; a unit (n, -1) is all of session n."""
    world = new_world()
    world.next_id += shift
    actors = [Actor(number, transactions) for number, transactions in enumerate(sessions)]
    answers: dict[Unit, tuple[Any, ...]] = {}
    for session, place in order:
        actor = actors[session]
        given = []
        if place >= 0:
            actor.at = (place, 0)
        while not actor.done and (place < 0 or actor.at[0] == place):
            given.append(actor.step(world))
        answers[session, place] = tuple(given)
    return answers, world.state()


def tables(transactions: tuple[Transaction, ...]) -> set[str]:
    return {step[1] for transaction in transactions for step in transaction}


def verdict(sessions: Sessions, observed: Outcome, *, busy: bool, judge: str) -> str:
    """held, undecided or broken. `busy`: the text "come back later" and the error 55P03 are declared."""
    if judge == "transactions":
        return _verdict(sessions, _split(sessions, observed), busy=busy)
    found = _verdict(sessions, observed, busy=busy)
    if found == "broken" and not judge and any(len(each) > 1 for each in sessions):
        finer = _split(sessions, observed)
        if _explained(sessions, finer, {u: _declared(a, busy) for u, a in finer[0].items()}):
            return "undecided"
    return found


def _split(sessions: Sessions, observed: Outcome) -> Outcome:
    answers = {}
    for number, transactions in enumerate(sessions):
        given = iter(observed[0][number, -1])
        for place, transaction in enumerate(transactions):
            answers[number, place] = tuple(next(given) for _ in transaction)
    return answers, observed[1]


def _declared(answers: tuple[Any, ...], busy: bool) -> set[int]:
    return {at for at, each in enumerate(answers) if busy and each[-1] in ("come back later", "55P03")}


def _verdict(sessions: Sessions, observed: Outcome, *, busy: bool) -> str:
    declared = {unit: _declared(answers, busy) for unit, answers in observed[0].items()}
    if _explained(sessions, observed, declared):
        return "held"
    serial = _serial_answers(sessions, observed)
    noes = {
        unit: {
            at
            for at, each in enumerate(answers)
            if each[0] == "error" or (each[1] == "text" and each[2] not in {s[2] for s in serial[unit, at]})
            if each[-1] != "25P02"
        }
        for unit, answers in observed[0].items()
    }
    both = {unit: declared[unit] | noes[unit] for unit in declared}
    return "undecided" if _explained(sessions, observed, both) else "broken"


def _explained(sessions: Sessions, observed: Outcome, excuses: dict[Unit, set[int]]) -> bool:
    serial = _serial_answers(sessions, observed)
    units = list(observed[0])
    for inside in _subsets(units):
        out = [unit for unit in units if unit not in inside]
        if not inside or not all(any(tables(sessions[u[0]]) & tables(sessions[i[0]]) for i in inside) for u in out):
            continue
        if not all(
            any(not any(_alike(observed[0][u][at], s) for s in serial[u, at]) for at in excuses[u]) for u in out
        ):
            continue
        for order in itertools.permutations(inside):
            if all(a[0] != b[0] or a[1] < b[1] for a, b in itertools.combinations(order, 2)):
                answers, state = one_after_another(sessions, order)
                if _same({u: observed[0][u] for u in inside}, observed[1], answers, state):
                    return True
    return False


def _subsets(units: list[Unit]) -> list[tuple[Unit, ...]]:
    return [some for size in range(len(units) + 1) for some in itertools.combinations(units, size)]


def _serial_answers(sessions: Sessions, observed: Outcome) -> dict[tuple[Unit, int], list[Any]]:
    found: dict[tuple[Unit, int], list[Any]] = {
        (unit, at): [] for unit, answers in observed[0].items() for at in range(len(answers))
    }
    for some in _subsets(list(observed[0])):
        for order in itertools.permutations(some):
            if all(a[0] != b[0] or a[1] < b[1] for a, b in itertools.combinations(order, 2)):
                for unit, answers in one_after_another(sessions, order)[0].items():
                    for at, each in enumerate(answers):
                        found[unit, at].append(each)
    return found


def _alike(one: Any, other: Any) -> bool:
    return one == other or (one[:2] == other[:2] == ("row", "id"))


def _same(answers: Any, state: Any, wanted: Any, wanted_state: Any) -> bool:
    """Equal under some one-to-one renaming of the ids that are new."""
    mine = sorted({key for _, rows in state for key, _ in rows if key > FIRST_ID})
    theirs = sorted({key for _, rows in wanted_state for key, _ in rows if key > FIRST_ID})
    if len(mine) != len(theirs):
        return False
    for renamed in itertools.permutations(theirs):
        names = dict(zip(mine, renamed, strict=True))
        there = tuple((t, tuple(sorted((names.get(k, k), v) for k, v in rows))) for t, rows in state)
        given = {
            unit: tuple(
                ("row", "id", names.get(each[2], -each[2])) if each[:2] == ("row", "id") else each for each in its
            )
            for unit, its in answers.items()
        }
        if there == wanted_state and given == wanted:
            return True
    return False


def random_sessions(chance: random.Random) -> Sessions:
    """Two or three sessions of one or two transactions of one to three steps."""

    def step() -> Step:
        table, key = chance.choice("aaab"), chance.choice((1, 1, 1, 2))
        return chance.choice(
            (
                ("read", table, key, "x"),
                ("read", table, key, "x"),
                ("write", table, key, "x", chance.choice((-1, 1, 3))),
                ("write", table, key, "x", 1),
                ("add", table, key, chance.choice((-1, 2))),
                ("insert", table, chance.choice((1, 1, 4))),
                ("take", table, 1),
                ("take", table, 1),
                ("lock", table, key),
            )
        )

    number = chance.choice((2, 2, 3))
    return tuple(
        tuple(
            tuple(step() for _ in range(chance.randint(1, 3)))
            for _ in range(chance.choice((1, 1, 2) if number == 2 else (1,)))
        )
        for _ in range(number)
    )


def mutants(outcome: Outcome) -> list[Outcome]:
    """The outcome with one thing changed: a number read, a number that was left, a row more, one less, an id twice."""
    answers, state = outcome
    found: list[Outcome] = []
    for unit, given in answers.items():
        for at, each in enumerate(given):
            if each[:2] == ("row", "number"):
                found.append(
                    ({**answers, unit: (*given[:at], ("row", "number", each[2] + 13), *given[at + 1 :])}, state)
                )
            if each[:2] == ("row", "id"):
                other = next((a[2] for u, g in answers.items() if u != unit for a in g if a[:2] == ("row", "id")), 1)
                found.append(({**answers, unit: (*given[:at], ("row", "id", other), *given[at + 1 :])}, state))
    for place, (table, rows) in enumerate(state):
        for changed in (
            ((rows[0][0], rows[0][1] + 13), *rows[1:]),
            rows[1:],
            (*rows, (FIRST_ID + 90, 4)),
        ):
            found.append((answers, (*state[:place], (table, changed), *state[place + 1 :])))
    return found
